"""An empty box as a room: depth, matches and poses of two views of it are exact, from formulas."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.samples import PairSample, View
from dune_bench.geometry.cameras import pixel_centres, project, rays, scale_intrinsics, unproject
from dune_bench.geometry.poses import compose, invert, pose, transform
from dune_bench.probes.pair_matches import PairMatches
from tests.probes.fake_features import image

Floats = NDArray[np.float64]
SIZE = (96, 128)
HALF = np.array([2.0, 1.3, 2.5])
"""Half the box's sides, metres, about the world's origin."""


def turn(yaw: float, pitch: float = 0.0) -> Floats:
    """Rotation (3, 3) by degrees about the camera's y, then x axis."""
    a, b = np.radians([yaw, pitch])
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_x @ about_y


def intrinsics(size: tuple[int, int] = SIZE) -> Floats:
    K = np.array([[100.0, 0, SIZE[1] / 2], [0, 100.0, SIZE[0] / 2], [0, 0, 1]])
    return scale_intrinsics(K, SIZE, size)


def depth_at(T_cam_world: Floats, pixels: Floats) -> Floats:
    """Exact z (n,) at pixels (n, 2) of SIZE: where each ray leaves the box."""
    T = invert(T_cam_world)
    towards = rays(intrinsics(), pixels) @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        leaves = (np.sign(towards) * HALF - T[:3, 3]) / towards
    return np.asarray(leaves.min(1))


def view(name: str, T_cam_world: Floats, size: tuple[int, int] = SIZE) -> View:
    """A view with its depth map at `size`; the image is of SIZE."""
    pixels = pixel_centres(size).reshape(-1, 2) * (SIZE[1] / size[1], SIZE[0] / size[0])
    depth = depth_at(T_cam_world, pixels).reshape(size).astype(np.float32)
    return View(name, "room", image(name, SIZE), depth, intrinsics(), T_cam_world)


def pair(
    T_2_1: Floats | None = None, covisible: float = 0.5, name: str = "pair", size: tuple[int, int] = SIZE
) -> PairSample:
    """Two views: the first off the room's middle, the second at T_2_1 of it."""
    first = pose(turn(10.0, 5.0), np.array([0.2, 0.1, 0.4]))
    T = pose(turn(15.0, -5.0), np.array([0.4, 0.1, -0.2])) if T_2_1 is None else T_2_1
    views = (view(f"{name}-1", first, size), view(f"{name}-2", compose(T, first), size))
    return PairSample(name, "room", *views, covisible)


def relative(sample: PairSample) -> Floats:
    """T_2_1."""
    return compose(sample.view2.T_cam_world, invert(sample.view1.T_cam_world))


def true_matches(sample: PairSample, count: int = 200, seed: int = 0) -> PairMatches:
    """Exact matches of pixels that both views show; points1 are pixel centres."""
    rng = np.random.default_rng(seed)
    points1 = np.stack([rng.integers(0, SIZE[1], 4000), rng.integers(0, SIZE[0], 4000)], 1) + 0.5
    points = unproject(intrinsics(), points1, depth_at(sample.view1.T_cam_world, points1))
    points2, _ = project(intrinsics(), transform(relative(sample), points))
    # A box is convex: what is in the frame is seen.
    seen = np.isfinite(points2).all(1) & (points2 >= 0).all(1) & (points2 <= (SIZE[1], SIZE[0])).all(1)
    chosen = np.flatnonzero(seen)[:count]
    return PairMatches(points1[chosen], points2[chosen], np.ones(len(chosen)))


def lazy_pairs(samples: Sequence[PairSample]) -> Lazy[PairSample]:
    def give(sample: PairSample) -> PairSample:
        return sample

    return Lazy([LazyItem(s.id, s.group, (s.view1.image, s.view2.image), partial(give, s)) for s in samples])
