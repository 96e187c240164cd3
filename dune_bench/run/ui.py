"""What a run says while it works.  Who shows it, and how, is the caller's affair."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from dune_bench.run.request import Outcome


class PhaseProgress(Protocol):
    """Progress of one phase.  A probe's `Progress` is one of these."""

    def update(self, done: float, total: float, note: str = "") -> None:
        """done of total, in the phase's unit; both may be revised.  May be called very often."""


class RunUI(Protocol):
    """Receives what happens.  All calls come from the thread that runs `execute`."""

    def message(self, text: str) -> None:
        """One line of information."""

    def warning(self, text: str) -> None:
        """One line about something that went on in another way than asked or expected."""

    def phase(self, title: str, unit: str) -> AbstractContextManager[PhaseProgress]:
        """A phase with known work begins: `dinov2_vits14: features`, counted in `unit`.  Phases do
        not nest.  `Eta` gives an honest estimate of what is left of it."""

    def outcome(self, outcome: Outcome, done: int, total: int) -> None:
        """One (encoder, task) is finished: the done-th of total."""


class SilentPhase:
    """A phase that nobody watches."""

    def update(self, done: float, total: float, note: str = "") -> None:
        del done, total, note


class SilentUI:
    """Says nothing."""

    def message(self, text: str) -> None:
        del text

    def warning(self, text: str) -> None:
        del text

    @contextmanager
    def phase(self, title: str, unit: str) -> Iterator[PhaseProgress]:
        del title, unit
        yield SilentPhase()

    def outcome(self, outcome: Outcome, done: int, total: int) -> None:
        del outcome, done, total


class Eta:
    """Seconds left of a phase, from the rate seen so far.

    It says nothing (None) before `settle_s` seconds and two steps: an early guess is worse than
    none.  The rate is the mean over a sliding window, so that a slow start is forgotten.
    """

    def __init__(
        self, settle_s: float = 2.0, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._settle, self._window = clock, settle_s, window_s
        self._started = clock()
        self._seen: list[tuple[float, float]] = [(self._started, 0.0)]
        self._total: float | None = None

    def update(self, done: float, total: float) -> float | None:
        """Notes the progress; returns the seconds left, or None if that is not known yet."""
        now = self._clock()
        if total != self._total:
            # Work of another kind begins.  What stands done at once may be from an earlier run.
            self._total, self._seen, self._started = total, [(now, done)], now
        if done < self._seen[-1][1]:
            self._seen, self._started = [(now, done)], now
        elif done > self._seen[-1][1]:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > self._window:
            self._seen.pop(0)
        if done >= total:
            return 0.0
        begun, first = self._seen[0]
        if len(self._seen) < 3 or now - self._started < self._settle or now <= begun:
            return None
        return (total - done) * (now - begun) / (self._seen[-1][1] - first)
