"""The statistics of a reconstructed pair, from depth and a relative pose, or from points themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import PairSample, View
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, Size, unproject
from dune_bench.geometry.poses import check_pose, compose, invert, transform
from dune_bench.metrics.pose import pair_errors
from dune_bench.metrics.reconstruction import cloud_errors, point_errors

Floats = NDArray[np.float64]
DepthAt = Callable[[Size], Floats]
"""Depth of a view, metres along z, at any size (height, width) of its field of view."""
PointsAt = Callable[[Floats, Size], Floats]
"""Points (n, 3) of a view, metres, in camera 1's frame, at pixels (n, 2) of its image at a size (height,
width); NaN where there is none."""


def true_pose(sample: PairSample) -> Floats:
    """T_2_1 (4, 4): points of camera 1 to camera 2.  Raises TaskError for poses that are not rigid."""
    for view in (sample.view1, sample.view2):
        check_pose(view.T_cam_world, f"view {view.id}: T_cam_world")
    return compose(sample.view2.T_cam_world, invert(sample.view1.T_cam_world))


def pair_statistics(
    T_2_1: Floats | None, depths: tuple[DepthAt, DepthAt], sample: PairSample, per_side: int, clip_m: float
) -> dict[str, NDArray[Any]]:
    """`point_statistics` of points lifted by depth: with a pose, view 2's stand in camera 1 by it.

    T_2_1: (4, 4) estimate, or None: such a pair has no reconstruction, of neither view.  depths: the
    prediction of each view.  A pixel without valid predicted depth is a point without prediction.
    """
    if T_2_1 is None:
        return point_statistics(None, None, sample, per_side, clip_m)
    points = (
        points_by_depth(sample.view1, depths[0], np.eye(4)),
        points_by_depth(sample.view2, depths[1], T_2_1),
    )
    return point_statistics(T_2_1, points, sample, per_side, clip_m)


def points_by_depth(view: View, depth: DepthAt, T_view_1: Floats) -> PointsAt:
    """The points of a view's depth, of a camera that stands at T_view_1 (4, 4).  Its pixels are centres of
    the depth's own."""
    return partial(_from_depth, view, depth, T_view_1)


def point_statistics(
    T_2_1: Floats | None,
    points: tuple[PointsAt, PointsAt] | None,
    sample: PairSample,
    per_side: int,
    clip_m: float,
) -> dict[str, NDArray[Any]]:
    """Errors of a pair's pose, and of the points of both views in camera 1's frame.

    T_2_1: (4, 4) estimate, or None.  points: the prediction of each view, which need not come from
    that pose, or None.  They are compared at `per_side` × `per_side` pixels of each true depth map,
    evenly spaced; distances as in `metrics.reconstruction`, clipped to `clip_m`.  Returns scalars:
    `pair_errors`, `point_errors` and `cloud_errors`.  Raises TaskError naming the sample for a camera
    or a pose that cannot be.
    """
    try:
        T_true = true_pose(sample)
        if T_2_1 is not None:
            check_pose(T_2_1, "estimate")
        true, predicted = [], []
        for i, (view, T_view_1) in enumerate(((sample.view1, np.eye(4)), (sample.view2, T_true))):
            size = (view.depth.shape[0], view.depth.shape[1])
            pixels = _pixels(size, per_side)
            true.append(_lifted(view, view.depth, T_view_1, pixels))
            predicted.append(np.full_like(true[i], np.nan) if points is None else points[i](pixels, size))
        errors = _errors(np.concatenate(predicted), np.concatenate(true), clip_m)
    except TaskError as error:
        raise TaskError(f"sample {sample.id}: {error}") from error
    return pair_errors(T_2_1, T_true) | errors


def _errors(predicted: Floats, true: Floats, clip_m: float) -> dict[str, NDArray[Any]]:
    errors = point_errors(predicted, true, clip_m) | cloud_errors(predicted, true, clip_m)
    return {name: np.asarray(value) for name, value in errors.items()}


def _from_depth(view: View, depth: DepthAt, T_view_1: Floats, pixels: Floats, size: Size) -> Floats:
    return _lifted(view, depth(size), T_view_1, pixels)


def _lifted(view: View, depth: NDArray[np.floating[Any]], T_view_1: Floats, pixels: Floats) -> Floats:
    """Points (n, 3) in camera 1's frame at pixel centres (n, 2) of a depth map; NaN without depth."""
    camera = Camera(view.K, view.image.size).resized((depth.shape[0], depth.shape[1]))
    x, y = np.floor(pixels).astype(np.int64).T
    return transform(invert(T_view_1), unproject(camera.K, pixels, depth[y, x].astype(np.float64)))


def _pixels(size: Size, per_side: int) -> Floats:
    """Centres (n, 2) of at most `per_side` × `per_side` pixels of a map, evenly spaced, row-major."""
    y, x = np.meshgrid(_evenly(size[0], per_side), _evenly(size[1], per_side), indexing="ij")
    return np.stack([x, y], -1).reshape(-1, 2).astype(np.float64) + 0.5


def _evenly(length: int, count: int) -> NDArray[np.int64]:
    """At most `count` indices below `length`, spread evenly: the middles of as many equal parts."""
    if count >= length:
        return np.arange(length)
    return np.asarray(np.floor((np.arange(count) + 0.5) * (length / count)), np.int64)
