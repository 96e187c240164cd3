"""Errors of reconstructed points: per pixel against a true point map, and as clouds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dune_bench.errors import TaskError
from dune_bench.metrics.weighted import weighted_mean

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
INLIER_M = 0.05
MAX_CLOUD = 20_000
DISTANCES = ("pointmap_m", "pointmap_scaled_m", "accuracy_m", "completeness_m", "chamfer_m")


def point_errors(predicted: Floats, true: Floats) -> dict[str, np.float64]:
    """Distances pixel by pixel, one sample.

    predicted, true: (n, 3) metres, same pixels, same camera frame.  Rows without truth (not finite)
    do not count.  Returns pointmap_m (mean distance), pointmap_scaled_m (after scaling the prediction
    about the camera by the ratio of median point norms, true / predicted: scale errors excused),
    inliers@5cm (percent of true points with a prediction nearer than 5 cm, as predicted) and coverage
    (percent of true points with any prediction).  The distances are means over predicted points; all
    NaN if none is, but inliers@5cm is then 0: a missing prediction is a miss, not a perfect point.
    Without any truth all are NaN.
    """
    if predicted.shape != true.shape or true.ndim != 2 or true.shape[1] != 3:
        raise TaskError(f"point maps of shapes {predicted.shape} and {true.shape}")
    known = np.isfinite(true).all(1)
    predicted, true = predicted[known], true[known]
    given = np.isfinite(predicted).all(1)
    nan = np.float64(np.nan)
    if len(true) == 0:
        return {"pointmap_m": nan, "pointmap_scaled_m": nan, "inliers@5cm": nan, "coverage": nan}
    if not given.any():
        zero = np.float64(0.0)
        return {"pointmap_m": nan, "pointmap_scaled_m": nan, "inliers@5cm": zero, "coverage": zero}
    distance = np.linalg.norm(predicted[given] - true[given], axis=1)
    scale = _median_norm(true[given]) / _median_norm(predicted[given])
    scaled = np.linalg.norm(scale * predicted[given] - true[given], axis=1)
    return {
        "pointmap_m": np.float64(distance.mean()),
        "pointmap_scaled_m": np.float64(scaled.mean()),
        "inliers@5cm": np.float64(100.0 * (distance < INLIER_M).sum() / len(true)),
        "coverage": np.float64(100.0 * given.mean()),
    }


def cloud_errors(predicted: Floats, true: Floats, max_points: int = MAX_CLOUD) -> dict[str, np.float64]:
    """Distances between two clouds, one sample, metres.

    predicted (n, 3), true (m, 3), same frame; non-finite rows are no points.  accuracy_m: mean
    distance of a predicted point to its nearest true one; completeness_m: of a true point to its
    nearest predicted one; chamfer_m: their mean.  Of a larger cloud `max_points` evenly spaced rows
    ask for their neighbour; the neighbours are always sought in the whole cloud.  NaN if either is
    empty.
    """
    predicted = predicted[np.isfinite(predicted).all(1)]
    true = true[np.isfinite(true).all(1)]
    if len(predicted) == 0 or len(true) == 0:
        return dict.fromkeys(("accuracy_m", "completeness_m", "chamfer_m"), np.float64(np.nan))
    accuracy = _mean_nearest(predicted, true, max_points)
    completeness = _mean_nearest(true, predicted, max_points)
    return {
        "accuracy_m": np.float64(accuracy),
        "completeness_m": np.float64(completeness),
        "chamfer_m": np.float64((accuracy + completeness) / 2),
    }


def reduce_points(stats: Mapping[str, NDArray[Any]], weights: Floats) -> dict[str, Floats]:
    """Means over samples under R weightings, (R,).

    stats: arrays (n,) of `point_errors` and `cloud_errors`.  weights: (R, n).  Samples without truth
    (coverage NaN) do not count.  Distances are means over the samples that have a prediction; read
    them beside inliers@5cm and coverage, in which a sample without one counts 0.
    """
    with_truth = ~np.isnan(stats["coverage"])
    predicted = stats["coverage"] > 0
    metrics = {name: weighted_mean(stats[name], weights, predicted) for name in DISTANCES if name in stats}
    for name in ("inliers@5cm", "coverage"):
        metrics[name] = weighted_mean(stats[name], weights, with_truth)
    return metrics


def _median_norm(points: Floats) -> float:
    norm = float(np.median(np.linalg.norm(points, axis=1)))
    if norm <= 0:
        raise TaskError("half of the points lie in the camera's centre: they have no scale")
    return norm


def _mean_nearest(queries: Floats, points: Floats, max_points: int) -> float:
    if len(queries) > max_points:
        rows = np.linspace(0, len(queries) - 1, max_points).round().astype(np.int64)
        queries = queries[rows]
    distance, _ = cKDTree(points).query(queries)
    return float(distance.mean())
