"""Six views of a room: a reference and five queries spread over three bins of difficulty.

Cameras follow the house convention: OpenCV axes, K in pixels with pixel centres at half-integers,
T_cam_world maps world to camera.  What a camera sees is asked of a `Cast`, so nothing here needs a
renderer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from tools.minirooms.classes import INDEX
from tools.minirooms.room import Room

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Rng = np.random.Generator
Cast = Callable[[F64, F64, F64], tuple[F64, I64]]
"""(K, T_cam_world, pixels (N, 2) as x, y) -> z (N,) metres along the axis, label (N,); -1 where
there is nothing."""

IMAGE_SIZE = 448
BINS = ("narrow", "medium", "wide")
MAX_ROTATION_DEG, MAX_BASELINE_M = 60.0, 2.5
MIN_ROTATION_DEG, MIN_BASELINE_M = 5.0, 0.2
MIN_COVISIBLE = 0.15
MIN_CLASSES = 4
_GRID = 32
_TILT_DEG = (-30.0, 6.0)
_BASELINES = {"narrow": (0.2, 0.8), "medium": (0.3, 1.66), "wide": (0.5, 2.5)}


@dataclass(frozen=True)
class Camera:
    """K: (3, 3) pixels; T_cam_world: (4, 4); covisible: share of the reference's pixels seen here;
    rotation_deg, baseline_m: relative to the reference; exposure: gains (all, red, blue)."""

    K: F64
    T_cam_world: F64
    fov_deg: float
    bin: str = "reference"
    covisible: float = 1.0
    rotation_deg: float = 0.0
    baseline_m: float = 0.0
    exposure: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def centre(self) -> F64:
        """Camera centre (3,) in the world."""
        return np.asarray(-self.T_cam_world[:3, :3].T @ self.T_cam_world[:3, 3])


def intrinsics(fov_deg: float, size: int) -> F64:
    """K (3, 3) of a square image of `size` pixels with the given full field of view."""
    focal = size / 2 / math.tan(math.radians(fov_deg) / 2)
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


def look_at(position: F64, target: F64, roll: float = 0.0) -> F64:
    """T_cam_world (4, 4) of a camera at `position` whose axis meets `target`, world z up, rolled by
    `roll` radians."""
    forward = (target - position) / np.linalg.norm(target - position)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    rotation = np.array([c * right + s * down, c * down - s * right, forward])
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, -rotation @ position
    return T


def pixel_grid(size: int, count: int) -> F64:
    """(count^2, 2) image points (x, y): centres of a count x count grid over the image, row-major."""
    centres = (np.arange(count) + 0.5) * size / count
    x, y = np.meshgrid(centres, centres)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def unproject(K: F64, T_cam_world: F64, pixels: F64, z: F64) -> F64:
    """World points (N, 3) of image points (N, 2) at depths z (N,)."""
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ np.linalg.inv(K).T
    points = rays * z[:, None]
    return np.asarray((points - T_cam_world[:3, 3]) @ T_cam_world[:3, :3])


def project(K: F64, T_cam_world: F64, points: F64) -> tuple[F64, F64]:
    """Image points (N, 2) and depths z (N,) of world points (N, 3); points behind have z <= 0."""
    local = points @ T_cam_world[:3, :3].T + T_cam_world[:3, 3]
    z = local[:, 2]
    safe = np.where(np.abs(z) > 1e-9, z, 1e-9)
    return np.asarray((local @ K.T)[:, :2] / safe[:, None]), z


def rotation_between(T_a: F64, T_b: F64) -> float:
    """Angle (degrees) of the relative rotation of two cameras."""
    trace = float(np.trace(T_a[:3, :3] @ T_b[:3, :3].T))
    return math.degrees(math.acos(min(1.0, max(-1.0, (trace - 1) / 2))))


def covisible_share(first: Camera, second: Camera, cast: Cast, size: int, count: int = _GRID) -> float:
    """The share of the first camera's pixels whose surface point the second one sees: inside its
    image and not hidden (its own depth there agrees within 1 cm + 2 %)."""
    pixels = pixel_grid(size, count)
    z, label = cast(first.K, first.T_cam_world, pixels)
    points = unproject(first.K, first.T_cam_world, pixels[label >= 0], z[label >= 0])
    where, expected = project(second.K, second.T_cam_world, points)
    inside = (expected > 0.05) & (where > 0).all(axis=1) & (where < size).all(axis=1)
    if not inside.any():
        return 0.0
    seen, _ = cast(second.K, second.T_cam_world, where[inside])
    return float((np.abs(seen - expected[inside]) < 0.01 + 0.02 * expected[inside]).sum() / len(pixels))


def difficulty(rotation_deg: float, baseline_m: float) -> str | None:
    """The bin: the larger of rotation / 60 deg and baseline / 2.5 m in thirds; None outside."""
    if rotation_deg < MIN_ROTATION_DEG or baseline_m < MIN_BASELINE_M:
        return None
    score = max(rotation_deg / MAX_ROTATION_DEG, baseline_m / MAX_BASELINE_M)
    return BINS[min(2, int(3 * score))] if score <= 1 else None


class Photographer:
    """Finds good views of one room.  `interest`: (M, 3) points worth looking at."""

    def __init__(self, room: Room, cast: Cast, interest: F64, rng: Rng, size: int = IMAGE_SIZE) -> None:
        self.room, self.cast, self.interest, self.rng, self.size = room, cast, interest, rng, size

    def _stands(self, position: F64) -> bool:
        x, y, z = (float(value) for value in position)
        if not 0.5 < z < self.room.size[2] - 0.25:
            return False
        return self.room.clearance(x, y, z - 0.35, z + 0.3) > 0.3

    def quality(self, camera: Camera) -> float | None:
        """Number of classes plus the spread of depth, and more if people are in it, or None for a view
        nobody would keep: fewer than four classes, something too close, or one surface filling it."""
        z, label = self.cast(camera.K, camera.T_cam_world, pixel_grid(self.size, _GRID))
        if (label < 0).any() or np.percentile(z, 1) < 0.5 or np.median(z) < 1.3 or z.min() < 0.36:
            return None
        names, counts = np.unique(label, return_counts=True)
        if (counts > 0.004 * len(z)).sum() < MIN_CLASSES or counts.max() > 0.58 * len(z):
            return None
        person = float(counts[names == INDEX["person"]].sum()) / len(z)
        bonus = 2.5 * min(1.0, person / 0.05) - 4.0 * max(0.0, person - 0.35)
        return float((counts > 0.01 * len(z)).sum() + 2 * np.std(np.log(z)) + bonus)

    def _camera(self, position: F64, target: F64) -> Camera:
        # Photographs of rooms look a little down, rarely up.
        away = float(np.linalg.norm((target - position)[:2]))
        down, up = _TILT_DEG
        low, high = away * math.tan(math.radians(down)), away * math.tan(math.radians(up))
        target = np.array([*target[:2], position[2] + float(np.clip(target[2] - position[2], low, high))])
        fov = float(self.rng.uniform(55, 75))
        roll = math.radians(float(np.clip(self.rng.normal(0, 2.0), -6, 6)))
        return Camera(intrinsics(fov, self.size), look_at(position, target, roll), fov)

    def acceptable(self, tries: int) -> Iterator[tuple[float, Camera]]:
        """Views somebody would keep, with their quality, out of so many random ones."""
        for _ in range(tries):
            width, depth, height = self.room.size
            high = min(1.95, height - 0.3)
            position = np.array(
                [self.rng.uniform(0, width), self.rng.uniform(0, depth), self.rng.uniform(0.9, high)]
            )
            centre = np.array([width / 2, depth / 2, 1.0])
            target = self.interest[int(self.rng.integers(len(self.interest)))]
            target = 0.6 * target + 0.4 * centre + self.rng.normal(0, 0.25, 3)
            if not self._stands(position) or np.linalg.norm((target - position)[:2]) < 1.2:
                continue
            camera = self._camera(position, target)
            quality = self.quality(camera)
            if quality is not None:
                yield quality, camera

    def reference(self) -> Camera:
        """The best of a dozen acceptable views.  Raises TaskError if the room offers none."""
        found = list(islice(self.acceptable(400), 12))
        if len(found) < 4:
            raise TaskError(f"{self.room.id}: no acceptable reference view in 400 tries")
        return max(found, key=lambda pair: pair[0])[1]

    def query(self, reference: Camera, wanted: str) -> Camera:
        """One view in the wanted bin, covisible with the reference both ways: the best of three.
        Raises TaskError if 500 tries find none."""
        found: list[tuple[float, Camera]] = []
        pixels = pixel_grid(self.size, 12)
        z, _ = self.cast(reference.K, reference.T_cam_world, pixels)
        seen = unproject(reference.K, reference.T_cam_world, pixels, z)
        for _ in range(500):
            baseline = float(self.rng.uniform(*_BASELINES[wanted]))
            heading = float(self.rng.uniform(0, 2 * math.pi))
            lift = float(np.clip(self.rng.normal(0, 0.25), -0.5, 0.5)) * min(1.0, baseline)
            flat = math.sqrt(max(baseline**2 - lift**2, 0.0))
            step = np.array([flat * math.cos(heading), flat * math.sin(heading), lift])
            position = reference.centre + step
            if not self._stands(position) or position[2] > 2.1:
                continue
            target = seen[int(self.rng.integers(len(seen)))] + self.rng.normal(0, 0.15, 3)
            if np.linalg.norm((target - position)[:2]) < 0.8:
                continue
            camera = self._camera(position, target)
            rotation = rotation_between(camera.T_cam_world, reference.T_cam_world)
            baseline = float(np.linalg.norm(camera.centre - reference.centre))
            quality = self.quality(camera) if difficulty(rotation, baseline) == wanted else None
            if quality is None:
                continue
            shares = (
                covisible_share(reference, camera, self.cast, self.size),
                covisible_share(camera, reference, self.cast, self.size),
            )
            if min(shares) < MIN_COVISIBLE + 0.01:
                continue
            fine = covisible_share(reference, camera, self.cast, self.size, count=112)
            if fine < MIN_COVISIBLE:
                continue
            view = replace(camera, bin=wanted, covisible=fine, rotation_deg=rotation, baseline_m=baseline)
            found.append((quality, view))
            if len(found) == 3:
                break
        if not found:
            raise TaskError(f"{self.room.id}: no {wanted} query in 500 tries")
        return max(found, key=lambda pair: pair[0])[1]

    def exposure(self) -> tuple[float, float, float]:
        """Gain x0.6-1.7 and white balance (red, blue) within 20 %, each log-uniform."""
        gain = math.exp(float(self.rng.uniform(math.log(0.6), math.log(1.7))))
        red, blue = (math.exp(float(self.rng.uniform(math.log(0.83), math.log(1.2)))) for _ in range(2))
        return gain, red, blue


def bins_of_room(number: int) -> tuple[str, ...]:
    """The bins of a room's five queries, so that any run of rooms is balanced."""
    return tuple(BINS[(number * 5 + k) % 3] for k in range(5))


def six_views(photographer: Photographer, number: int) -> list[Camera]:
    """The reference and five queries of room `number` of its split."""
    reference = photographer.reference()
    views = [reference, *(photographer.query(reference, wanted) for wanted in bins_of_room(number))]
    return [replace(view, exposure=photographer.exposure()) for view in views]
