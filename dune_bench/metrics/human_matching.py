"""Which predicted person is which true one, from projected key points (PROTOCOLS §4.4, §9, §12).

`multihmr-compat` repeats the published greedy matcher with its quirks; `strict` is the optimal
assignment behind the same overlap gate.  Boxes are the extremes of a person's projected key points, in
pixels, with the published +1 pixel convention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from dune_bench.errors import TaskError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Mode = Literal["multihmr-compat", "strict"]
MIN_IOU = 0.05


@dataclass(frozen=True)
class Matching:
    """Who is who in one image; indices into the predictions and the truths.

    matches: (prediction, truth) pairs, in order of acceptance.  false_positives, misses: ascending.
    ignored: predictions on people who do not count; neither right nor wrong.
    """

    matches: tuple[tuple[int, int], ...]
    false_positives: tuple[int, ...]
    misses: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    @property
    def truths(self) -> int:
        """People who count: matched or missed."""
        return len(self.matches) + len(self.misses)


def match_people(
    predicted: NDArray[Any],
    truth: NDArray[Any],
    mode: Mode,
    min_iou: float = MIN_IOU,
    ignore: Bools | None = None,
) -> Matching:
    """Matches predicted to true people of one image.

    predicted: (P, J, 2), truth: (T, J, 2) projected key points, pixels (x, y).  A prediction that is
    not finite (a joint behind the camera, NaN) overlaps nobody: it is a false positive.  ignore: (T,)
    true people who need not be found (hidden, cut off); `strict` only.  Raises TaskError for other
    shapes, a truth that is not finite, or `ignore` with the compat mode.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.ndim != 3 or predicted.shape[1:] != truth.shape[1:] or truth.shape[2:] != (2,):
        raise TaskError(
            f"key points of shapes {predicted.shape} and {truth.shape}, not (P, J, 2) and (T, J, 2)"
        )
    if not np.isfinite(truth).all():
        raise TaskError("true key points are not finite: leave people behind the camera out")
    if mode == "strict":
        return _strict(predicted, truth, min_iou, np.zeros(len(truth), bool) if ignore is None else ignore)
    if ignore is not None:
        raise TaskError("multihmr-compat has no notion of ignored people: match with 'strict'")
    return _compat(predicted, truth, min_iou)


def _compat(predicted: Floats, truth: Floats, min_iou: float) -> Matching:
    """The published loop: pairs by ascending error, an overlap test, and its budget.

    The error of a pair is the *spectral* norm of the (J, 2) difference.  Every pair popped with too
    little overlap counts against a budget of one per prediction, also if one of its two is taken
    already; when matches and rejections use it up, the rest stays unmatched.
    """
    usable = _usable(predicted)
    iou = _iou(predicted, truth, usable)
    difference = np.where(usable[:, None, None], predicted, 0.0)[:, None] - truth[None]
    error = np.linalg.norm(difference, ord=2, axis=(2, 3))
    order = np.argsort(np.where(usable[:, None], error, np.inf), axis=None, kind="stable")
    matches: list[tuple[int, int]] = []
    rejected = 0
    for p, t in zip(*np.unravel_index(order, error.shape), strict=True):
        if len(matches) == len(truth) or len(matches) + rejected >= len(predicted):
            break
        if iou[p, t] < min_iou:
            rejected += 1
        elif all(p != q and t != u for q, u in matches):
            matches.append((int(p), int(t)))
    return _complete(matches, len(predicted), np.zeros(len(truth), bool))


def _strict(predicted: Floats, truth: Floats, min_iou: float, ignore: Bools) -> Matching:
    """Most pairs that overlap enough, then least total distance (Hungarian); people who count first.

    The distance of a pair is the mean over key points, in diagonals of the true box, so that near and
    far people weigh alike.
    """
    if ignore.shape != (len(truth),):
        raise TaskError(f"`ignore` has shape {ignore.shape}, not ({len(truth)},)")
    usable = _usable(predicted)
    overlap = _iou(predicted, truth, usable) >= min_iou
    low, high = truth.min(1, initial=np.inf), truth.max(1, initial=-np.inf)
    diagonal = np.linalg.norm(high - low + 1, axis=-1)
    at = np.where(usable[:, None, None], predicted, 0.0)
    distance = np.linalg.norm(at[:, None] - truth[None], axis=-1).mean(-1) / diagonal
    matches = _assign(distance, overlap & ~ignore)
    free = np.ones(len(predicted), bool)
    free[[p for p, _ in matches]] = False
    spared = _assign(distance, overlap & ignore & free[:, None])
    return _complete(matches, len(predicted), ignore, tuple(sorted(p for p, _ in spared)))


def _assign(cost: Floats, allowed: Bools) -> list[tuple[int, int]]:
    """One-to-one pairs among the allowed: as many as possible, then the cheapest."""
    if not allowed.any():
        return []
    # A forbidden pair costs more than any set of allowed ones.
    forbidden = (cost[allowed].max() + 1.0) * (min(cost.shape) + 1)
    rows, columns = linear_sum_assignment(np.where(allowed, cost, forbidden))
    return [(int(p), int(t)) for p, t in zip(rows, columns, strict=True) if allowed[p, t]]


def _complete(
    matches: list[tuple[int, int]], predictions: int, ignore: Bools, ignored: tuple[int, ...] = ()
) -> Matching:
    taken, found = {p for p, _ in matches} | set(ignored), {t for _, t in matches}
    wrong = tuple(p for p in range(predictions) if p not in taken)
    missed = tuple(t for t in range(len(ignore)) if t not in found and not ignore[t])
    return Matching(tuple(matches), wrong, missed, ignored)


def _usable(predicted: Floats) -> Bools:
    """(P,): predictions whose key points are all finite."""
    return np.asarray(np.isfinite(predicted).all((1, 2)))


def _iou(predicted: Floats, truth: Floats, usable: Bools) -> Floats:
    """(P, T) intersection over union of boxes, widths counted as max − min + 1; 0 if not usable."""
    at = np.where(usable[:, None, None], predicted, 0.0)
    a_low, a_high = at.min(1)[:, None], at.max(1)[:, None]
    b_low, b_high = truth.min(1)[None], truth.max(1)[None]
    inner = np.maximum(np.minimum(a_high, b_high) - np.maximum(a_low, b_low) + 1, 0).prod(-1)
    both = (a_high - a_low + 1).prod(-1) + (b_high - b_low + 1).prod(-1) - inner
    iou: Floats = np.where(usable[:, None], inner / both, 0.0)
    return iou


def detection_scores_compat(count: int, misses: int, false_positives: int) -> tuple[float, float, float]:
    """Precision, recall, F1 in percent as published: each rounded to two decimals before × 100.

    count: people in truth.  With nobody to find or nothing found to divide by, NaN (the original
    stops with a division by zero).
    """
    right = count - misses
    parts = (
        (right, right + false_positives),
        (right, count),
        (right, right + (false_positives + misses) / 2),
    )
    # Python's round, not NumPy's: they differ on some of these values.
    precision, recall, f1 = (round(part / whole, 2) * 100 if whole else float("nan") for part, whole in parts)
    return precision, recall, f1
