"""Errors of reconstructed points: per pixel against a true point map, and as clouds.

Every distance is clipped to `clip_m`, and a point that was not predicted counts `clip_m`: leaving a
point out never beats getting it wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dune_bench.errors import TaskError
from dune_bench.metrics.weighted import weighted_mean

Floats = NDArray[np.float64]
INLIERS_M = {"inliers@5cm": 0.05, "inliers@10cm": 0.10, "inliers@25cm": 0.25}
MAX_CLOUD = 20_000
POINTS = ("pointmap_m", "pointmap_scaled_m", *INLIERS_M, "coverage")
CLOUDS = ("accuracy_m", "completeness_m", "chamfer_m")


def point_errors(predicted: Floats, true: Floats, clip_m: float) -> dict[str, np.float64]:
    """Distances pixel by pixel, one sample.

    predicted, true: (n, 3) metres, same pixels, same camera frame.  Rows without truth (not finite)
    do not count.  Returns pointmap_m (mean distance), pointmap_scaled_m (after scaling the prediction
    about the camera by the ratio of median point norms, true / predicted: scale errors excused),
    inliers@T (percent of true points with a prediction nearer than T, as predicted) and coverage
    (percent of true points with any prediction).  A row without prediction counts `clip_m` in the
    means and is no inlier.  Without any truth all are NaN.
    """
    if predicted.shape != true.shape or true.ndim != 2 or true.shape[1] != 3:
        raise TaskError(f"point maps of shapes {predicted.shape} and {true.shape}")
    known = np.isfinite(true).all(1)
    predicted, true = predicted[known], true[known]
    given = np.asarray(np.isfinite(predicted).all(1))
    if len(true) == 0:
        return dict.fromkeys(POINTS, np.float64(np.nan))
    distance = scaled = np.full(len(true), clip_m)
    if given.any():
        scale = _median_norm(true[given]) / _median_norm(predicted[given])
        distance = _clipped(predicted, true, given, clip_m)
        scaled = _clipped(scale * predicted, true, given, clip_m)
    inliers = {name: 100.0 * (given & (distance < limit)).mean() for name, limit in INLIERS_M.items()}
    return {
        "pointmap_m": np.float64(distance.mean()),
        "pointmap_scaled_m": np.float64(scaled.mean()),
        **{name: np.float64(share) for name, share in inliers.items()},
        "coverage": np.float64(100.0 * given.mean()),
    }


def cloud_errors(
    predicted: Floats, true: Floats, clip_m: float, max_points: int = MAX_CLOUD
) -> dict[str, np.float64]:
    """Distances between two clouds, one sample, metres.

    predicted (n, 3), true (m, 3), same frame; non-finite rows are no points.  accuracy_m: mean
    distance of a predicted point to its nearest true one; completeness_m: of a true point to its
    nearest predicted one; chamfer_m: their mean.  Of a larger cloud `max_points` evenly spaced rows
    ask for their neighbour; the neighbours are always sought in the whole cloud.  An empty prediction
    is `clip_m` away; without truth all are NaN.
    """
    predicted = predicted[np.isfinite(predicted).all(1)]
    true = true[np.isfinite(true).all(1)]
    if len(true) == 0:
        return dict.fromkeys(CLOUDS, np.float64(np.nan))
    if len(predicted) == 0:
        return dict.fromkeys(CLOUDS, np.float64(clip_m))
    accuracy = _mean_nearest(predicted, true, clip_m, max_points)
    completeness = _mean_nearest(true, predicted, clip_m, max_points)
    return {
        "accuracy_m": np.float64(accuracy),
        "completeness_m": np.float64(completeness),
        "chamfer_m": np.float64((accuracy + completeness) / 2),
    }


def reduce_points(stats: Mapping[str, NDArray[Any]], weights: Floats) -> dict[str, Floats]:
    """Means over samples under R weightings, (R,).

    stats: arrays (n,) of `point_errors` and, if wanted, `cloud_errors`.  weights: (R, n).  Samples
    without truth (coverage NaN) do not count.
    """
    with_truth = ~np.isnan(stats["coverage"])
    names = [name for name in (*POINTS, *CLOUDS) if name in stats]
    return {name: weighted_mean(stats[name], weights, with_truth) for name in names}


def _clipped(predicted: Floats, true: Floats, given: NDArray[np.bool_], clip_m: float) -> NDArray[np.float64]:
    distance = np.full(len(true), clip_m)
    distance[given] = np.minimum(np.linalg.norm(predicted[given] - true[given], axis=1), clip_m)
    return distance


def _median_norm(points: Floats) -> float:
    norm = float(np.median(np.linalg.norm(points, axis=1)))
    if norm <= 0:
        raise TaskError("half of the points lie in the camera's centre: they have no scale")
    return norm


def _mean_nearest(queries: Floats, points: Floats, clip_m: float, max_points: int) -> float:
    if len(queries) > max_points:
        rows = np.linspace(0, len(queries) - 1, max_points).round().astype(np.int64)
        queries = queries[rows]
    # Farther ones come back as infinite, and the search stops early.
    distance, _ = cKDTree(points).query(queries, distance_upper_bound=clip_m)
    return float(np.minimum(distance, clip_m).mean())
