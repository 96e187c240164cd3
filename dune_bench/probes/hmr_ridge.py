"""Ridge regression from few rows of many channels to many targets, in the dual.

Minimises  Σᵢ ‖yᵢ − xᵢW − b‖² + n λ ‖W‖²  with W = Xᵀ α,  (G + n λ) α = Y,  G = X Xᵀ, everything centred:
one eigendecomposition of an n × n matrix serves every λ and every target; n is a number of people.

Inputs come in blocks (a token, a window).  Each is standardised and divided by the root of its channels,
so that blocks weigh the same and λ means the same for a wide and a narrow encoder.  Blocks are of kinds
that may weigh differently, G = Σ_k w_k G_k with w of the first kind 1; each group of targets has its own
λ and w, chosen by the held-out squared error: one target is best told from the head's own token, another
needs the surroundings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.probes.solvers_moments import CONSTANT

Weights = tuple[float, ...]
"""w of each kind of block."""


@dataclass(frozen=True)
class Inputs:
    """x: float64 (n, D).  blocks: (channels, kind) of the blocks of x in their order; kinds from 0."""

    x: Tensor
    blocks: tuple[tuple[int, int], ...]

    @property
    def kind_of_channel(self) -> Tensor:
        """int64 (D,)."""
        return torch.cat([torch.full((size,), kind) for size, kind in self.blocks])

    @property
    def block_size(self) -> Tensor:
        """float64 (D,): channels of each channel's block."""
        return torch.cat([torch.full((size,), float(size), dtype=torch.float64) for size, _ in self.blocks])


@dataclass(frozen=True)
class Choice:
    """What a group of targets uses, and how well it does.  error: sum of held-out squared errors; spread:
    the same of the training part's mean alone."""

    lambda_per_n: float
    weights: Weights
    error: float
    spread: float


@dataclass(frozen=True)
class DualRidge:
    """y ≈ (x − mean) weight + bias.  weight: float64 (D, T).  mean: (D,).  bias: (T,).

    chosen: by group.  held_out: float64 (n, T), each row's prediction by the fit without its fold.
    """

    weight: Tensor
    mean: Tensor
    bias: Tensor
    chosen: dict[str, Choice]
    held_out: Tensor


def fit_dual_ridge(
    inputs: Inputs,
    y: Tensor,
    fold_of_row: Tensor,
    groups: Mapping[str, slice],
    lambdas: Sequence[float],
    kind_weights: Sequence[Weights],
) -> DualRidge:
    """Chooses λ and w per group, then refits on all rows.

    y: float64 (n, T).  fold_of_row: int64 (n,).  groups: name -> columns of y, together all of them.
    kind_weights: the w to try.  Ties go to the earlier w, then to the larger λ.  Raises TaskError for
    features that are not finite or a fold without training rows.
    """
    if not bool(inputs.x.isfinite().all()):
        raise TaskError("the features are not finite: the encoder returned NaN or infinity")
    mean, scale = standardise(inputs)
    z = (inputs.x - mean) * scale
    kinds = inputs.kind_of_channel
    parts = [z[:, kinds == kind] for kind in range(int(kinds.max()) + 1)]
    grams = [part @ part.T for part in parts]
    search = _Search(y, fold_of_row, groups)
    for w in kind_weights:
        search.visit(_mix(grams, w), w, sorted(lambdas, reverse=True))
    weight = torch.zeros(z.shape[1], y.shape[1], dtype=y.dtype)
    chosen = search.chosen()
    for w in sorted({choice.weights for choice in chosen.values()}):
        solver = _Solver(_mix(grams, w), y)
        for name in (name for name, choice in chosen.items() if choice.weights == w):
            alpha = solver.alpha(chosen[name].lambda_per_n, groups[name])
            for kind, part in enumerate(parts):
                weight[kinds == kind, groups[name]] = w[kind] * (part.T @ alpha)
    return DualRidge(scale[:, None] * weight, mean, y.mean(0), chosen, search.held_out)


def _mix(grams: Sequence[Tensor], weights: Weights) -> Tensor:
    return torch.stack([w * gram for w, gram in zip(weights, grams, strict=True)]).sum(0)


def standardise(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Mean and scale (D,): unit variance per channel, divided by √(channels of its block).  A channel that
    does not vary has scale 0."""
    x = inputs.x
    mean = x.mean(0)
    deviation = (x - mean).square().mean(0).sqrt()
    varies = deviation > CONSTANT * (mean.abs() + deviation)
    safe = deviation.where(varies, torch.ones_like(deviation)) * inputs.block_size.sqrt()
    return mean, torch.where(varies, 1.0 / safe, 0.0)


class _Search:
    """The best (w, λ) of each group so far, and its held-out predictions."""

    def __init__(self, y: Tensor, fold_of_row: Tensor, groups: Mapping[str, slice]) -> None:
        self._y, self._folds, self._groups = y, fold_of_row, groups
        self._best: dict[str, tuple[float, float, Weights]] = {}
        self.held_out = torch.empty_like(y)

    def visit(self, gram: Tensor, weights: Weights, path: Sequence[float]) -> None:
        for value, predicted in zip(path, _held_out(gram, self._y, self._folds, path), strict=True):
            errors = (predicted - self._y).square().sum(0)
            for name, part in self._groups.items():
                error = float(errors[part].sum())
                if name not in self._best or error < self._best[name][0]:
                    self._best[name] = (error, value, weights)
                    self.held_out[:, part] = predicted[:, part]

    def chosen(self) -> dict[str, Choice]:
        means = _held_out(
            torch.zeros(len(self._y), len(self._y), dtype=self._y.dtype), self._y, self._folds, [1.0]
        )
        base = (means[0] - self._y).square().sum(0)
        return {
            name: Choice(value, weights, error, float(base[self._groups[name]].sum()))
            for name, (error, value, weights) in self._best.items()
        }


def _held_out(gram: Tensor, y: Tensor, fold_of_row: Tensor, path: Sequence[float]) -> Tensor:
    """(L, n, T) predictions of each row by the fit without its fold."""
    result = torch.empty(len(path), *y.shape, dtype=y.dtype)
    for fold in sorted(set(fold_of_row.tolist())):
        out = fold_of_row == fold
        if not bool((~out).any()):
            raise TaskError("a fold's training part has nobody in it: too few rooms with people to find")
        solver = _Solver(gram[~out][:, ~out], y[~out])
        result[:, out] = solver.predict(gram[out][:, ~out], path)
    return result


class _Solver:
    """Solutions for any λ from one eigendecomposition of the centred Gram matrix."""

    def __init__(self, gram: Tensor, y: Tensor) -> None:
        self._columns = gram.mean(0)
        centred = gram - self._columns - self._columns[:, None] + self._columns.mean()
        self._values, self._vectors = torch.linalg.eigh(centred)
        self._mean = y.mean(0)
        self._target = self._vectors.T @ (y - self._mean)

    def alpha(self, value: float, columns: slice) -> Tensor:
        """(n, columns) of the dual weights; each column sums to 0."""
        alpha: Tensor = self._vectors @ (self._inverse(value) * self._target[:, columns])
        return alpha - alpha.mean(0)

    def predict(self, cross: Tensor, path: Sequence[float]) -> Tensor:
        """(L, m, T).  cross: (m, n) products of new rows with the fitted ones."""
        turned = self._vectors - self._vectors.mean(0)  # dual weights sum to 0, see `alpha`
        projected = (cross - self._columns) @ turned
        return torch.stack([projected @ (self._inverse(value) * self._target) for value in path]) + self._mean

    def _inverse(self, value: float) -> Tensor:
        # Rounding may leave eigenvalues slightly below 0.  The constant's is 0 and meets a target of 0.
        inverse: Tensor = 1.0 / (self._values.clamp_min(0.0) + value * len(self._values))
        return inverse[:, None]
