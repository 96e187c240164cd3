"""A model of the logistic regression's Hessian, and its inverse as a preconditioner.

Class by class (Böhning's block diagonal, with the rows' own p (1 − p) in place of a bound), in the
eigenbasis of the features' covariance: along the leading directions and the bias the block is measured
in one pass over the data; along the others it is taken as c_k · eigenvalue, c_k the mean of p (1 − p).
It only sets the pace of the solver: the optimum does not depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dune_bench.probes.parallel import accumulate
from dune_bench.probes.solvers_logistic import Proportions
from dune_bench.probes.solvers_moments import Standardiser
from dune_bench.probes.stream import Rows

LEADING = 128
"""Directions whose curvature is measured: the block costs about as much as five evaluations."""
FLOOR = 1e-3
"""Least p (1 − p) of a row, as a share of the class's own variance: where a class is ruled out at the
start but does occur, the curvature is about to grow."""


@dataclass(frozen=True)
class Basis:
    """Eigenbasis of the covariance of the standardised features, ascending.

    values: float64 (C,).  vectors: (C, C) in columns.  variance: (K,), π (1 − π) of each class's share.
    """

    scaler: Standardiser
    values: Tensor
    vectors: Tensor
    variance: Tensor

    @classmethod
    def of(cls, cov: Tensor, scaler: Standardiser, shares: Tensor) -> Basis:
        """cov: of the raw features.  shares: (K,) of the classes."""
        values, vectors = torch.linalg.eigh(cov * torch.outer(scaler.scale, scaler.scale))
        return cls(scaler, values.clamp_min(0.0), vectors, shares * (1.0 - shares))

    @property
    def leading(self) -> int:
        return min(LEADING, len(self.values))


class Preconditioner:
    """Approximate inverse Hessian at one point, for one λ.  Symmetric and positive definite on the
    plane of θ that sum to zero over classes, which is where the optimum is."""

    def __init__(self, basis: Basis, blocks: Tensor, value: float, bias: float) -> None:
        """blocks: float64 (K, r + 1, r + 1), see `curvature_blocks`.  value, bias: the penalties."""
        r = basis.leading
        self._tail, self._lead = basis.vectors[:, :-r], basis.vectors[:, -r:]
        c = torch.maximum(blocks[:, -1, -1], basis.variance)[:, None]
        self._tail_inverse = 1.0 / (c * basis.values[:-r] + value)
        # Scaled so that the penalty is the identity: rounding below it cannot spoil the inverse.
        penalty = torch.full((r + 1,), value, dtype=torch.float64)
        penalty[-1] = bias
        self._root = penalty.rsqrt()
        values, self._vectors = torch.linalg.eigh(blocks * torch.outer(self._root, self._root))
        self._inverse = 1.0 / (values.clamp_min(0.0) + 1.0)

    def __call__(self, g: Tensor) -> Tensor:
        """M⁻¹ g for g (K, C + 1)."""
        tail = ((g[:, :-1] @ self._tail) * self._tail_inverse) @ self._tail.T
        lead = torch.cat((g[:, :-1] @ self._lead, g[:, -1:]), dim=1) * self._root
        rotated = torch.einsum("kji,kj->ki", self._vectors, lead) * self._inverse
        lead = torch.einsum("kij,kj->ki", self._vectors, rotated) * self._root
        step = torch.cat((tail + lead[:, :-1] @ self._lead.T, lead[:, -1:]), dim=1)
        # Adding one vector to all classes changes no probability, only the penalty: the optimum sums
        # to zero over classes.  A step off that plane would come back at the penalty's slow pace.
        return step - step.mean(0)


def curvature_blocks(rows: Rows, targets: Proportions, basis: Basis, theta: Tensor, workers: int) -> Tensor:
    """Σ s p_k (1 − p_k) v vᵀ / Σ s for each class, v the leading coordinates of a row and 1.

    theta: float64 (K, C + 1), where p is taken.  One pass.  Returns float64 (K, r + 1, r + 1).
    """
    parts = [_Blocks(targets, basis, theta, rows.device) for _ in range(workers)]
    accumulate(rows, parts)
    total = torch.stack([part.sums for part in parts]).sum(0)
    return total.cpu() / float(targets.weights().sum())


class _Blocks:
    def __init__(self, targets: Proportions, basis: Basis, theta: Tensor, device: torch.device) -> None:
        classes, size = len(theta), basis.leading + 1
        scale = basis.scaler.scale
        self.targets = targets
        self.mean = basis.scaler.mean.to(device, torch.float32)
        self.weight = (theta[:, :-1] * scale).to(device, torch.float32)
        self.bias = theta[:, -1:].to(device, torch.float32)
        self.lead = (basis.vectors[:, -basis.leading :] * scale[:, None]).to(device, torch.float32)
        self.least = (FLOOR * basis.variance)[:, None].to(device, torch.float32)
        self.sums = torch.zeros(classes, size, size, dtype=torch.float64, device=device)

    def add(self, where: slice, x: Tensor) -> None:
        x = x - self.mean
        s = self.targets.block(where, x.device).sum(0)
        p = torch.softmax(torch.addmm(self.bias, self.weight, x.T), dim=0)
        curvature = ((p * (1.0 - p) + self.least) * s).sqrt()
        v = torch.cat((x @ self.lead, torch.ones_like(x[:, :1])), dim=1)
        for k, root in enumerate(curvature):
            weighted = v * root[:, None]
            self.sums[k] += (weighted.T @ weighted).double()
