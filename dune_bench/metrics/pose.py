"""Relative pose of two views: accuracies at angles and the area below them (PROTOCOLS §3.5).

The published translation error is blind to the sign of the translation (0–90°); that form has the
plain ids, the one that sees the sign has `_signed` in its id.  The published mAA is a histogram of
one-degree bins, about 1.6 points above the exact area, which is `maa_exact`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.geometry.poses import direction_deg, geodesic_deg
from dune_bench.metrics.weighted import weighted_mean

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FAILED_DEG = 180.0
MIN_BASELINE_M = 1e-6
MAA_DEG = 30


def pair_errors(T_est_2_1: Floats | None, T_true_2_1: Floats) -> dict[str, NDArray[Any]]:
    """Per-pair statistics, scalars.

    T_2_1: (4, 4) rigid, points of camera 1 to camera 2; the estimate's translation need only have
    a direction.  None, or a NaN part: no estimate.  Returns rot_deg and trans_deg (0–180),
    trans_line_deg (0–90, t and −t are the same line: the published form) — each 180 where the
    estimate is missing, a miss at every threshold —, failed (the rotation is missing) and
    has_baseline: without a true baseline there is no direction to be right about, and the pair does
    not count where translation does.
    """
    rot = trans = np.nan
    if T_est_2_1 is not None:
        rot = float(geodesic_deg(T_est_2_1[:3, :3], T_true_2_1[:3, :3]))
        trans = float(direction_deg(T_est_2_1[:3, 3], T_true_2_1[:3, 3]))
    line = min(trans, FAILED_DEG - trans)
    return {
        "rot_deg": np.asarray(FAILED_DEG if np.isnan(rot) else rot),
        "trans_deg": np.asarray(FAILED_DEG if np.isnan(trans) else trans),
        "trans_line_deg": np.asarray(FAILED_DEG if np.isnan(trans) else line),
        "failed": np.asarray(bool(np.isnan(rot))),
        "has_baseline": np.asarray(np.linalg.norm(T_true_2_1[:3, 3]) > MIN_BASELINE_M),
    }


def maa_credit(error_deg: Floats, limit: int = MAA_DEG) -> Floats:
    """What each pair adds to the published mAA: the share of the bin edges 1, 2, …, `limit` above
    its error.  As in NumPy's histogram the last bin is closed: an error of exactly `limit` counts."""
    edges = np.arange(1, limit + 1)
    below = error_deg[:, None] < edges
    below[:, -1] = error_deg <= limit
    return np.asarray(below.mean(1))


def reduce_pairs(stats: Mapping[str, NDArray[Any]], weights: Floats) -> dict[str, Floats]:
    """Metrics in percent under R weightings of the pairs; NaN where no pair counts.

    stats: arrays (n,) of `pair_errors`.  weights: (R, n).  Errors below (not at) T count for `rra@T`
    and `rta@T`; `maa` takes the larger of both errors of each pair.
    """
    rot, signed, line = stats["rot_deg"], stats["trans_deg"], stats["trans_line_deg"]
    moved = stats["has_baseline"]

    def percent(values: NDArray[Any], counted: Bools | None = None) -> Floats:
        return 100.0 * weighted_mean(values, weights, counted)

    worst, worst_signed = np.maximum(rot, line), np.maximum(rot, signed)
    return {
        "rra@5deg": percent(rot < 5),
        "rra@15deg": percent(rot < 15),
        "rta@15deg": percent(line < 15, moved),
        "rta_signed@15deg": percent(signed < 15, moved),
        "maa@30deg": percent(maa_credit(worst), moved),
        "maa_signed@30deg": percent(maa_credit(worst_signed), moved),
        "maa_exact@30deg": percent(np.clip(1 - worst / MAA_DEG, 0, None), moved),
    }
