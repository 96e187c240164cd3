"""Procedural surfaces: floors, walls, ceilings, posters and the outdoors behind a window.

Every texture is float32 (H, W, 3), linear RGB in [0, 1], tiles seamlessly where it is repeated, and
comes with the metres that one repeat covers.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tools.minirooms.meshes import srgb_to_linear

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True)
class Surface:
    """texture: linear (H, W, 3); width_m, height_m: what one repeat covers; gloss in [0, 1]."""

    texture: F32
    width_m: float
    height_m: float
    gloss: float
    name: str


def noise(rng: Rng, shape: tuple[int, int], scales: tuple[float, ...] = (1, 3, 9, 27)) -> F64:
    """Seamless noise with zero mean and unit deviation: white noise blurred at several scales."""
    total = np.zeros(shape)
    for scale in scales:
        layer = gaussian_filter(rng.standard_normal(shape), scale, mode="wrap")
        total += layer / layer.std()
    return np.asarray(total / total.std())


def hue(rng: Rng, saturation: tuple[float, float], value: tuple[float, float]) -> F64:
    """A random sRGB colour (3,) within ranges of saturation and value."""
    return np.asarray(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)))


def _finish(srgb: F64) -> F32:
    return srgb_to_linear(np.clip(srgb, 0, 1)).astype(np.float32)


_WOODS = ((0.62, 0.42, 0.25), (0.48, 0.30, 0.18), (0.75, 0.58, 0.38), (0.55, 0.45, 0.36), (0.36, 0.24, 0.16))


def planks(rng: Rng) -> Surface:
    """Wooden boards, each with its own shade and grain."""
    size, rows = 512, int(rng.integers(5, 10))
    base = np.array(_WOODS[int(rng.integers(len(_WOODS)))]) * rng.uniform(0.85, 1.2)
    grain = gaussian_filter(rng.standard_normal((size, size)), (0.8, 18), mode="wrap")
    grain /= grain.std()
    height = size // rows
    shade = np.ones((size, size))
    for row in range(rows):
        shift, count = int(rng.integers(size)), int(rng.integers(2, 4))
        edges = np.sort(np.r_[0, rng.integers(40, size - 40, count - 1), size])
        line = np.ones(size)
        for left, right in itertools.pairwise(edges):
            line[left:right] = rng.uniform(0.82, 1.15)
            line[left : left + 2] *= 0.55
        band = slice(row * height, (row + 1) * height if row < rows - 1 else size)
        shade[band] = np.roll(line, shift)
        shade[band.start : band.start + 2] *= 0.6
    srgb = base * (shade * (1 + 0.06 * grain))[..., None]
    return Surface(_finish(srgb), 2.0, rows * rng.uniform(0.11, 0.2), rng.uniform(0.1, 0.45), "planks")


def tiles(rng: Rng) -> Surface:
    """Square tiles with joints; a chessboard of two colours or one colour with variation."""
    size, count = 512, int(rng.choice([2, 4]))
    cell = size // count
    first = hue(rng, (0.02, 0.35), (0.45, 0.92))
    second = first * rng.uniform(0.35, 0.8) if rng.uniform() < 0.4 else first
    parity = np.add.outer(np.arange(size) // cell, np.arange(size) // cell) % 2
    shade = np.kron(rng.uniform(0.9, 1.08, (count, count)), np.ones((cell, cell)))
    srgb = np.where(parity[..., None] == 0, first, second) * shade[..., None]
    srgb = srgb * (1 + 0.035 * noise(rng, (size, size)))[..., None]
    line = np.arange(size) % cell < max(3, cell // 50)
    joints = line[:, None] | line[None, :]
    srgb[joints] = hue(rng, (0, 0.1), (0.3, 0.8))
    side = count * rng.uniform(0.25, 0.55)
    return Surface(_finish(srgb), side, side, rng.uniform(0.15, 0.5), "tiles")


def carpet(rng: Rng) -> Surface:
    """A fitted carpet: fine noise on one colour, sometimes with woven stripes."""
    size = 512
    srgb = hue(rng, (0.05, 0.5), (0.3, 0.75)) * (1 + 0.10 * noise(rng, (size, size), (0.6, 1.2)))[..., None]
    srgb = srgb * (1 + 0.04 * noise(rng, (size, size), (20,)))[..., None]
    if rng.uniform() < 0.3:
        stripe = (np.arange(size) // int(rng.choice([16, 32, 64]))) % 2
        srgb = srgb * (1 - 0.18 * stripe)[None, :, None]
    return Surface(_finish(srgb), 1.2, 1.2, 0.0, "carpet")


def concrete(rng: Rng) -> Surface:
    """Plaster or concrete: clouds on grey or beige."""
    size = 512
    base = hue(rng, (0.0, 0.15), (0.5, 0.8))
    srgb = base * (1 + 0.07 * noise(rng, (size, size), (1, 4, 16, 50)))[..., None]
    return Surface(_finish(srgb), 2.6, 2.6, rng.uniform(0, 0.25), "concrete")


def paint(rng: Rng) -> Surface:
    """Painted wall: nearly one colour, with the slight mottling of a roller."""
    size = 256
    vivid = rng.uniform() < 0.28
    base = hue(rng, (0.2, 0.48), (0.55, 0.85)) if vivid else hue(rng, (0.02, 0.22), (0.75, 0.95))
    srgb = base * (1 + 0.012 * noise(rng, (size, size), (0.8, 6, 30)))[..., None]
    return Surface(_finish(srgb), 2.0, 2.0, 0.05, "paint")


def wallpaper(rng: Rng) -> Surface:
    """Stripes, diamonds or dots in two near colours."""
    size = 256
    base = hue(rng, (0.05, 0.35), (0.65, 0.92))
    other = np.clip(base * rng.uniform(0.72, 0.93) + rng.normal(0, 0.03, 3), 0, 1)
    y, x = np.mgrid[:size, :size] / size
    kind = int(rng.integers(3))
    if kind == 0:
        mask = (x * int(rng.choice([2, 4, 6])) % 1) < rng.uniform(0.3, 0.6)
    elif kind == 1:
        k = int(rng.choice([2, 3]))
        mask = (np.abs((x * k) % 1 - 0.5) + np.abs((y * k) % 1 - 0.5)) < rng.uniform(0.2, 0.4)
    else:
        k = int(rng.choice([3, 4]))
        mask = np.hypot((x * k + 0.5 * (np.floor(y * k) % 2)) % 1 - 0.5, (y * k) % 1 - 0.5) < rng.uniform(
            0.15, 0.32
        )
    soft = gaussian_filter(mask.astype(float), 0.8, mode="wrap")[..., None]
    srgb = (base * (1 - soft) + other * soft) * (1 + 0.01 * noise(rng, (size, size)))[..., None]
    side = rng.uniform(0.4, 0.8)
    return Surface(_finish(srgb), side, side, 0.0, "wallpaper")


def bricks(rng: Rng) -> Surface:
    """Running-bond bricks with mortar, raw or painted."""
    size, rows, columns = 512, 8, 4
    base = hue(rng, (0.0, 0.1), (0.75, 0.92)) if rng.uniform() < 0.4 else np.array([0.62, 0.36, 0.28])
    y, x = np.mgrid[:size, :size] / size
    row = np.floor(y * rows)
    u = x * columns + 0.5 * (row % 2)
    shade = rng.uniform(0.8, 1.12, (rows, columns))[row.astype(int), np.floor(u).astype(int) % columns]
    srgb = base * (shade * (1 + 0.06 * noise(rng, (size, size))))[..., None]
    mortar = ((y * rows) % 1 < 0.1) | (u % 1 < 0.05)
    soft = gaussian_filter(mortar.astype(float), 1.0, mode="wrap")[..., None]
    joint = base * rng.uniform(0.75, 0.95) if base.mean() > 0.7 else np.array([0.72, 0.69, 0.65])
    return Surface(_finish(srgb * (1 - soft) + joint * soft), 1.0, 0.72, 0.0, "bricks")


_FLOORS: tuple[tuple[Callable[[Rng], Surface], float], ...] = (
    (planks, 0.45),
    (tiles, 0.25),
    (carpet, 0.18),
    (concrete, 0.12),
)
_WALLS: tuple[tuple[Callable[[Rng], Surface], float], ...] = (
    (paint, 0.58),
    (wallpaper, 0.18),
    (bricks, 0.12),
    (concrete, 0.12),
)


def _choose(rng: Rng, table: tuple[tuple[Callable[[Rng], Surface], float], ...]) -> Surface:
    make = table[int(rng.choice(len(table), p=[weight for _, weight in table]))][0]
    return make(rng)


def floor_surface(rng: Rng) -> Surface:
    """A random floor."""
    return _choose(rng, _FLOORS)


def wall_surface(rng: Rng) -> Surface:
    """A random wall."""
    return _choose(rng, _WALLS)


def ceiling_surface(rng: Rng) -> Surface:
    """A white or faintly tinted ceiling."""
    srgb = hue(rng, (0, 0.05), (0.86, 0.96)) * (1 + 0.01 * noise(rng, (128, 128)))[..., None]
    return Surface(_finish(srgb), 1.5, 1.5, 0.0, "ceiling")


def poster(rng: Rng) -> F32:
    """An abstract picture (256, 256, 3): a gradient with discs, bars and a frame."""
    size = 256
    y, x = np.mgrid[:size, :size] / size
    a, b = hue(rng, (0.2, 0.7), (0.3, 0.95)), hue(rng, (0.2, 0.7), (0.3, 0.95))
    angle = rng.uniform(0, 2 * np.pi)
    t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    srgb = a * (1 - t) + b * t
    for _ in range(int(rng.integers(4, 12))):
        colour = hue(rng, (0.1, 0.9), (0.15, 1.0))
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.04, 0.25)
        if rng.uniform() < 0.5:
            mask = np.hypot(x - cx, y - cy) < r
        else:
            c, s = np.cos(angle), np.sin(angle)
            u, v = (x - cx) * c + (y - cy) * s, (y - cy) * c - (x - cx) * s
            mask = (np.abs(u) < r) & (np.abs(v) < r * rng.uniform(0.1, 0.8))
        srgb[mask] = colour
    edge = int(rng.integers(8, 22))
    border = np.ones((size, size), bool)
    border[edge:-edge, edge:-edge] = False
    srgb[border] = hue(rng, (0, 0.3), (0.08, 0.95))
    return _finish(srgb)


def outdoors(rng: Rng) -> F32:
    """What a window shows (128, 128, 3): sky over a dim blurred ground.  Values are relative
    radiance, the sky about 1."""
    size = 128
    y = np.linspace(0, 1, size)[:, None, None]
    top, low = np.array([0.55, 0.75, 1.0]) * rng.uniform(0.8, 1.1), np.array([0.95, 0.97, 1.0])
    sky = top * (1 - y) + low * y
    clouds = np.clip(gaussian_filter(rng.standard_normal((size, size)), 7) * 6, 0, 1)[..., None]
    sky = sky * (1 - 0.5 * clouds) + 0.5 * clouds
    horizon = rng.uniform(0.55, 0.75) + 0.06 * gaussian_filter(rng.standard_normal(size), 5) / 0.2
    ground = hue(rng, (0.2, 0.5), (0.25, 0.5)) * (1 + 0.3 * noise(rng, (size, size), (3, 9)))[..., None]
    below = (np.linspace(0, 1, size)[:, None] > horizon[None, :])[..., None]
    image = np.where(below, 0.6 * ground, sky)
    blurred: F64 = gaussian_filter(image, (1.5, 1.5, 0))
    return np.clip(blurred, 0.02, 1.2).astype(np.float32)
