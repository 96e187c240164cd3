"""A user interface that remembers what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dune_bench.run.request import Outcome
from dune_bench.run.ui import PhaseProgress


class Recorder:
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []
        self.phases: list[str] = []
        self.updates: list[tuple[str, float, float]] = []
        self.outcomes: list[tuple[Outcome, int, int]] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def phase(self, title: str, unit: str) -> Iterator[PhaseProgress]:
        self.phases.append(title)
        yield _Phase(self, title)

    def outcome(self, outcome: Outcome, done: int, total: int) -> None:
        self.outcomes.append((outcome, done, total))


class _Phase:
    def __init__(self, recorder: Recorder, title: str) -> None:
        self._recorder, self._title = recorder, title

    def update(self, done: float, total: float, note: str = "") -> None:
        self._recorder.updates.append((self._title, done, total))
