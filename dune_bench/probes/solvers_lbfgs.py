"""L-BFGS with a preconditioner, turned inside out: it proposes points and is told their values.

So one pass over the data serves many minimisations (one per fold) at once, each with its own steps.
Two-loop recursion: Nocedal & Wright, Numerical Optimization, algorithm 7.4; approximate Wolfe
condition near the optimum, where rounding hides the decrease: Hager & Zhang 2005, eq. (4.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from dune_bench.errors import TaskError

ARMIJO = 1e-4
SHRINK = 0.5
SMALLEST_STEP = 1e-8
NOISE = 1e-6
"""Relative rounding noise of a loss from float32 products."""


class Lbfgs:
    """Minimises one function f(θ) = g(θ) + ½ θᵀ diag(penalty) θ with g smooth and convex.

    Ask for `point`, evaluate there, `tell` the value and the gradient of f, until `converged`.  Being
    at least as curved as its penalty, f is nowhere lower than its value at θ minus
    gap = ½ Σ_j (∂_j f)² / penalty_j: a certificate, not an estimate.  Converged means gap <= tolerance.
    """

    def __init__(
        self,
        start: Tensor,
        penalty: Tensor,
        precondition: Callable[[Tensor], Tensor],
        tolerance: float,
        memory: int,
    ) -> None:
        """start: float64, any shape.  penalty: > 0, broadcasts to it.  precondition: applies an
        approximate inverse Hessian.  tolerance: in the units of f."""
        self.point = start.clone()
        self.gap = float("inf")
        self.evaluations = 0
        self._penalty = penalty
        self._precondition = precondition
        self._tolerance = tolerance
        self._pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=memory)
        self._gamma = 1.0
        self._at = start
        self._value = float("inf")
        self._gradient = torch.zeros_like(start)
        self._direction = torch.zeros_like(start)
        self._slope = 0.0
        self._step = 1.0

    @property
    def converged(self) -> bool:
        return self.gap <= self._tolerance

    @property
    def solution(self) -> Tensor:
        """The best accepted point."""
        return self._at

    def tell(self, value: float, gradient: Tensor) -> bool:
        """The value and gradient at `point`.  Returns whether the point became the solution so far.
        Raises TaskError if they are not finite at the start, or if no step helps any more."""
        self.evaluations += 1
        first = self.evaluations == 1
        if first and not (torch.isfinite(gradient).all() and value < float("inf")):
            raise TaskError("the loss is not finite at the start: the features are too large or not finite")
        if first or self._acceptable(value, gradient):
            self._accept(value, gradient, first)
            return True
        self._step *= SHRINK
        if self._step < SMALLEST_STEP:
            raise TaskError(
                f"the fit is stuck at excess loss {self.gap:.2g} (tolerance {self._tolerance:.2g})"
            )
        self.point = self._at + self._step * self._direction
        return False

    def _acceptable(self, value: float, gradient: Tensor) -> bool:
        if not (value < float("inf") and torch.isfinite(gradient).all()):
            return False
        if value <= self._value + ARMIJO * self._step * self._slope:
            return True
        slope = float((gradient * self._direction).sum())
        return value <= self._value + NOISE * abs(self._value) and slope <= -0.8 * self._slope

    def _accept(self, value: float, gradient: Tensor, first: bool) -> None:
        if not first:
            self._remember(self.point - self._at, gradient - self._gradient)
        self._at, self._value, self._gradient = self.point, value, gradient
        self.gap = 0.5 * float((gradient**2 / self._penalty).sum())
        self._direction = -self._inverse_hessian(gradient)
        self._slope = float((gradient * self._direction).sum())
        self._step = 1.0
        self.point = self._at + self._direction

    def _remember(self, s: Tensor, y: Tensor) -> None:
        sy = float((s * y).sum())
        # Convex, so sy >= 0; a pair without curvature is rounding noise and would spoil the metric.
        if sy > 1e-12 * float(s.norm() * y.norm()):
            self._pairs.append((s, y, 1.0 / sy))
            self._gamma = sy / float((y * self._precondition(y)).sum())

    def _inverse_hessian(self, gradient: Tensor) -> Tensor:
        q = gradient.clone()
        shares: list[float] = []
        for s, y, rho in reversed(self._pairs):
            shares.append(rho * float((s * q).sum()))
            q -= shares[-1] * y
        q = self._gamma * self._precondition(q)
        for (s, y, rho), share in zip(self._pairs, reversed(shares), strict=True):
            q += (share - rho * float((y * q).sum())) * s
        return q
