"""What a run says while it works: bars on a terminal, seldom lines in a log.  Both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TextIO

from dune_bench.report.format import with_interval
from dune_bench.run.ui import Eta, PhaseProgress, RunUI

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from dune_bench.run.request import Outcome

LOG_EVERY_S = 5.0
"""In a log a phase says first after so long where it is; each further line takes twice as long as the one
before, up to LOG_SELDOM_S."""
LOG_SELDOM_S = 60.0


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def position(done: float, total: float, unit: str) -> str:
    """`32/420 images`; work that is not counted in whole units is a share: `40 %`."""
    if total <= 1:
        return f"{done / total:.0%}".replace("%", " %") if total else ""
    return f"{done:.0f}/{total:.0f} {unit}"


def left(seconds: float | None) -> str:
    """The honest estimate, or nothing while there is none."""
    return f"{duration(seconds)} left" if seconds else ""


AS_ABOVE = "as above"


class Narrator:
    """Says in one line what became of each (encoder, task); a reason is said in full once only."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def describe(self, outcome: Outcome, done: int, total: int) -> str:
        result = outcome.result
        where = f"[{done}/{total}] {result.label} on {outcome.task}"
        if not outcome.written:
            return self._mistake(result.label, str(result.error), where)
        if result.status == "ok":
            primary = result.primary
            what = "ok" if primary is None else f"{primary.id} {with_interval(primary)} {primary.unit}"
        else:
            what = f"{result.status}: {self._reason(str(result.error))}"
        again = " (there already)" if outcome.reused else ""
        return f"{where}: {what}{again}"

    def _mistake(self, label: str, reason: str, where: str) -> str:
        """The request's own error, said as every wrong request is; then only where else it holds."""
        known = self._reason(f"{label}: {reason}")
        return f"{where}: not run, as above" if known == AS_ABOVE else f"error: {known}"

    def _reason(self, reason: str) -> str:
        if reason in self._said:
            return AS_ABOVE
        self._said.add(reason)
        return reason


class PlainUI:
    """Lines for a log."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._narrator = Narrator()

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def message(self, text: str) -> None:
        self._line(text)

    def warning(self, text: str) -> None:
        self._line(f"warning: {text}")

    @contextmanager
    def phase(self, title: str, unit: str) -> Iterator[PhaseProgress]:
        begun = self._clock()
        phase = _PlainPhase(title, unit, self._line, self._clock)
        yield phase
        # Short phases only make a log long; their time is in the result.
        if self._clock() - begun >= LOG_EVERY_S:
            self._line(f"{title}: done in {duration(self._clock() - begun)}")

    def outcome(self, outcome: Outcome, done: int, total: int) -> None:
        self._line(self._narrator.describe(outcome, done, total))


class _PlainPhase:
    """Progress of one phase in a log."""

    def __init__(
        self, title: str, unit: str, line: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._title, self._unit, self._line, self._clock = title, unit, line, clock
        self._eta = Eta(clock=clock)
        self._wait = LOG_EVERY_S
        self._next = clock() + self._wait

    def update(self, done: float, total: float, note: str = "") -> None:
        remaining = self._eta.update(done, total)
        if self._clock() < self._next or done >= total:
            return
        self._wait = min(2.0 * self._wait, LOG_SELDOM_S)
        self._next = self._clock() + self._wait
        parts = (position(done, total, self._unit), note, left(remaining))
        self._line(f"{self._title}: " + ", ".join(part for part in parts if part))


class RichUI:
    """Bars on a terminal; finished things stay above them as lines."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._narrator = Narrator()

    def message(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def warning(self, text: str) -> None:
        self._progress.console.print(f"warning: {text}", markup=False, highlight=False, style="yellow")

    @contextmanager
    def phase(self, title: str, unit: str) -> Iterator[PhaseProgress]:
        task = self._progress.add_task(_plain(title), total=None, count="", note="", left="")
        try:
            yield _RichPhase(self._progress, task, unit)
        finally:
            self._progress.remove_task(task)

    def outcome(self, outcome: Outcome, done: int, total: int) -> None:
        style = {"ok": "green", "failed": "red", "unavailable": "yellow"}[outcome.result.status]
        text = self._narrator.describe(outcome, done, total)
        self._progress.console.print(text, markup=False, highlight=False, style=style)


class _RichPhase:
    """Progress of one phase as a bar."""

    def __init__(self, progress: Progress, task: TaskID, unit: str) -> None:
        self._progress, self._task, self._unit = progress, task, unit
        self._eta = Eta()

    def update(self, done: float, total: float, note: str = "") -> None:
        self._progress.update(
            self._task,
            completed=done,
            total=total,
            count=position(done, total, self._unit),
            note=_plain(note),
            left=left(self._eta.update(done, total)),
        )


def _plain(text: str) -> str:
    """Text that rich shows as it is: names may hold brackets."""
    from rich.markup import escape

    return escape(text)


@contextmanager
def _rich_ui() -> Iterator[RunUI]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield RichUI(progress)


@contextmanager
def _plain_ui() -> Iterator[RunUI]:
    yield PlainUI(sys.stderr)


def make_ui() -> AbstractContextManager[RunUI]:
    """Bars if stderr is a terminal, else lines."""
    return _rich_ui() if sys.stderr.isatty() else _plain_ui()
