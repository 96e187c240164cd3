"""Weighted second moments of a stream of rows, per fold, in float64.

One pass gives everything that standardising, ridge regression and preconditioning need.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.probes.parallel import accumulate
from dune_bench.probes.stream import Rows

CONSTANT = 1e-6
"""A channel whose spread is below this share of its size does not vary: it is rounding noise."""


@dataclass(frozen=True)
class Moments:
    """Second moments of z = [x − shift, 1, y] over the rows of each fold.

    shift: float64 (C,), any point near the mean, which keeps the sums free of cancellation.
    gram: float64 (F, D, D), Σ w z zᵀ of each fold; D = C + 1 without y and C + 2 with it.
    """

    shift: Tensor
    gram: Tensor

    @property
    def dim(self) -> int:
        return len(self.shift)

    def total(self) -> Tensor:
        return self.gram.sum(0)

    def without(self, fold: int) -> Tensor:
        """Moments of every fold but one: what that fold's model is fitted on."""
        return torch.cat((self.gram[:fold], self.gram[fold + 1 :])).sum(0)


@dataclass(frozen=True)
class Centred:
    """Moments about the weighted means.  weight: Σ w.  mean: (D,) of z.  cov: (D, D) = Σ w (z − mean)
    (z − mean)ᵀ / Σ w."""

    weight: float
    mean: Tensor
    cov: Tensor


def centre(gram: Tensor, one: int) -> Centred:
    """Centres a moment matrix whose column `one` belongs to the constant 1."""
    weight = gram[one, one]
    mean = gram[one] / weight
    return Centred(float(weight), mean, gram / weight - torch.outer(mean, mean))


@dataclass(frozen=True)
class Standardiser:
    """x -> (x − mean) · scale, float64 (C,) each.  A channel that does not vary has scale 0: it is
    left out instead of being blown up."""

    mean: Tensor
    scale: Tensor


def standardiser(centred: Centred, shift: Tensor) -> Standardiser:
    """Zero mean, unit variance under the rows' weights."""
    dim = len(shift)
    mean = shift + centred.mean[:dim]
    deviation = centred.cov.diagonal()[:dim].clamp_min(0.0).sqrt()
    varies = deviation > CONSTANT * (mean.abs() + deviation)
    scale = torch.where(varies, 1.0 / deviation.where(varies, torch.ones_like(deviation)), 0.0)
    return Standardiser(mean, scale)


def moments(
    rows: Rows,
    weights: Tensor,
    fold_of_row: Tensor,
    folds: int,
    y: Tensor | None = None,
    products: torch.dtype = torch.float64,
    workers: int = 1,
) -> Moments:
    """One pass over the stream.

    weights: (n,) >= 0.  fold_of_row: int64 (n,).  y: (n,) regression target or None.  products:
    dtype of the blocks' products; sums over blocks are float64 in any case.  workers: threads.
    Raises TaskError if features are not finite or no row has weight.
    """
    first = next(rows.blocks(), None)
    if first is None:
        raise TaskError("nothing to fit on: there are no images")
    shift = first[1].double().mean(0)
    sums = [_Sums(shift, weights, fold_of_row, folds, y, products) for _ in range(workers)]
    accumulate(rows, sums)
    gram = torch.stack([part.gram for part in sums]).sum(0).cpu()
    if not bool(gram[:, rows.dim, rows.dim].sum() > 0):
        raise TaskError("nothing to fit on: no patch has a labelled pixel")
    if not bool(torch.isfinite(gram).all()):
        raise TaskError("the features are not finite: the encoder returned NaN or infinity")
    return Moments(shift.cpu(), gram)


class _Sums:
    def __init__(
        self,
        shift: Tensor,
        weights: Tensor,
        fold_of_row: Tensor,
        folds: int,
        y: Tensor | None,
        products: torch.dtype,
    ) -> None:
        size = len(shift) + (1 if y is None else 2)
        self.gram = torch.zeros(folds, size, size, dtype=torch.float64, device=shift.device)
        self.shift = shift.to(products)
        self.weights, self.fold_of_row, self.y = weights, fold_of_row, y

    def add(self, where: slice, x: Tensor) -> None:
        dim = x.shape[1]
        z = torch.ones(len(x), self.gram.shape[1], dtype=self.shift.dtype, device=x.device)
        torch.sub(x.to(z), self.shift, out=z[:, :dim])
        if self.y is not None:
            z[:, -1] = self.y[where].to(z)
        # The root of the weight on both sides keeps each block's product symmetric.
        z *= self.weights[where].to(z).sqrt()[:, None]
        folds = self.fold_of_row[where]
        for fold in sorted(set(folds.tolist())):
            part = z[(folds == fold).to(z.device)]
            self.gram[fold] += (part.T @ part).double()
