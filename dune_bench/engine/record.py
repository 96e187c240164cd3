"""What a training leaves to read: losses by step, and where the time went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

PHASES = ("data", "forward", "backward", "optimiser", "other")


@dataclass(frozen=True)
class StepLine:
    """One logged step.

    step: steps taken (from 1).  loss: weighted sum of the terms of the global batch; None if no term
    counted anything.  terms: each before its weight; absent where it counted nothing.  lr: of a group
    with lr_scale 1.  grad_norm: of all tensors together, before clipping; None without a loss.
    seconds: by phase, since the line before.
    """

    step: int
    loss: float | None
    terms: Mapping[str, float]
    lr: float
    grad_norm: float | None
    seconds: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainingRecord:
    """A finished training.

    lines: the logged steps, those before a resume too if there is a folder.  resumed_from: the step of
    the checkpoint that this process started from; None: from the beginning.
    """

    lines: tuple[StepLine, ...]
    steps: int
    resumed_from: int | None = None

    def curve(self, term: str) -> tuple[tuple[int, float], ...]:
        """(step, value) of one term where it counted anything."""
        return tuple((line.step, line.terms[term]) for line in self.lines if term in line.terms)

    def shares(self) -> dict[str, float]:
        """Share of the time of all steps that each phase took; they sum to 1."""
        total = {phase: sum(line.seconds[phase] for line in self.lines) for phase in PHASES}
        return {phase: seconds / sum(total.values()) for phase, seconds in total.items()}


@dataclass
class StepClock:
    """Seconds by phase.  On a GPU it waits at each phase's end for the work that the phase queued."""

    device: torch.device
    _seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def step(self) -> Iterator[None]:
        """A whole step: what no phase within claims is `other`."""
        claimed, started = sum(self._seconds.values()), self._now()
        yield
        phases = sum(self._seconds.values()) - claimed
        self._seconds["other"] += self._now() - started - phases

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = self._now()
        yield
        self._seconds[name] += self._now() - started

    def lap(self) -> dict[str, float]:
        """Seconds by phase since the last lap."""
        seconds, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return seconds
