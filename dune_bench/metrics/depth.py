"""Errors of a depth map on one image, and their mean over images (PROTOCOLS §2.2, metric row)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError

Floats = NDArray[np.float64]
DELTA = 1.25
METRICS = ("rmse_m", "abs_rel", "delta1", "rmse_log")


def valid_depth(depth: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.bool_]:
    """Pixels with a true depth: finite, above 0, and in [low, high] metres."""
    with np.errstate(invalid="ignore"):
        inside = (depth > 0) & (depth >= low) & (depth <= high)
    return np.asarray(inside & np.isfinite(depth))


def depth_errors(prediction: Floats, truth: Floats) -> dict[str, float]:
    """Errors over the pixels of one image.

    prediction, truth: float64 (n,) metres, valid pixels only.  Returns rmse_m (metres), abs_rel
    (mean |p − g| / g), delta1 (percent of pixels with max(p/g, g/p) < 1.25), rmse_log (natural log);
    all NaN if n = 0: an image without truth has no error, and not a zero one.
    Raises TaskError for a prediction that is not finite and positive.
    """
    if prediction.shape != truth.shape:
        raise TaskError(f"truth has {truth.shape} pixels, the prediction {prediction.shape}")
    if truth.size == 0:
        return dict.fromkeys(METRICS, float("nan"))
    if not (np.isfinite(prediction).all() and (prediction > 0).all()):
        raise TaskError("the predicted depth is not finite and positive everywhere")
    difference = prediction - truth
    log_ratio = np.log(prediction) - np.log(truth)
    return {
        "rmse_m": float(np.sqrt(np.mean(difference**2))),
        "abs_rel": float(np.mean(np.abs(difference) / truth)),
        "delta1": 100.0 * float(np.mean(np.maximum(prediction / truth, truth / prediction) < DELTA)),
        "rmse_log": float(np.sqrt(np.mean(log_ratio**2))),
    }


def median_scale(prediction: Floats, truth: Floats) -> float:
    """The factor that gives the prediction the truth's median; NaN without pixels."""
    if truth.size == 0:
        return float("nan")
    return float(np.median(truth) / np.median(prediction))


def mean_over_images(
    stats: Mapping[str, NDArray[Any]], names: tuple[str, ...], counted: NDArray[np.bool_], weights: Floats
) -> dict[str, Floats]:
    """Weighted means over images of per-image values.

    stats[name]: (n,).  counted: (n,) images that have truth; the others are left out, whatever
    their value.  weights: (R, n).  Returns (R,) per name, NaN where no counted image has weight.
    """
    chosen = weights[:, counted]
    total = chosen.sum(1)
    means = {}
    for name in names:
        sums = chosen @ stats[name][counted].astype(np.float64)
        means[name] = np.divide(sums, total, out=np.full(len(weights), np.nan), where=total > 0)
    return means
