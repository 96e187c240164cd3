"""Errors of a key view's depth predicted from source views, as RobustMVD counts them (PROTOCOLS §3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError, UsageError
from dune_bench.metrics.depth import median_scale, valid_depth

Floats = NDArray[np.float64]
Alignment = Literal["none", "median"]
ViewOrder = Literal["quasi-optimal", "nearest"]
PredictDepth = Callable[[tuple[int, ...]], Floats]
"""Depth (h, w) of the key view, metres, from a set of source views (indices, ascending)."""
TAU = 1.03
CLIP_M = (0.1, 100.0)


@dataclass(frozen=True)
class ViewSetErrors:
    """Errors with 1, 2, … source views.

    order: source views in the order they were added.  rel, tau: float64 (n,), percent; row k is of the
    first k + 1 views.  The last row is of all of them.
    """

    order: tuple[int, ...]
    rel: Floats
    tau: Floats

    @property
    def best_views(self) -> int:
        """The number of views of the lowest rel, the smallest of equals: chosen by the truth."""
        return int(self.rel.argmin()) + 1

    @property
    def best(self) -> dict[str, float]:
        """rel and tau@1.03 with `best_views` views, what RobustMVD reports under either order."""
        row = self.best_views - 1
        return {"rel": float(self.rel[row]), "tau@1.03": float(self.tau[row])}


def resize_nearest(depth: Floats, size: tuple[int, int]) -> Floats:
    """A map (h, w) at `size` (height, width): each pixel takes the value of the one its centre falls in."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(depth.shape, size, strict=True)
    )
    return np.asarray(depth[rows[:, None], columns])


def multiview_errors(
    prediction: NDArray[np.floating[Any]], truth: NDArray[np.floating[Any]], alignment: Alignment
) -> dict[str, float]:
    """rel and tau@1.03 of one sample, percent; NaN if the truth has no valid pixel.

    prediction: (h, w) metres, any size; truth: (H, W) metres, ≤ 0 or not finite is invalid.  The
    prediction is resized to the truth's size by nearest pixel, aligned, then clipped to 0.1–100 m.
    `median` gives it the truth's median, over valid pixels where it is not 0.  rel: mean |p − g| / g.
    tau: share of max(p/g, g/p) < 1.03.  A depth ≤ 0 counts, at 0.1 m.  Raises TaskError for a prediction
    that is not finite, or whose median is 0 and cannot be aligned.
    """
    resized = resize_nearest(prediction.astype(np.float64), (truth.shape[0], truth.shape[1]))
    if not np.isfinite(resized).all():
        raise TaskError("the predicted depth is not finite everywhere")
    valid = valid_depth(truth, 0.0, np.inf)
    p, g = resized[valid], truth[valid].astype(np.float64)
    if g.size == 0:
        return {"rel": float("nan"), "tau@1.03": float("nan")}
    if alignment == "median":
        p = p * _median_scale(p, g)
    p = np.clip(p, *CLIP_M)
    return {
        "rel": 100.0 * float(np.mean(np.abs(p - g) / g)),
        "tau@1.03": 100.0 * float(np.mean(np.maximum(p / g, g / p) < TAU)),
    }


def view_set_errors(
    predict: PredictDepth,
    sources: Sequence[int],
    key: int,
    truth: NDArray[np.floating[Any]],
    order: ViewOrder,
    alignment: Alignment,
) -> ViewSetErrors:
    """Errors of a key view while source views are added one at a time.

    sources: indices of the source views in their sequence; key: that of the key view.  `nearest` adds
    them by distance of the indices, the lower first of equals.  `quasi-optimal` adds them by the rel
    that each alone leads to: **the truth chooses the views**.  Raises UsageError without source views,
    TaskError if the truth has no valid pixel.
    """
    if not sources:
        raise UsageError("multi-view depth needs at least one source view")
    if not valid_depth(truth, 0.0, np.inf).any():
        raise TaskError("the key view has no true depth: nothing to measure")
    alone: dict[int, dict[str, float]] = {}
    ordered = sorted(sources, key=lambda source: (abs(source - key), source))
    if order == "quasi-optimal":
        alone = {source: multiview_errors(predict((source,)), truth, alignment) for source in sorted(sources)}
        ordered = sorted(alone, key=lambda source: alone[source]["rel"])
    rows = [alone[ordered[0]]] if alone else []
    for count in range(len(rows) + 1, len(ordered) + 1):
        views = tuple(sorted(ordered[:count]))
        rows.append(multiview_errors(predict(views), truth, alignment))
    rel, tau = (np.array([row[name] for row in rows]) for name in ("rel", "tau@1.03"))
    return ViewSetErrors(tuple(ordered), rel, tau)


def fuse_depths(depths: Floats, confidences: Floats) -> Floats:
    """Mean (h, w) of the key view's depths (n, h, w) in n pairs, each weighted by its confidence
    (n, h, w), per pixel.  Raises TaskError for a depth that is not finite or a confidence that is not
    finite and above 0."""
    if depths.shape != confidences.shape or depths.ndim != 3:
        raise TaskError(f"depths {depths.shape} and confidences {confidences.shape} do not belong together")
    if not np.isfinite(depths).all():
        raise TaskError("a predicted depth is not finite")
    if not (np.isfinite(confidences).all() and (confidences > 0).all()):
        raise TaskError("a confidence is not finite and above 0")
    return np.asarray((depths * confidences).sum(0) / confidences.sum(0))


def fused_pairs(depths: dict[int, Floats], confidences: dict[int, Floats]) -> PredictDepth:
    """The depth from a set of views of a model that sees pairs: that of the pairs with each source,
    fused.  depths, confidences: source view -> (h, w) of the key view in that pair."""

    def predict(views: tuple[int, ...]) -> Floats:
        return fuse_depths(np.stack([depths[v] for v in views]), np.stack([confidences[v] for v in views]))

    return predict


def _median_scale(prediction: Floats, truth: Floats) -> float:
    there = prediction != 0
    if not there.any() or np.median(prediction[there]) == 0:
        raise TaskError("the predicted depth has median 0 and cannot be aligned to the truth")
    return median_scale(prediction[there], truth[there])
