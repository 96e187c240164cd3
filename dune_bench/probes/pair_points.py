"""From a relative pose and the depth of both views to the statistics of a reconstructed pair."""

from __future__ import annotations

from collections.abc import Callable
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


def true_pose(sample: PairSample) -> Floats:
    """T_2_1 (4, 4): points of camera 1 to camera 2.  Raises TaskError for poses that are not rigid."""
    for view in (sample.view1, sample.view2):
        check_pose(view.T_cam_world, f"view {view.id}: T_cam_world")
    return compose(sample.view2.T_cam_world, invert(sample.view1.T_cam_world))


def pair_statistics(
    T_2_1: Floats | None, depths: tuple[DepthAt, DepthAt], sample: PairSample, per_side: int, clip_m: float
) -> dict[str, NDArray[Any]]:
    """Errors of a pair's pose and of the points of both views in camera 1's frame.

    T_2_1: (4, 4) estimate, or None: such a pair has no reconstruction, of neither view.  depths: the
    prediction of each view.  The points are `per_side` × `per_side` pixels of each true depth map,
    evenly spaced; distances as in `metrics.reconstruction`, clipped to `clip_m`.  A pixel without valid
    predicted depth is a point without prediction.  Returns scalars: `pair_errors`, `point_errors` and
    `cloud_errors`.  Raises TaskError naming the sample for a camera or a pose that cannot be.
    """
    try:
        T_true = true_pose(sample)
        views = (sample.view1, sample.view2)
        T_1 = (np.eye(4), invert(T_true))
        true = np.concatenate([_points(v, v.depth, T, per_side) for v, T in zip(views, T_1, strict=True)])
        if T_2_1 is None:
            predicted = np.full_like(true, np.nan)
        else:
            check_pose(T_2_1, "estimate")
            T_1 = (np.eye(4), invert(T_2_1))
            maps = [
                depth((v.depth.shape[0], v.depth.shape[1])) for depth, v in zip(depths, views, strict=True)
            ]
            predicted = np.concatenate(
                [_points(v, depth, T, per_side) for v, depth, T in zip(views, maps, T_1, strict=True)]
            )
    except TaskError as error:
        raise TaskError(f"sample {sample.id}: {error}") from error
    stats = pair_errors(T_2_1, T_true)
    errors = point_errors(predicted, true, clip_m) | cloud_errors(predicted, true, clip_m)
    return stats | {name: np.asarray(value) for name, value in errors.items()}


def _points(view: View, depth: NDArray[np.floating[Any]], T_1_view: Floats, per_side: int) -> Floats:
    """Points (n, 3) in camera 1's frame at the chosen pixels of a depth map; NaN without depth."""
    height, width = depth.shape
    camera = Camera(view.K, view.image.size).resized((height, width))
    rows, columns = _evenly(height, per_side), _evenly(width, per_side)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    pixels = np.stack([x, y], -1).reshape(-1, 2).astype(np.float64) + 0.5
    chosen = depth[y, x].ravel().astype(np.float64)
    return transform(T_1_view, unproject(camera.K, pixels, chosen))


def _evenly(length: int, count: int) -> NDArray[np.int64]:
    """At most `count` indices below `length`, spread evenly: the middles of as many equal parts."""
    if count >= length:
        return np.arange(length)
    return np.asarray(np.floor((np.arange(count) + 0.5) * (length / count)), np.int64)
