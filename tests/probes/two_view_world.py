"""Maps of a perfect two-view decoder: of the exact box room, and of rendered rooms from their depth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import PairSample, View
from dune_bench.geometry.cameras import pixel_centres, project, scale_intrinsics, unproject, unproject_depth
from dune_bench.geometry.poses import invert, transform
from dune_bench.geometry.sampling import sample_nearest
from dune_bench.probes.pair_matches import PairMatches
from dune_bench.probes.pair_points import true_pose
from dune_bench.probes.two_view_maps import PairMaps, ViewMaps
from tests.probes.fake_room import SIZE, depth_at, intrinsics

Floats = NDArray[np.float64]


def view_maps(
    points: Floats, descriptors: Floats | None = None, confidence: Floats | None = None
) -> ViewMaps:
    """Of points (h, w, 3) and descriptors (h, w, d), which are made unit length."""
    ones = np.ones(points.shape[:2], np.float32)
    desc = np.ones((*points.shape[:2], 1)) if descriptors is None else descriptors
    desc = desc / np.linalg.norm(desc, axis=-1, keepdims=True)
    conf = ones if confidence is None else confidence.astype(np.float32)
    return ViewMaps(points.astype(np.float32), conf, desc.astype(np.float32), ones)


def box_maps(sample: PairSample, grid1: tuple[int, int], grid2: tuple[int, int]) -> PairMaps:
    """Of a `fake_room` pair at any grids; descriptors are waves of the place in the world."""
    return PairMaps(_box(sample, sample.view1, grid1), _box(sample, sample.view2, grid2))


def _box(sample: PairSample, view: View, grid: tuple[int, int]) -> ViewMaps:
    pixels = pixel_centres(grid).reshape(-1, 2) * (SIZE[1] / grid[1], SIZE[0] / grid[0])
    own = unproject(intrinsics(), pixels, depth_at(view.T_cam_world, pixels))
    world = transform(invert(view.T_cam_world), own)
    waves = np.random.default_rng(5).normal(0, 2.0, (3, 64))
    desc = np.concatenate([np.sin(world @ waves), np.cos(world @ waves)], 1)
    points = transform(sample.view1.T_cam_world, world)
    return view_maps(points.reshape(*grid, 3), desc.reshape(*grid, -1))


def depth_maps(sample: PairSample) -> PairMaps:
    """Of any pair with true depth, at the depth maps' sizes."""
    T_1 = (np.eye(4), invert(true_pose(sample)))
    return PairMaps(*(_lifted(v, T) for v, T in zip((sample.view1, sample.view2), T_1, strict=True)))


def _lifted(view: View, T_1_view: Floats) -> ViewMaps:
    size = (view.depth.shape[0], view.depth.shape[1])
    K = scale_intrinsics(view.K, view.image.size, size)
    return view_maps(transform(T_1_view, unproject_depth(K, view.depth)))


def depth_matches(sample: PairSample, count: int = 400) -> PairMatches:
    """Of any pair with true depth: centres of view 1's depth pixels, where view 2 sees the same surface
    (within 1 % of depth)."""
    size1 = (sample.view1.depth.shape[0], sample.view1.depth.shape[1])
    size2 = (sample.view2.depth.shape[0], sample.view2.depth.shape[1])
    K1, K2 = (
        scale_intrinsics(v.K, v.image.size, size)
        for v, size in ((sample.view1, size1), (sample.view2, size2))
    )
    points = unproject_depth(K1, sample.view1.depth).reshape(-1, 3)
    pixels1 = pixel_centres(size1).reshape(-1, 2)
    pixels2, z = project(K2, transform(true_pose(sample), points))
    seen = np.abs(sample_nearest(sample.view2.depth, pixels2) / z - 1) < 0.01
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(seen))[:count]
    scale1 = np.divide(sample.view1.image.size[::-1], size1[::-1])
    scale2 = np.divide(sample.view2.image.size[::-1], size2[::-1])
    return PairMatches(pixels1[chosen] * scale1, pixels2[chosen] * scale2, np.ones(len(chosen)))
