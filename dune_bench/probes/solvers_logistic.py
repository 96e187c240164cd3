"""Multinomial logistic regression to class proportions: the objective, in one streamed pass.

For a problem (all rows, or all but one fold) with weights s and proportions q, t = s·q:

    F(W, b) = (1/n) Σ_i s_i CE(q_i, softmax(W x_i + b)) + (λ/2) ‖W‖² + (β/2) ‖b‖²,   n = Σ s_i

over standardised x.  Multiplied by n this is the usual sum with λ·n, so λ is "per n".  The tiny β
only makes the optimum unique and finite: without it b is free up to a constant, and the bias of a
class that a fold's rows never show would run to −∞.  Its effect on a probability is of order β.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.probes.parallel import accumulate
from dune_bench.probes.solvers_moments import Standardiser
from dune_bench.probes.stream import Rows


@dataclass(frozen=True)
class Proportions:
    """Class proportions of rows, held as exact small counts.

    counts: unsigned (K, n), labelled pixels of each class in the row's cell.  pixels: (n,) all pixels
    of the cell.  A row's weight s is its labelled share, its target t = counts / pixels.
    """

    counts: NDArray[np.uint16]
    pixels: NDArray[np.uint16]

    @property
    def classes(self) -> int:
        return len(self.counts)

    def weights(self) -> Tensor:
        """s, float64 (n,); 0 for a cell without pixels."""
        labelled = self.counts.sum(0, dtype=np.int64)
        return torch.from_numpy(labelled / np.maximum(self.pixels, 1))

    def block(self, rows: slice, device: torch.device) -> Tensor:
        """t, float32 (K, r)."""
        t = self.counts[:, rows].astype(np.float32) / np.maximum(self.pixels[rows], 1).astype(np.float32)
        return torch.from_numpy(t).to(device)


@dataclass(frozen=True)
class Evaluation:
    """One pass at the points of P problems, divided by each problem's n.

    losses: float64 (P,), mean cross-entropy of the rows fitted on.  gradients: float64 (P, K, C + 1),
    without the penalty.  held_out: float64 (P,), summed cross-entropy of the rows left out.
    """

    losses: Tensor
    gradients: Tensor
    held_out: Tensor


class Objective:
    """The data of the problems, re-read from the stream in every evaluation."""

    def __init__(
        self,
        rows: Rows,
        targets: Proportions,
        scaler: Standardiser,
        fold_of_row: Tensor,
        folds: int,
        workers: int = 1,
    ) -> None:
        self.rows = rows
        self.targets = targets
        self.folds = folds
        self.passes = 0
        self._scaler = scaler
        self.workers = workers
        self._fold_of_row = fold_of_row
        weights = targets.weights()
        self.weight = float(weights.sum())
        self.fold_weights = torch.zeros(folds, dtype=torch.float64).index_add_(0, fold_of_row, weights)

    def weight_without(self, fold: int | None) -> float:
        """n of the problem that leaves `fold` out (None: nothing)."""
        return self.weight if fold is None else self.weight - float(self.fold_weights[fold])

    def evaluate(self, points: Sequence[Tensor], left_out: Sequence[int | None]) -> Evaluation:
        """One pass for all problems.  points: float64 (K, C + 1) each, bias last.  left_out: the fold
        each problem does not see."""
        self.passes += 1
        theta = torch.stack(tuple(points), dim=1)  # (K, P, C + 1)
        parts = [self._sums(theta, left_out) for _ in range(self.workers)]
        accumulate(self.rows, parts)
        for part in parts[1:]:
            parts[0].merge(part)
        n = torch.tensor([self.weight_without(fold) for fold in left_out], dtype=torch.float64)
        return parts[0].finish(n, self._scaler.scale)

    def _sums(self, theta: Tensor, left_out: Sequence[int | None]) -> _Sums:
        data = (self.targets, self._fold_of_row, self.folds)
        return _Sums(theta, self._scaler, left_out, data, self.rows.device)


class _Sums:
    """Accumulates blocks: products in float32, sums over blocks in float64.

    Classes come first and rows last in every block, so that the softmax runs over contiguous rows
    (an order of magnitude faster on a CPU than over a last axis of a dozen classes) and both
    products are plain matrix products for all problems together.
    """

    def __init__(
        self,
        theta: Tensor,
        scaler: Standardiser,
        left_out: Sequence[int | None],
        data: tuple[Proportions, Tensor, int],
        device: torch.device,
    ) -> None:
        self.targets, self.fold_of_row, folds = data
        self.shape = theta.shape[:2]
        classes, problems = self.shape
        dim = theta.shape[2] - 1
        scaled = (theta[:, :, :dim] * scaler.scale).reshape(-1, dim)
        self.weight = scaled.to(device, torch.float32)
        self.bias = theta[:, :, dim].reshape(-1, 1).to(device, torch.float32)
        self.mean = scaler.mean.to(device, torch.float32)
        self.left_out = torch.tensor([-1 if f is None else f for f in left_out], device=device)
        self.folds = torch.arange(folds, device=device)

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.float64, device=device)

        self.gradient = zeros(classes * problems, dim)
        self.bias_gradient = zeros(classes * problems)
        self.loss = zeros(problems, folds)

    def add(self, where: slice, x: Tensor) -> None:
        """x: (r, C), the rows `where`."""
        t = self.targets.block(where, x.device)
        fold = self.fold_of_row[where].to(x.device)
        x = x - self.mean
        s = t.sum(0)
        logits = torch.addmm(self.bias, self.weight, x.T).view(*self.shape, -1)  # (K, P, r)
        logits -= logits.amax(0)
        fitted = (logits * t[:, None]).sum(0)  # Σ_k t_k logit_k, (P, r)
        p = logits.exp_()
        norm = p.sum(0)
        row_loss = s * norm.log() - fitted
        self.loss += row_loss.double() @ (fold[:, None] == self.folds).double()
        p *= s / norm
        seen = (fold != self.left_out[:, None]).to(p)  # (P, r)
        p *= seen
        p -= t[:, None] * seen
        residual = p.view(-1, p.shape[-1])
        self.gradient += (residual @ x).double()
        self.bias_gradient += residual.sum(-1).double()

    def merge(self, other: _Sums) -> None:
        self.gradient += other.gradient
        self.bias_gradient += other.bias_gradient
        self.loss += other.loss

    def finish(self, n: Tensor, scale: Tensor) -> Evaluation:
        classes, problems = self.shape
        loss = self.loss.cpu()
        out = (self.left_out[:, None] == self.folds).cpu()
        gradient = self.gradient.cpu() * scale
        joined = torch.cat((gradient, self.bias_gradient.cpu()[:, None]), dim=1)
        gradients = joined.view(classes, problems, -1).transpose(0, 1) / n[:, None, None]
        return Evaluation(
            losses=loss.masked_fill(out, 0.0).sum(1) / n,
            gradients=gradients,
            held_out=loss.masked_fill(~out, 0.0).sum(1),
        )
