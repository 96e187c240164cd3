"""Triangulation of points seen in several posed views."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import rays

Floats = NDArray[np.float64]
RANK_TOLERANCE = 1e-9
"""A point is determined when the second smallest singular value of its (unit-row) system is above it."""


def triangulate(
    K: Floats, T_cam_world: Floats, points: Floats, seen: NDArray[np.bool_] | None = None
) -> Floats:
    """World points by the direct linear transform (Hartley and Zisserman §12.2), all points at once.

    K: (V, 3, 3) pixels.  T_cam_world: (V, 4, 4).  points: (V, n, 2) pixels.  seen: (V, n) which of
    them to use, all by default; non-finite points are never used.  Returns (n, 3) metres, NaN for a
    point that its rays do not determine: fewer than two views, coinciding rays, or at infinity.
    The rows are in normalised coordinates and of unit norm, which conditions the system.  That
    a point lies in front of the cameras is not enforced.  Raises TaskError for shapes that differ.
    """
    if points.ndim != 3 or K.shape[:1] != points.shape[:1] or T_cam_world.shape[:1] != points.shape[:1]:
        raise TaskError(f"triangulation: K {K.shape}, poses {T_cam_world.shape}, points {points.shape}")
    usable = np.asarray(np.isfinite(points).all(-1))
    if seen is not None:
        usable &= seen
    xy = np.where(usable[..., None], rays(K, points)[..., :2], 0.0)
    P = T_cam_world[:, None, :3, :]
    system = xy[..., :, None] * P[..., 2:3, :] - P[..., :2, :]  # (V, n, 2, 4)
    system = system / np.linalg.norm(system, axis=-1, keepdims=True) * usable[..., None, None]
    system = np.moveaxis(system, 0, 1).reshape(points.shape[1], -1, 4)
    if points.shape[0] < 2 or points.shape[1] == 0:
        return np.full((points.shape[1], 3), np.nan)
    _, singular, Vt = np.linalg.svd(system, full_matrices=False)
    X = Vt[:, 3]
    finite = np.abs(X[:, 3]) > 1e-12
    known = (usable.sum(0) >= 2) & (singular[:, 2] > RANK_TOLERANCE) & finite
    return np.where(known[:, None], X[:, :3] / np.where(finite, X[:, 3], 1.0)[:, None], np.nan)
