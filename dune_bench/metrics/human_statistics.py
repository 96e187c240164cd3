"""Per-image statistics of human mesh recovery and the metrics they pool to.

A mean over people is a ratio of sums over images, so the sums are kept, not the image means.  Errors
over matched people alone reward a detector of easy people; so each error has a second form in which a
missed person costs a fixed penalty, and a matched one never more than that (else dropping a bad match
would pay).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.metrics.human_errors import ERRORS
from dune_bench.metrics.human_matching import Matching

Floats = NDArray[np.float64]
PENALTIES = {
    "pve_mm": 350.0,
    "pa_pve_mm": 150.0,
    "mpjpe_mm": 300.0,
    "pa_mpjpe_mm": 100.0,
    "depth_error_m": 2.0,
}
"""What a miss costs by default, in the error's unit: about what another random person in its place
would (docs/body-models.md has the numbers)."""


def penalised_id(error: str, penalty: float) -> str:
    """Metric id of the penalised form: `pve_mm` with 350.0 is `pve_mm@miss350mm`."""
    return f"{error}@miss{penalty:g}{error.rsplit('_', 1)[1]}"


def image_statistics(
    matching: Matching,
    errors: Sequence[Mapping[str, float]],
    penalties: Mapping[str, float] = PENALTIES,
) -> dict[str, NDArray[Any]]:
    """Sufficient statistics of one image: scalar arrays, the same keys for every image.

    errors: one mapping with all of ERRORS per match, in the matches' order.  Returns int64 `matched`,
    `misses`, `false_positives`, and float64 per error: `ERROR:sum` over matched people and
    `ERROR:capped`, the sum of min(error, penalty).
    Raises TaskError if errors and matches disagree or an error is not finite or negative.
    """
    if len(errors) != len(matching.matches):
        raise TaskError(f"{len(errors)} errors for {len(matching.matches)} matched people")
    values = {name: np.array([float(e[name]) for e in errors]) for name in ERRORS}
    for name, column in values.items():
        if not (np.isfinite(column).all() and (column >= 0).all()):
            raise TaskError(f"{name} of a matched person is not a finite, non-negative number")
    counts = (len(matching.matches), len(matching.misses), len(matching.false_positives))
    names = ("matched", "misses", "false_positives")
    stats: dict[str, NDArray[Any]] = {k: np.array(n, np.int64) for k, n in zip(names, counts, strict=True)}
    for name, column in values.items():
        stats[f"{name}:sum"] = np.array(column.sum())
        stats[f"{name}:capped"] = np.array(np.minimum(column, penalties[name]).sum())
    return stats


def failed_image(truths: int, penalties: Mapping[str, float] = PENALTIES) -> dict[str, NDArray[Any]]:
    """Statistics of an image without predictions (its features were NaN, say): everybody is missed."""
    return image_statistics(Matching((), (), tuple(range(truths))), [], penalties)


def pooled_metrics(
    stats: Mapping[str, NDArray[Any]], weights: Floats, penalties: Mapping[str, float] = PENALTIES
) -> dict[str, Floats]:
    """Metrics over people, under R weightings of the images.

    stats: of `image_statistics`, stacked to (n,).  weights: (R, n) multiplicities.  penalties: those the
    statistics were made with.  Returns (R,) arrays: each of ERRORS over matched people, each
    `penalised_id` over all true people; `precision`, `recall`, `f1` in percent.  NaN where nobody was
    matched, nobody is there, nothing was predicted.
    """
    total = {k: weights @ np.asarray(stats[k], np.float64) for k in ("matched", "misses", "false_positives")}
    matched, people = total["matched"], total["matched"] + total["misses"]
    metrics = {
        "precision": 100.0 * _ratio(matched, matched + total["false_positives"]),
        "recall": 100.0 * _ratio(matched, people),
        "f1": 100.0 * _ratio(matched, matched + (total["false_positives"] + total["misses"]) / 2),
    }
    for name in ERRORS:
        metrics[name] = _ratio(weights @ np.asarray(stats[f"{name}:sum"], np.float64), matched)
        capped = weights @ np.asarray(stats[f"{name}:capped"], np.float64)
        penalty = penalties[name]
        metrics[penalised_id(name, penalty)] = _ratio(capped + penalty * total["misses"], people)
    return metrics


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN (undefined, not zero) where whole is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
    return ratio
