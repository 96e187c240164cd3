"""Differentiable rotations for body models: rotation vectors, the 6-D form, the nearest rotation.

Matrices are (…, 3, 3) and map columns: x' = R x.  All functions are pure, batched over leading axes and
keep dtype and device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_SMALL = 1e-6  # squared angle below which the series is exact to float64's last digits


def rotvec_to_matrix(rotvec: Tensor) -> Tensor:
    """(…, 3) rotation vectors (axis times angle, radians) -> (…, 3, 3).

    Rodrigues' formula R = I + a K + b K², a = sin θ / θ, b = (1 − cos θ) / θ²; smooth through θ = 0.
    """
    squared = (rotvec * rotvec).sum(-1)
    small = squared < _SMALL
    # The unused branch must stay finite too, or its NaN gradient would spoil the used one.
    angle = torch.where(small, 1.0, squared).sqrt()
    half = 0.5 * angle
    a = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    b = torch.where(small, 0.5 - squared / 24, 0.5 * (half.sin() / half) ** 2)
    K = cross_matrix(rotvec)
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return eye + a[..., None, None] * K + b[..., None, None] * (K @ K)


def matrix_to_rotvec(matrix: Tensor) -> Tensor:
    """(…, 3, 3) rotations -> (…, 3) rotation vectors with angles in [0, π], through quaternions.

    Not for gradients (the branch is chosen by the largest component); for storing results.
    """
    quaternion = _quaternion(matrix)
    sine = quaternion[..., 1:].norm(dim=-1)
    angle = 2 * torch.atan2(sine, quaternion[..., 0])
    ratio = torch.where(sine < 1e-9, 2.0, angle / sine.clamp_min(1e-30))
    return ratio[..., None] * quaternion[..., 1:]


def _quaternion(R: Tensor) -> Tensor:
    """(…, 4) unit quaternions qw qx qy qz with qw ≥ 0 (Shepperd's method)."""
    xx, yy, zz = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    one = torch.ones_like(xx)
    a, b, c = (R[..., i, j] - R[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    d, e, f = (R[..., i, j] + R[..., j, i] for i, j in ((1, 0), (0, 2), (2, 1)))
    rows = (
        torch.stack([one + xx + yy + zz, a, b, c], -1),
        torch.stack([a, one + xx - yy - zz, d, e], -1),
        torch.stack([b, d, one - xx + yy - zz, f], -1),
        torch.stack([c, e, f, one - xx - yy + zz], -1),
    )
    candidates = torch.stack(rows, -2)  # row k is 4 q_k q: the largest diagonal is the safe one
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    index = best[..., None, None].expand(*best.shape, 1, 4)
    chosen = candidates.gather(-2, index).squeeze(-2)
    unit = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def rotation_from_6d(six: Tensor) -> Tensor:
    """(…, 6) -> (…, 3, 3): the first three numbers a, the last three b (PROTOCOLS §12, Multi-HMR head).

    Columns x = a/|a|, y = (b − (x·b) x) normalised, z = x × y.  The result is no rotation (NaN, refused
    by `rotation_defect`) where a is zero or b parallel to a.
    """
    a, b = six[..., :3], six[..., 3:]
    x = a / a.norm(dim=-1, keepdim=True)
    y = b - (x * b).sum(-1, keepdim=True) * x
    y = y / y.norm(dim=-1, keepdim=True)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def rotation_to_6d(matrix: Tensor) -> Tensor:
    """(…, 3, 3) -> (…, 6): the first two columns, the inverse of `rotation_from_6d`."""
    return torch.cat([matrix[..., 0], matrix[..., 1]], -1)


def rotation_defect(matrix: Tensor) -> Tensor:
    """(…, 3, 3) -> (…,): largest entry of |RᵀR − I|; +inf where R mirrors or is not finite."""
    eye = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    defect = (matrix.mT @ matrix - eye).abs().amax((-2, -1))
    return torch.where((torch.linalg.det(matrix) > 0) & defect.isfinite(), defect, torch.inf)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """(…, 3, 3) any matrices -> the rotations R that maximise trace(Rᵀ M) (orthogonal Procrustes).

    The gradient is finite unless the maximum itself is ambiguous; plain back-propagation through the
    SVD is not, when two singular values meet.
    """
    result: Tensor = _NearestRotation.apply(matrix)
    return result


class _NearestRotation(torch.autograd.Function):
    """R = U Vᵀ with M = U S Vᵀ, det(U) folded into S.

    With Ω = Rᵀ dR antisymmetric and H = V S Vᵀ: Rᵀ dM − dMᵀ R = ΩH + HΩ, which in V's axes divides
    entry (i, j) by s_i + s_j.  `backward` is the adjoint of that map.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        U, S, Vh = torch.linalg.svd(matrix)
        sign = torch.linalg.det(U @ Vh).sign()
        flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
        U = U * flip[..., None, :]
        ctx.save_for_backward(U, S * flip, Vh)
        rotation: Tensor = U @ Vh
        return rotation

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        U, S, Vh = _saved(ctx)
        Y = U.mT @ grads[0] @ Vh.mT
        twist = Y - Y.mT
        return U @ (twist / _pair_sums(S)) @ Vh


def _saved(ctx: Any) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = ctx.saved_tensors
    return U, S, Vh


def _pair_sums(S: Tensor) -> Tensor:
    """s_i + s_j off the diagonal, 1 on it (where the numerator is zero)."""
    eye = torch.eye(3, dtype=S.dtype, device=S.device)
    return (S[..., :, None] + S[..., None, :]) * (1 - eye) + eye


def cross_matrix(v: Tensor) -> Tensor:
    """(…, 3) -> (…, 3, 3) with cross_matrix(v) @ x = v × x."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*v.shape, 3)
