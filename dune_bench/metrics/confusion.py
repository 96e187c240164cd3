"""Confusion counts of label maps, and the segmentation metrics they give.

Counts are summed over images before dividing (PROTOCOLS §1.2), so per-image counts are sufficient
statistics.  Rows are truth, columns are prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError

IGNORE = 255
"""The label that counts neither as truth nor against a prediction."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def confusion(
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    classes: int,
    mask: NDArray[np.bool_] | None = None,
) -> Counts:
    """Counts int64 (K, K) of pixels by [truth, prediction]; truth 255 is left out.

    truth, prediction: (H, W), labels 0 … K−1.  mask: (H, W), count these pixels only.
    Raises TaskError for unequal sizes or a label outside the classes.
    """
    if truth.shape != prediction.shape:
        raise TaskError(f"truth is {truth.shape} but the prediction {prediction.shape}")
    counted = truth != IGNORE
    if mask is not None:
        if mask.shape != truth.shape:
            raise TaskError(f"truth is {truth.shape} but its mask {mask.shape}")
        counted = counted & mask
    rows = truth[counted].astype(np.int64)
    columns = prediction[counted].astype(np.int64)
    for name, labels in (("truth", rows), ("prediction", columns)):
        if labels.size and labels.max() >= classes:
            raise TaskError(f"{name} has label {labels.max()}, but there are {classes} classes")
    counts = np.bincount(rows * classes + columns, minlength=classes * classes)
    return counts.astype(np.int64).reshape(classes, classes)


@dataclass(frozen=True)
class ClassTotals:
    """Per image and class, int64 (n, K): pixels right, pixels in truth, pixels predicted."""

    right: Counts
    truth: Counts
    predicted: Counts

    @classmethod
    def of(cls, counts: NDArray[Any]) -> ClassTotals:
        """From confusion counts (n, K, K)."""
        return cls(np.diagonal(counts, axis1=1, axis2=2), counts.sum(2), counts.sum(1))

    @property
    def present(self) -> NDArray[np.bool_]:
        """(K,): classes with truth in the whole split, whatever the weights."""
        return np.asarray(self.truth.sum(0) > 0)

    def iou(self, weights: Floats) -> Floats:
        """IoU of each class under R weightings of the images, in [0, 1].

        weights: (R, n).  Returns (R, K); NaN where neither truth nor prediction has the class.
        """
        right = weights @ self.right
        union = weights @ (self.truth + self.predicted) - right
        return _ratio(right, union)

    def mean_iou(self, weights: Floats, classes: NDArray[np.bool_]) -> Floats:
        """Mean IoU over a fixed set of classes under R weightings.  Returns (R,) in [0, 1].

        classes: (K,) the set.  A class of the set whose union is empty under one weighting (its
        only room was not drawn) has no IoU there and is left out of that weighting's mean.  NaN
        without any class.
        """
        iou = self.iou(weights)[:, classes]
        defined = ~np.isnan(iou)
        return _ratio(np.where(defined, iou, 0.0).sum(1), defined.sum(1).astype(np.float64))

    def pixel_accuracy(self, weights: Floats) -> Floats:
        """Share of labelled pixels that are right under R weightings.  Returns (R,) in [0, 1]."""
        return _ratio(weights @ self.right.sum(1), weights @ self.truth.sum(1))


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN (undefined, not zero) where whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0))
