"""Rigid poses and rotations: matrices (..., 4, 4) and (..., 3, 3), quaternions (..., 4) qw qx qy qz."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError

Floats = NDArray[np.float64]
ROTATION_TOLERANCE = 1e-4
"""Largest |RᵀR − 1| of a matrix still called a rotation: what six printed decimals lose, with room."""


def pose(R: Floats, t: Floats) -> Floats:
    """T (..., 4, 4) from a rotation (..., 3, 3) and a translation (..., 3)."""
    batch = np.broadcast_shapes(R.shape[:-2], t.shape[:-1])
    T = np.zeros((*batch, 4, 4))
    T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = R, t, 1.0
    return T


def invert(T: Floats) -> Floats:
    """T_b_a of a rigid T_a_b (..., 4, 4)."""
    R = np.swapaxes(T[..., :3, :3], -1, -2)
    return pose(R, -np.einsum("...ij,...j->...i", R, T[..., :3, 3]))


def compose(T_a_b: Floats, T_b_c: Floats) -> Floats:
    """T_a_c (..., 4, 4)."""
    return T_a_b @ T_b_c


def transform(T_a_b: Floats, points_b: Floats) -> Floats:
    """Points (..., n, 3) of frame b in frame a."""
    rotated: Floats = np.einsum("...ij,...nj->...ni", T_a_b[..., :3, :3], points_b)
    return rotated + T_a_b[..., None, :3, 3]


def check_pose(T: Floats, name: str = "pose") -> None:
    """Raises TaskError, saying what is wrong, unless every T (..., 4, 4) is finite and rigid."""
    if T.shape[-2:] != (4, 4):
        raise TaskError(f"{name}: expected (..., 4, 4), got {T.shape}")
    if not np.isfinite(T).all():
        raise TaskError(f"{name}: not finite")
    if not (T[..., 3, :] == (0.0, 0.0, 0.0, 1.0)).all():
        raise TaskError(f"{name}: last row is not 0 0 0 1")
    check_rotation(T[..., :3, :3], name)


def check_rotation(R: Floats, name: str = "rotation") -> None:
    """Raises TaskError unless every R (..., 3, 3) is orthonormal within ROTATION_TOLERANCE, det +1."""
    if R.shape[-2:] != (3, 3):
        raise TaskError(f"{name}: expected (..., 3, 3), got {R.shape}")
    if not np.isfinite(R).all():
        raise TaskError(f"{name}: not finite")
    defect = np.abs(np.swapaxes(R, -1, -2) @ R - np.eye(3)).max(initial=0.0)
    if defect > ROTATION_TOLERANCE:
        raise TaskError(f"{name}: not a rotation, |RᵀR − 1| is {defect:.2g}")
    if not (np.linalg.det(R) > 0).all():
        raise TaskError(f"{name}: a reflection, det is −1")


def rotation_from_quaternion(q: Floats) -> Floats:
    """R (..., 3, 3) of quaternions (..., 4), which need not have norm 1.  Raises TaskError for a
    quaternion that is zero or not finite: it is no rotation."""
    peak = np.abs(q).max(-1, keepdims=True)
    if not (np.isfinite(peak).all() and (peak > 0).all()):
        raise TaskError("a quaternion is zero or not finite")
    unit = q / peak  # first, so that the norm of a huge one does not overflow
    w, x, y, z = np.moveaxis(unit / np.linalg.norm(unit, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def quaternion_from_rotation(R: Floats) -> Floats:
    """Unit quaternions (..., 4) with qw ≥ 0 of rotations (..., 3, 3).

    The four products of q with its own largest component are read off R's sums and differences
    (Shepperd 1978), so that no small number is ever divided by.  Raises TaskError for non-rotations.
    """
    check_rotation(R)
    a, b, c = R[..., 0, :], R[..., 1, :], R[..., 2, :]
    outer = np.empty((*R.shape[:-2], 4, 4))  # 4 q qᵀ
    outer[..., 0, 0] = 1 + a[..., 0] + b[..., 1] + c[..., 2]
    outer[..., 1, 1] = 1 + a[..., 0] - b[..., 1] - c[..., 2]
    outer[..., 2, 2] = 1 - a[..., 0] + b[..., 1] - c[..., 2]
    outer[..., 3, 3] = 1 - a[..., 0] - b[..., 1] + c[..., 2]
    outer[..., 0, 1] = outer[..., 1, 0] = c[..., 1] - b[..., 2]
    outer[..., 0, 2] = outer[..., 2, 0] = a[..., 2] - c[..., 0]
    outer[..., 0, 3] = outer[..., 3, 0] = b[..., 0] - a[..., 1]
    outer[..., 1, 2] = outer[..., 2, 1] = a[..., 1] + b[..., 0]
    outer[..., 1, 3] = outer[..., 3, 1] = a[..., 2] + c[..., 0]
    outer[..., 2, 3] = outer[..., 3, 2] = b[..., 2] + c[..., 1]
    best = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(outer, best[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.asarray(np.where(q[..., :1] < 0, -q, q), np.float64)


def geodesic_deg(Ra: Floats, Rb: Floats) -> Floats:
    """Angle (...,) in degrees, 0–180, of the rotation from Ra to Rb (..., 3, 3).

    By atan2 of sine and cosine: arccos alone would lose half the digits near 0 and 180.
    """
    R = np.swapaxes(Ra, -1, -2) @ Rb
    axis = np.stack(
        [R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1
    )
    sine = np.linalg.norm(axis, axis=-1)
    cosine = np.trace(R, axis1=-2, axis2=-1) - 1
    return np.asarray(np.degrees(np.arctan2(sine, cosine)), np.float64)


def direction_deg(a: Floats, b: Floats) -> Floats:
    """Angle (...,) in degrees, 0–180, between vectors (..., 3); NaN where one has no direction."""
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    cosine = (a * b).sum(-1)
    lost = ~((np.linalg.norm(a, axis=-1) > 0) & (np.linalg.norm(b, axis=-1) > 0))
    return np.where(lost, np.nan, np.degrees(np.arctan2(sine, cosine)))
