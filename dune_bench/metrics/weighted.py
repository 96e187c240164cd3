"""Means of per-sample values under many weightings at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def weighted_mean(values: NDArray[Any], weights: Floats, counted: NDArray[np.bool_] | None = None) -> Floats:
    """(R,) weighted means of values (n,) under weights (R, n) ≥ 0.

    counted: (n,) samples to take; the others do not matter, whatever their value.  NaN where no
    counted sample has weight, and where one that has weight is NaN: nothing is left out in silence.
    """
    if counted is not None:
        values, weights = values[counted], weights[:, counted]
    total = weights.sum(1)
    known = np.where(np.isnan(values), 0.0, values.astype(np.float64))
    sums = weights @ known
    lost = (total <= 0) | ((weights[:, np.isnan(values)] > 0).any(1))
    return np.asarray(
        np.where(lost, np.nan, np.divide(sums, total, out=np.zeros_like(sums), where=total > 0))
    )
