"""The end of a run: every number with its interval, every failure with its reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dune_bench.cli.outcome import make_grid, plain, print_outcome
from dune_bench.results.schema import Result
from dune_bench.run.request import Outcome, RunSummary, code_of
from tests.report.factory import make_result, metric, task_info

DEPTH = task_info("depth/toy/convex@1")
ERROR = metric(0.5, id="rmse_m", unit="m", higher_is_better=False, ci95=(0.4, 0.6))


def outcome(result: Result) -> Outcome:
    path = Path("runs/results") / result.encoder.id / "x.json"
    return Outcome(result.encoder.id, result.task.id, result, path, code=code_of(result))


def summary(*results: Result) -> RunSummary:
    return RunSummary(tuple(map(outcome, results)), Path("runs"))


def test_value_interval_unit_and_direction_stand_in_the_table() -> None:
    text = plain(make_grid(summary(make_result(), make_result(task=DEPTH, metrics=(ERROR,))).outcomes))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["encoder", "semseg/toy/convex@1", "depth/toy/convex@1"]
    assert lines[1] == ["miou", "(%)", "↑", "rmse_m", "(m)", "↓"]
    assert lines[3] == ["vit", "45.1", "[43.1,", "47.1]", "0.500", "[0.400,", "0.600]"]


def test_a_failed_task_is_not_an_empty_cell_and_is_named() -> None:
    failed = make_result(task=DEPTH, status="failed", error="non-finite features")
    grid = make_grid(summary(make_result(), failed).outcomes)
    assert grid.rows == (("vit", "45.1 [43.1, 47.1]", "failed"),)
    assert "vit on depth/toy/convex@1: failed, see above" in grid.notes


def test_a_long_reason_is_not_repeated_below_the_table() -> None:
    missing = {"status": "unavailable", "error": "no weights: get X"}
    grid = make_grid(summary(make_result(**missing), make_result(task=DEPTH, **missing)).outcomes)
    assert grid.notes == ("vit on semseg/toy/convex@1, depth/toy/convex@1: unavailable, see above",)


def test_a_missing_interval_is_explained() -> None:
    grid = make_grid(summary(make_result(metrics=(metric(45.12, ci95=None),))).outcomes)
    assert grid.rows == (("vit", "45.1"),)
    assert grid.notes == ("no interval where the data has too few groups for one",)


def test_random_weights_and_limit_are_branded() -> None:
    limited = make_result(weights="random", task=task_info(limited=8))
    grid = make_grid(summary(limited).outcomes)
    assert grid.rows[0][0] == "vit [random weights]"
    assert "limit 8" in grid.header[1]


def test_an_encoder_without_weights_is_not_branded() -> None:
    assert make_grid(summary(make_result("pixels", weights="none")).outcomes).rows[0][0] == "pixels"


def test_the_files_and_the_next_step_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(summary(make_result("a"), make_result("b")), Path("elsewhere"))
    out = capsys.readouterr().out
    assert "results: runs/results/a, runs/results/b" in out
    assert out.rstrip().endswith("dune-bench report --runs elsewhere")


def test_nothing_measured_gives_no_way_to_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(summary(make_result(status="unavailable", error="no weights")), Path("runs"))
    out = capsys.readouterr().out
    assert "results: runs/results/vit" in out
    assert "dune-bench report" not in out


def test_a_wrong_request_points_to_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = replace(outcome(make_result(status="failed", error="no view")), written=False)
    print_outcome(RunSummary((wrong, outcome(make_result("pixels"))), Path("runs")), Path("runs"))
    out = capsys.readouterr().out
    assert "vit on semseg/toy/convex@1: not run, see above" in out
    assert "results: runs/results/pixels\n" in out
    print_outcome(RunSummary((wrong,), Path("runs")), Path("runs"))
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_the_same_content_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    print_outcome(summary(make_result("a[b]"), make_result("c[d]", status="failed", error="x")), Path("runs"))
    out = capsys.readouterr().out
    assert "a[b]" in out
    assert "45.1 [43.1, 47.1]" in out
    assert "c[d] on semseg/toy/convex@1: failed, see above" in out


def test_exit_code_of_a_mixed_run() -> None:
    ok, failed = make_result(), make_result("b", status="failed", error="x")
    missing = make_result("c", status="unavailable", error="x")
    assert summary(ok).exit_code == 0
    assert summary(ok, missing).exit_code == 3
    assert summary(ok, missing, failed).exit_code == 1
