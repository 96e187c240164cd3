"""The λ path of the logistic regression: folds side by side, warm starts, selection, refit.

Full-batch L-BFGS, preconditioned anew at the start of each λ (see `solvers_precondition`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.probes.parallel import own_threads
from dune_bench.probes.solvers_lbfgs import Lbfgs
from dune_bench.probes.solvers_logistic import Evaluation, Objective, Proportions
from dune_bench.probes.solvers_moments import centre, moments, standardiser
from dune_bench.probes.solvers_precondition import Basis, Preconditioner, curvature_blocks
from dune_bench.probes.stream import Rows

MEMORY = 20
Report = Callable[[float, str], None]
"""Called with the share of the work that is done and a note."""


@dataclass(frozen=True)
class LogisticSettings:
    """What moves the fit; all of it stands in the task card.

    lambdas: per unit of weight.  bias_lambda: penalty of the bias, per unit of weight.  tolerance,
    fold_tolerance: nats by which F of the refit, of a fold's fit, may exceed the optimum (see
    `Lbfgs`: ½ Σ gradient² / penalty certifies it).  patience: the path stops when the held-out loss
    has risen so many times in a row.  max_iterations: evaluations of one fit.
    """

    lambdas: tuple[float, ...]
    bias_lambda: float
    tolerance: float
    fold_tolerance: float
    patience: int
    max_iterations: int


@dataclass(frozen=True)
class LogisticFit:
    """logits = weight (x − mean) + bias.

    weight: float64 (K, C) in the units of x.  bias: (K,).  mean: (C,).  tried: the λ fitted, large to
    small.  held_out: mean cross-entropy of the held-out rows for each.  chosen: index into tried.
    iterations, gap: of the refit.  passes: over the data, in all.  fold_weights (F, K, C), fold_biases
    (F, K): the fits without fold f at the chosen λ, for what must be judged on rows not fitted on.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    tried: tuple[float, ...]
    held_out: tuple[float, ...]
    chosen: int
    iterations: int
    gap: float
    passes: int
    fold_weights: Tensor
    fold_biases: Tensor


def fit_logistic(
    rows: Rows,
    targets: Proportions,
    fold_of_row: Tensor,
    settings: LogisticSettings,
    report: Report = lambda share, note: None,
) -> LogisticFit:
    """Chooses λ by the held-out weighted cross-entropy over the folds, then refits on all rows.

    fold_of_row: int64 (n,) from 0.  Ties go to the larger λ.  Raises TaskError if features are not
    finite, nothing is labelled, or a fit does not reach its tolerance.
    """
    with own_threads(rows) as workers:
        return _fit(rows, targets, fold_of_row, settings, report, workers)


def _fit(
    rows: Rows,
    targets: Proportions,
    fold_of_row: Tensor,
    settings: LogisticSettings,
    report: Report,
    workers: int,
) -> LogisticFit:
    folds = int(fold_of_row.max()) + 1 if len(fold_of_row) else 0
    sums = moments(rows, targets.weights(), fold_of_row, folds, products=torch.float32, workers=workers)
    whole = centre(sums.total(), sums.dim)
    scaler = standardiser(whole, sums.shift)
    objective = Objective(rows, targets, scaler, fold_of_row, folds, workers)
    if not all(objective.weight_without(f) > 0 for f in range(folds)):
        raise TaskError("a fold's training part has no labelled patch: too few labelled rooms")
    shares = _shares(targets, settings.bias_lambda)
    basis = Basis.of(whole.cov[: sums.dim, : sums.dim], scaler, shares)
    start = torch.zeros(targets.classes, rows.dim + 1, dtype=torch.float64)
    start[:, -1] = shares.log() - shares.log().mean()
    path = _Path(objective, basis, settings, report)
    tried, held_out, solutions = path.select([start] * folds)
    chosen = min(range(len(tried)), key=lambda i: (held_out[i], i))
    report(0.9, f"refit, λ {tried[chosen]:g}")
    of_folds = solutions[chosen]
    (best,), _ = path.minimise([of_folds.mean(0)], [None], tried[chosen], settings.tolerance)
    theta = best.solution
    return LogisticFit(
        weight=theta[:, :-1] * scaler.scale,
        bias=theta[:, -1],
        mean=scaler.mean,
        tried=tried,
        held_out=held_out,
        chosen=chosen,
        iterations=best.evaluations,
        gap=best.gap,
        passes=objective.passes + 1,
        fold_weights=of_folds[:, :, :-1] * scaler.scale,
        fold_biases=of_folds[:, :, -1],
    )


def _shares(targets: Proportions, floor: float) -> Tensor:
    """Share of each class, float64 (K,); at least `floor`, for a class that never occurs."""
    t = torch.from_numpy(targets.counts.sum(1, dtype="int64")).double()
    return (t / t.sum()).clamp_min(floor)


class _Path:
    def __init__(
        self, objective: Objective, basis: Basis, settings: LogisticSettings, report: Report
    ) -> None:
        self.objective = objective
        self.basis = basis
        self.settings = settings
        self.report = report

    def select(self, points: list[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...], list[Tensor]]:
        """Fits the folds along the path.  Returns the λ tried, their held-out losses and the folds'
        solutions (F, K, C + 1) at each, whose mean is a good start for the refit."""
        tried: list[float] = []
        held_out: list[float] = []
        solutions: list[Tensor] = []
        worse = 0
        path = sorted(self.settings.lambdas, reverse=True)
        left_out = list(range(len(points)))
        for i, value in enumerate(path):
            self.report(0.05 + 0.85 * i / len(path), f"λ {value:g}")
            fits, losses = self.minimise(points, left_out, value, self.settings.fold_tolerance)
            points = [fit.solution for fit in fits]
            loss = math.fsum(losses) / self.objective.weight
            worse = worse + 1 if held_out and loss > held_out[-1] else 0
            tried.append(value)
            held_out.append(loss)
            solutions.append(torch.stack(points))
            if worse == self.settings.patience:
                break
        return tuple(tried), tuple(held_out), solutions

    def minimise(
        self, starts: Sequence[Tensor], left_out: Sequence[int | None], value: float, tolerance: float
    ) -> tuple[list[Lbfgs], list[float]]:
        """Minimises all problems, one pass over the data per step.  Returns them with the held-out
        loss of each at its solution."""
        penalty = torch.full((starts[0].shape[1],), value, dtype=torch.float64)
        penalty[-1] = self.settings.bias_lambda
        data = self.objective
        centre_point = torch.stack(tuple(starts)).mean(0)
        blocks = curvature_blocks(data.rows, data.targets, self.basis, centre_point, data.workers)
        data.passes += 1
        inverse = Preconditioner(self.basis, blocks, value, self.settings.bias_lambda)
        fits = [Lbfgs(start, penalty, inverse, tolerance, MEMORY) for start in starts]
        held_out = [math.nan] * len(fits)
        active = list(range(len(fits)))
        while active:
            points = [fits[i].point for i in active]
            evaluation = self.objective.evaluate(points, [left_out[i] for i in active])
            self._tell(evaluation, fits, active, penalty, held_out)
            active = [i for i in active if not fits[i].converged]
            stuck = [fits[i].gap for i in active if fits[i].evaluations >= self.settings.max_iterations]
            if stuck:
                raise TaskError(
                    f"logistic regression at λ {value:g} did not converge in "
                    f"{self.settings.max_iterations} iterations: excess loss {stuck[0]:.2g}, "
                    f"tolerance {tolerance:.2g}"
                )
        return fits, held_out

    @staticmethod
    def _tell(
        evaluation: Evaluation, fits: list[Lbfgs], active: list[int], penalty: Tensor, held_out: list[float]
    ) -> None:
        for column, i in enumerate(active):
            point = fits[i].point
            loss = float(evaluation.losses[column]) + 0.5 * float((penalty * point**2).sum())
            accepted = fits[i].tell(loss, evaluation.gradients[column] + penalty * point)
            if accepted:
                held_out[i] = float(evaluation.held_out[column])
