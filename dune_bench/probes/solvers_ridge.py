"""Ridge regression for a whole path of λ and all folds from one pass over the data.

Minimises  Σ w_i (y_i − x_iᵀβ − b)² + λ Σ w_i ‖β‖²  over standardised x; the intercept b is not
penalised.  With A = cov(x), c = cov(x, y) and A = V diag(e) Vᵀ, β(λ) = V (e + λ)⁻¹ Vᵀ c: one
eigendecomposition serves every λ.  Held-out errors follow from the fold's own moments, without a
second pass.  Unique for λ > 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.probes.parallel import own_threads
from dune_bench.probes.solvers_moments import Centred, Moments, Standardiser, centre, moments, standardiser
from dune_bench.probes.stream import Rows


@dataclass(frozen=True)
class RidgeFit:
    """y ≈ (x − mean)ᵀ weight + bias.

    weight, mean: float64 (C,).  held_out: mean squared error of the held-out folds for each λ.
    chosen: index into lambdas.
    """

    weight: Tensor
    bias: float
    mean: Tensor
    lambdas: tuple[float, ...]
    held_out: tuple[float, ...]
    chosen: int


def fit_ridge(
    rows: Rows, y: Tensor, weights: Tensor, fold_of_row: Tensor, lambdas: Sequence[float]
) -> RidgeFit:
    """Chooses λ by the held-out weighted squared error over the folds, then refits on all rows.

    y, weights: float64 (n,); rows of weight 0 do not matter (their y must still be finite).
    fold_of_row: int64 (n,) from 0.  lambdas: per unit of weight, all > 0.  Ties go to the larger λ.
    Raises TaskError if nothing can be fitted.
    """
    path = tuple(sorted(lambdas, reverse=True))
    folds = int(fold_of_row.max()) + 1 if len(fold_of_row) else 0
    with own_threads(rows) as workers:
        sums = moments(rows, weights, fold_of_row, folds, y, workers=workers)
        return _from_moments(sums, path)


def _from_moments(sums: Moments, path: tuple[float, ...]) -> RidgeFit:
    whole = centre(sums.total(), sums.dim)
    scaler = standardiser(whole, sums.shift)
    held_out = _held_out_errors(sums, scaler, path, whole.weight)
    chosen = min(range(len(path)), key=lambda i: (held_out[i], i))
    beta, bias = _Path(whole, scaler.scale).solve(path[chosen])
    # The intercept is relative to `shift`; the caller centres by the mean.
    at_mean = bias + float(beta @ (scaler.mean - sums.shift))
    return RidgeFit(beta, at_mean, scaler.mean, path, tuple(held_out), chosen)


def _held_out_errors(
    sums: Moments, scaler: Standardiser, path: tuple[float, ...], weight: float
) -> list[float]:
    errors = [0.0] * len(path)
    for fold in range(len(sums.gram)):
        rest = sums.without(fold)
        if not float(rest[sums.dim, sums.dim]) > 0:
            raise TaskError("a fold's training part has no labelled patch: too few labelled rooms")
        solver = _Path(centre(rest, sums.dim), scaler.scale)
        for i, value in enumerate(path):
            beta, bias = solver.solve(value)
            residual = torch.cat((-beta, torch.tensor([-bias, 1.0], dtype=torch.float64)))
            errors[i] += float(residual @ sums.gram[fold] @ residual) / weight
    return errors


class _Path:
    """Solutions for any λ from one eigendecomposition."""

    def __init__(self, data: Centred, scale: Tensor) -> None:
        dim = len(scale)
        self._scale = scale
        self._mean = data.mean
        cov = data.cov[:dim, :dim] * torch.outer(scale, scale)
        self._values, self._vectors = torch.linalg.eigh(cov)
        self._target = self._vectors.T @ (data.cov[:dim, -1] * scale)

    def solve(self, value: float) -> tuple[Tensor, float]:
        """(β in the units of x, intercept at x = shift)."""
        # Rounding may leave eigenvalues of a rank-deficient matrix slightly below 0.
        inverse = 1.0 / (self._values.clamp_min(0.0) + value)
        beta = (self._vectors @ (inverse * self._target)) * self._scale
        bias = float(self._mean[-1] - beta @ self._mean[: len(beta)])
        return beta, bias
