"""Skin, hair and clothes of MiniRooms' people, painted on the body as linear albedo.

anny has no clothes.  A garment is a signed field on the template (positive inside), cut at zero, with
a procedural pattern in the person's own rest pose (metres).  Fields interpolate linearly, so a finer
mesh gives a finer outline.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SKIN_SRGB = (
    (0.98, 0.84, 0.76),
    (0.93, 0.74, 0.62),
    (0.82, 0.61, 0.46),
    (0.66, 0.46, 0.33),
    (0.47, 0.31, 0.22),
    (0.40, 0.27, 0.20),
)
HAIR_SRGB = (
    (0.07, 0.06, 0.06),
    (0.16, 0.10, 0.07),
    (0.30, 0.19, 0.11),
    (0.45, 0.29, 0.15),
    (0.70, 0.54, 0.30),
    (0.40, 0.22, 0.13),
)
GREY_HAIR_SRGB = (0.72, 0.71, 0.70)


@dataclass(frozen=True)
class Regions:
    """Template fields per vertex, (V,) float64, of anny's default body in its reference pose.

    x, y, z: position (metres, facing -y).  head, arm, leg, foot: summed skinning weights.  arm_t, leg_t:
    0 at shoulder/hip, 1 at elbow/knee, 2 at wrist/ankle.  ear, lip, eye: masks in [0, 1].
    iris: cosine between the eye's outward direction and its axis.
    """

    x: Array
    y: Array
    z: Array
    head: Array
    arm: Array
    leg: Array
    foot: Array
    arm_t: Array
    leg_t: Array
    ear: Array
    lip: Array
    eye: Array
    iris: Array
    landmarks: dict[str, Array]

    def apply(self, interpolate: Callable[[Array], Array]) -> Regions:
        """The same fields on a finer mesh."""
        fields = {k: interpolate(v) for k, v in vars(self).items() if k != "landmarks"}
        return Regions(**fields, landmarks=self.landmarks)


MIN_CLOTH_DISTANCE = 20.0
"""A garment nearer than this to its wearer's skin (see `distance_from_skin`) reads as nakedness."""


def linear(srgb: tuple[float, ...] | Array) -> Array:
    """sRGB in [0, 1] -> linear, kept within [0.015, 0.80] (no real cloth is darker or brighter)."""
    c = np.asarray(srgb, dtype=np.float64)
    value = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.clip(value, 0.015, 0.80))


@dataclass(frozen=True)
class Pattern:
    """Two colours and how they alternate.  period: metres.  waves: (n, 4) of noise (kx, ky, kz, phase)."""

    kind: str
    first: Array
    second: Array
    period: float
    waves: Array

    def colours(self, along: Array, around: Array, rest: Array) -> Array:
        """(V, 3) linear albedo.  along: metres down the limb or torso; around: across it."""
        if self.kind == "plain":
            mix = 0.06 * self._noise(rest)
        elif self.kind == "stripes":
            mix = self._square(along)
        elif self.kind == "checks":
            mix = 0.5 * (self._square(along) + self._square(around))
        else:
            mix = np.clip(0.5 + 0.9 * self._noise(rest), 0.0, 1.0)
        return np.asarray(self.first + mix[:, None] * (self.second - self.first))

    def _square(self, u: Array) -> Array:
        return np.asarray(np.clip(0.5 + 2.5 * np.sin(2 * np.pi * u / self.period), 0.0, 1.0))

    def _noise(self, rest: Array) -> Array:
        k, phase = self.waves[:, :3] / self.period, self.waves[:, 3]
        return np.asarray(np.sin(rest @ k.T + phase).mean(axis=1))


@dataclass(frozen=True)
class Look:
    """Everything random about a person's appearance; `paint` turns it into vertex colours."""

    skin: Array
    hair: Array
    lip: Array
    iris: Array
    hairline: float
    nape: float
    beard: float
    shirt: Pattern
    bottoms: Pattern
    shoe: Array
    sole: Array
    sock: Array
    sleeve: float
    hem: float
    collar: float
    collar_slope: float
    leg_length: float
    shoe_top: float
    sock_top: float

    def paint(self, regions: Regions, rest: Array) -> Array:
        """(V, 3) linear albedo in [0, 1].  rest: (V, 3) the person's rest pose, metres."""
        rgb = self._skin(regions, rest)
        shirt, bottoms, shoe, sock = self._garments(regions)
        arm, leg = regions.arm > 0.5, regions.leg > 0.5
        along = np.where(arm, -0.29 * regions.arm_t, rest[:, 2])
        around = np.where(arm, rest[:, 1], rest[:, 0])
        rgb = np.where(
            bottoms[:, None],
            self.bottoms.colours(rest[:, 2], np.where(leg, rest[:, 1], rest[:, 0]), rest),
            rgb,
        )
        rgb = np.where(shirt[:, None], self.shirt.colours(along, around, rest), rgb)
        rgb = np.where(sock[:, None], self.sock, rgb)
        low = regions.z < regions.landmarks["sole"][2] + 0.010
        rgb = np.where(shoe[:, None], np.where(low[:, None], self.sole, self.shoe), rgb)
        return np.asarray(np.clip(rgb, 0.0, 1.0))

    def _skin(self, r: Regions, rest: Array) -> Array:
        blush = 1.0 + 0.03 * np.sin(rest @ np.array([31.0, 27.0, 23.0]))
        rgb = np.asarray(self.skin * blush[:, None])
        rgb = np.where((r.lip > 0.5)[:, None], self.lip, rgb)
        rgb = np.where((self.hair_field(r) > 0)[:, None], self.hair, rgb)
        eyeball = r.eye > 0.5
        rgb = np.where(eyeball[:, None], np.array([0.62, 0.60, 0.58]), rgb)
        rgb = np.where((eyeball & (r.iris > 0.86))[:, None], self.iris, rgb)
        return np.where((eyeball & (r.iris > 0.975))[:, None], np.full(3, 0.015), rgb)

    def hair_field(self, r: Regions) -> Array:
        """Positive on the scalp, the eyebrows and (if any) the beard."""
        brow, nose = r.landmarks["eye"], r.landmarks["nose"]
        line = brow[2] + self.hairline - (self.nape + self.hairline) * (r.y - nose[1]) / 0.17
        scalp = np.minimum(r.z - line, 0.5 - r.ear)
        above = (np.abs(r.x) - brow[0]) / 0.021
        height = (r.z - brow[2] - 0.019 + 0.004 * above**2) / 0.0045
        eyebrow = np.where(r.y < nose[1] + 0.055, 1.0 - above**2 - height**2, -1.0)
        chin = r.landmarks["chin"]
        beard = np.minimum(nose[2] - 0.028 - r.z + 0.10 * (r.y - nose[1]), chin[1] + 0.075 - r.y)
        beard = np.minimum(np.minimum(beard, r.z - chin[2] + 0.02), 0.5 - r.lip) * 10 - (1.0 - self.beard)
        field = np.maximum(np.maximum(scalp, eyebrow), np.where(self.beard > 0, beard, -1.0))
        return np.asarray(np.where(r.head > 0.3, field, -1.0))

    def _garments(self, r: Regions) -> tuple[NDArray[np.bool_], ...]:
        neck = r.landmarks["neck"]
        below_collar = neck[2] + self.collar + self.collar_slope * (r.y - neck[1]) - r.z
        arm, leg = r.arm > 0.5, r.leg > 0.5
        sleeve = np.where(arm, self.sleeve - r.arm_t, 1.0)
        hem = r.z - (r.landmarks["pelvis"][2] + self.hem)
        shirt = np.minimum(np.minimum(sleeve, hem), below_collar)
        on_leg = np.where(leg | (r.foot > 0.3), self.leg_length - r.leg_t, 1.0)
        waist = r.landmarks["pelvis"][2] + 0.09 - r.z
        bottoms = np.minimum(np.where(arm, -1.0, on_leg), waist)
        ankle = r.landmarks["ankle"][2]
        low = (r.foot > 0.02) | (r.leg_t > 1.5)
        shoe = np.where(low, ankle + self.shoe_top - r.z, -1.0)
        sock = np.where(low, ankle + self.sock_top - r.z, -1.0)
        covered = shirt > 0
        return covered & (r.head < 0.6), bottoms > 0, shoe > 0, (sock > 0) & ~(bottoms > 0)


def _colour(rng: np.random.Generator, value: tuple[float, float], saturation: tuple[float, float]) -> Array:
    return linear(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))


def _pattern(
    rng: np.random.Generator, kinds: tuple[str, ...], value: tuple[float, float], vivid: float
) -> Pattern:
    first = _colour(rng, value, (0.05, vivid))
    second = _colour(rng, (0.15, 0.95), (0.0, vivid))
    waves = np.concatenate([rng.normal(0, 3.0, size=(6, 3)), rng.uniform(0, 2 * np.pi, size=(6, 1))], axis=1)
    return Pattern(str(rng.choice(kinds)), first, second, float(rng.uniform(0.05, 0.11)), waves)


def lab(rgb: Array) -> Array:
    """CIE L*a*b* (D65) of a linear sRGB colour (3,)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x = to_xyz @ rgb / np.array([0.9505, 1.0, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance_from_skin(pattern: Pattern, skin: Array) -> float:
    """How far a garment's colours are from the wearer's skin, the farthest: L*a*b* distance with
    lightness halved, because light and shade move lightness most."""
    colours = (pattern.first,) if pattern.kind == "plain" else (pattern.first, pattern.second)
    steps = [(lab(colour) - lab(skin)) * np.array([0.5, 1.0, 1.0]) for colour in colours]
    return max(float(np.linalg.norm(step)) for step in steps)


def _clothed(pattern: Pattern, skin: Array) -> Pattern:
    """The garment, its hues turned as little as it takes not to look like bare skin.  Draws nothing,
    so that every other choice of a room stays as it was."""
    for turn in (0.0, 0.12, -0.12, 0.24, -0.24, 0.36, -0.36, 0.5):
        turned = replace(pattern, first=_turned(pattern.first, turn), second=_turned(pattern.second, turn))
        if distance_from_skin(turned, skin) >= MIN_CLOTH_DISTANCE:
            return turned
    return replace(pattern, first=linear((0.15, 0.25, 0.5)))


def _turned(rgb: Array, turn: float) -> Array:
    if turn == 0.0:
        return rgb
    srgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    hue, saturation, value = colorsys.rgb_to_hsv(*srgb)
    return linear(colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value))


def _between(palette: tuple[tuple[float, ...], ...], rng: np.random.Generator) -> Array:
    at = rng.uniform(0, len(palette) - 1)
    low = int(at)
    a, b = np.asarray(palette[low]), np.asarray(palette[min(low + 1, len(palette) - 1)])
    return linear(a + (at - low) * (b - a))


def sample_look(rng: np.random.Generator, age: float, gender: float) -> Look:
    """A random appearance.  age, gender: anny's phenotype values (1 is old; 0 male, 1 female)."""
    skin = _between(SKIN_SRGB, rng)
    fair = float(skin.mean()) > 0.3
    hair = linear(HAIR_SRGB[int(rng.integers(len(HAIR_SRGB) if fair else 2))])
    if age > 0.8 and rng.random() < 0.7:
        hair = linear(GREY_HAIR_SRGB) * rng.uniform(0.6, 1.0)
    man = gender < 0.5 and age > 0.6
    shirt = _pattern(rng, ("plain", "plain", "stripes", "checks", "noise"), (0.25, 0.95), 0.85)
    bottoms = _pattern(rng, ("plain", "plain", "plain", "noise", "checks"), (0.12, 0.75), 0.6)
    shirt, bottoms = _clothed(shirt, skin), _clothed(bottoms, skin)
    long_legs = rng.random() < 0.65
    shoe_top = float(rng.choice([-0.03, -0.02, 0.05]))
    return Look(
        skin=skin,
        hair=hair,
        lip=skin * np.array([0.80, 0.52, 0.52]),
        iris=linear(((0.25, 0.15, 0.08), (0.30, 0.42, 0.50), (0.30, 0.36, 0.20))[int(rng.integers(3))]),
        hairline=float(
            rng.uniform(0.075, 0.095)
            if man and age > 0.75 and rng.random() < 0.4
            else rng.uniform(0.045, 0.06)
        ),
        nape=float(rng.uniform(0.03, 0.07) if gender < 0.5 else rng.uniform(0.06, 0.10)),
        beard=float(rng.uniform(0.8, 1.0)) if man and rng.random() < 0.3 else 0.0,
        shirt=shirt,
        bottoms=shirt if gender > 0.5 and rng.random() < 0.12 else bottoms,
        shoe=_colour(rng, (0.06, 0.85), (0.0, 0.6)),
        sole=linear((0.85, 0.85, 0.83) if rng.random() < 0.5 else (0.12, 0.11, 0.10)),
        sock=linear((0.9, 0.9, 0.9)) if rng.random() < 0.5 else _colour(rng, (0.1, 0.6), (0.0, 0.5)),
        sleeve=float(rng.choice([0.45, 0.6, 0.75, 1.92, 1.92, 1.5])),
        hem=float(rng.uniform(-0.02, 0.07)),
        collar=float(rng.uniform(-0.02, 0.015)),
        collar_slope=float(rng.uniform(0.35, 0.75)),
        leg_length=float(rng.uniform(1.85, 1.97) if long_legs else rng.uniform(0.55, 1.15)),
        shoe_top=shoe_top,
        sock_top=shoe_top + float(rng.choice([-0.01, 0.03, 0.12])),
    )
