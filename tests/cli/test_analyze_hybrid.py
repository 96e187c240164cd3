"""`dune-bench analyze hybrid` as its user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.report.test_analysis_hybrid import runs_of

HYBRID = ("analyze", "hybrid", "dune_vitb", "--against", "pixels")


def test_plan_is_printed(command: Command) -> None:
    runs_of(Path("runs"))
    answer = command(*HYBRID, "--floor", "depth=2", "--floor-retention", "0.9", "--budget-latency-ms", "50")
    assert answer.code == 0, answer.err
    assert "Runs: dune_vitb. p50 (ms): 10.0 of 50; all specialists 30.0, saved 20.0 (67%)." in answer.out


def test_missed_floor_is_exit_3_and_the_plan_is_shown(command: Command) -> None:
    runs_of(Path("runs"))
    answer = command(*HYBRID, "--floor-retention", "0.9", "--budget-latency-ms", "20")
    assert answer.code == 3
    assert "floors not met within the budget: depth" in answer.error
    assert "| no |" in answer.out


@pytest.mark.parametrize(
    "options",
    [
        ("--floor", "depth=2"),
        ("--floor", "depth=2", "--budget-latency-ms", "5", "--budget-memory-mb", "5"),
        ("--budget-latency-ms", "5"),
        ("--floor", "depth=2", "--budget-latency-ms", "nan"),
        ("--floor", "depth", "--budget-latency-ms", "5"),
        ("--floor", "depth=nan", "--budget-latency-ms", "5"),
        ("--floor", "depth=1,depth=2", "--budget-latency-ms", "5"),
        ("--floor-retention", "1.5", "--budget-latency-ms", "5"),
    ],
)
def test_wrong_options_are_one_line(command: Command, options: tuple[str, ...]) -> None:
    answer = command(*HYBRID, *options)
    assert answer.code == 2
    assert answer.error
