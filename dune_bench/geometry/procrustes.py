"""The similarity (or rigid motion) that best maps one set of points onto another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError

Floats = NDArray[np.float64]
RANK_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Similarity:
    """x ↦ scale · R x + t.  scale (...,), R (..., 3, 3), t (..., 3); NaN where undetermined."""

    scale: Floats
    R: Floats
    t: Floats

    def apply(self, points: Floats) -> Floats:
        """Maps points (..., n, 3)."""
        rotated = np.einsum("...ij,...nj->...ni", self.R, points)
        mapped: Floats = self.scale[..., None, None] * rotated + self.t[..., None, :]
        return mapped


def align(source: Floats, target: Floats, weights: Floats | None = None, scale: bool = True) -> Similarity:
    """Weighted least-squares similarity source → target (Umeyama 1991), never a reflection.

    source, target: (..., n, 3).  weights: (..., n) ≥ 0, ones by default; a point of weight 0 does
    not count, even if NaN.  scale False: rigid.  Points on one line, or fewer than three, leave the
    rotation open: NaN, not some rotation.  Raises TaskError for different shapes, bad weights, or
    non-finite points that count.
    """
    if source.shape != target.shape or source.shape[-1] != 3:
        raise TaskError(f"alignment of points of shapes {source.shape} and {target.shape}")
    w = np.ones(source.shape[:-1]) if weights is None else np.broadcast_to(weights, source.shape[:-1])
    if not (np.isfinite(w).all() and (w >= 0).all()):
        raise TaskError("alignment weights must be finite and not negative")
    counted = (w > 0)[..., None]
    source, target = np.where(counted, source, 0.0), np.where(counted, target, 0.0)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise TaskError("alignment of points that are not finite")
    total = w.sum(-1, keepdims=True)[..., None]
    w = np.divide(w[..., None], total, out=np.zeros((*w.shape, 1)), where=total > 0)
    centre_s = (w * source).sum(-2, keepdims=True)
    centre_t = (w * target).sum(-2, keepdims=True)
    s, t = source - centre_s, target - centre_t
    covariance = np.einsum("...ni,...nj->...ij", w * t, s)
    U, singular, Vt = np.linalg.svd(covariance)
    # With a negative determinant the axis of least covariance is flipped: the best proper rotation.
    sign = np.where(np.linalg.det(U) * np.linalg.det(Vt) < 0, -1.0, 1.0)
    flip = np.stack([np.ones_like(sign), np.ones_like(sign), sign], -1)
    R = (U * flip[..., None, :]) @ Vt
    spread_s, spread_t = (w * s**2).sum((-1, -2)), (w * t**2).sum((-1, -2))
    open_ = ~(singular[..., 1] > RANK_TOLERANCE * np.sqrt(spread_s * spread_t))
    open_ |= ~((spread_s > 0) & (spread_t > 0))
    factor = np.ones_like(spread_s)
    if scale:
        factor = (singular * flip).sum(-1) / np.where(open_, 1.0, spread_s)
    offset = centre_t[..., 0, :] - factor[..., None] * np.einsum("...ij,...j->...i", R, centre_s[..., 0, :])
    nan = np.nan
    return Similarity(
        np.where(open_, nan, factor),
        np.where(open_[..., None, None], nan, R),
        np.where(open_[..., None], nan, offset),
    )
