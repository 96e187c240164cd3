"""Progress: seldom lines in a log, an honest estimate, nothing that markup could eat."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from dune_bench.cli.progress import LOG_EVERY_S, PlainUI, RichUI, duration, make_ui, position
from tests.cli.test_outcome import outcome
from tests.report.factory import make_result


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_is_not_flooded_and_its_estimate_is_right() -> None:
    stream, clock = io.StringIO(), Clock()
    ui = PlainUI(stream, clock)
    with ui.phase("vit: features", "images") as phase:
        for done in range(1001):
            phase.update(done, 1000)
            clock.now += 0.05
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 50 / LOG_EVERY_S + 1
    assert lines[0] == "vit: features: 101/1000 images, 45 s left"
    assert lines[-1].startswith("vit: features: done in 50 s")


def test_a_long_phase_does_not_fill_the_log() -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainUI(stream, clock).phase("x: features", "images") as phase:
        for done in range(600):
            clock.now += 1.0
            phase.update(done, 600)
    assert 8 <= len(stream.getvalue().splitlines()) <= 14


def test_a_short_phase_leaves_no_line() -> None:
    stream = io.StringIO()
    with PlainUI(stream, Clock()).phase("x", "images") as phase:
        phase.update(1, 2)
        phase.update(2, 2)
    assert stream.getvalue() == ""


def test_no_estimate_before_there_is_a_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    with PlainUI(stream, clock).phase("x", "images") as phase:
        clock.now = LOG_EVERY_S + 1
        phase.update(0, 10)
    assert stream.getvalue().splitlines()[0] == "x: 0/10 images"


def test_outcomes_say_value_reason_and_whether_they_were_there() -> None:
    stream = io.StringIO()
    ui = PlainUI(stream)
    ui.outcome(outcome(make_result()), 1, 2)
    ui.outcome(outcome(make_result(status="failed", error="NaN in block 3")), 2, 2)
    ui.outcome(outcome(make_result("b", status="failed", error="NaN in block 3")), 2, 2)
    ui.warning("slow")
    assert stream.getvalue().splitlines() == [
        "[1/2] vit on semseg/toy/convex@1: miou 45.1 [43.1, 47.1] %",
        "[2/2] vit on semseg/toy/convex@1: failed: NaN in block 3",
        "[2/2] b on semseg/toy/convex@1: failed: as above",
        "warning: slow",
    ]


def test_names_with_brackets_are_not_eaten_by_markup() -> None:
    stream = io.StringIO()
    columns = (TextColumn("{task.description} {task.fields[count]} {task.fields[left]}"),)
    with Progress(*columns, console=Console(file=stream, force_terminal=True, width=100)) as progress:
        ui = RichUI(progress)
        ui.message("a[red]b")
        ui.outcome(outcome(make_result("c[bold]d", weights="random")), 1, 1)
        with ui.phase("e[link]f", "images") as phase:
            phase.update(1, 2)
            progress.refresh()
    text = stream.getvalue()
    assert all(name in text for name in ("a[red]b", "c[bold]d [random weights]", "e[link]f 1/2 images"))


def test_a_log_gets_lines_and_a_terminal_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    with make_ui() as ui:
        assert isinstance(ui, PlainUI)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with make_ui() as ui:
        assert isinstance(ui, RichUI)


def test_a_share_is_not_shown_as_a_broken_count() -> None:
    assert position(0.256, 1, "steps") == "26 %"
    assert position(3, 12, "images") == "3/12 images"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
