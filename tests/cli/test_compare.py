"""`dune-bench compare`: the table, the formats, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dune_bench
from tests.cli.conftest import Command
from tests.report.paired_runs import NEW, depth, digest, failed, segmentation, task_of, write

RUNS = Path("runs")
ROOT = Path(__file__).parents[2]


def two(worse: float = 0.05) -> None:
    write(RUNS, depth("a"), segmentation("a"), depth("b", worse, noise=1), segmentation("b", 0.9))


def test_the_table_says_which_is_better_and_where_it_lost(command: Command) -> None:
    two()
    answer = command("compare", "a", "b")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert any(line.startswith(task_of("depth")) and line.endswith("worse") for line in lines)
    assert any(line.startswith(task_of("semseg")) and line.endswith("better") for line in lines)
    assert sum(line.startswith("room") for line in lines) == 10 + 0 < len(lines)
    assert command("compare", "a", "b").out == answer.out


def test_json_and_csv_hold_the_same_numbers_as_the_api(command: Command) -> None:
    two()
    found = json.loads(command("compare", "a", "b", "--format", "json", "--worst", "3").out)
    rows = list(csv.DictReader(io.StringIO(command("compare", "a", "b", "--format", "csv").out)))
    comparison = dune_bench.compare("a", "b", worst=3)
    assert len(found["tasks"]) == len(rows) == len(comparison.tasks) == 2
    for task, row, own in zip(found["tasks"], rows, comparison.tasks, strict=True):
        assert task["difference"] == float(row["difference"]) == own.difference.value
        assert (
            task["ci95"] == [float(row["ci_low"]), float(row["ci_high"])] == list(own.difference.ci95 or ())
        )
        assert task["p_holm"] >= task["p"]
    assert len(found["tasks"][0]["worst"]) == 3
    worst = found["tasks"][0]["worst"][0]
    assert worst["second"] > worst["first"]
    assert worst["id"].startswith(worst["group"])


def test_p_of_an_extreme_difference_is_a_bound_and_not_zero(command: Command) -> None:
    two(worse=0.5)
    out = command("compare", "a", "b").out
    assert "< 0.0" in out
    assert " 0.000" not in out


def test_markdown_has_a_whole_table_whatever_the_name(command: Command) -> None:
    name = "x|y<b>\n../z"
    write(RUNS, depth("a"), depth(name, 0.1))
    page = command("compare", "a", name, "--format", "md").out
    assert "<b>" not in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in tables[:3]}) == 1


def test_what_is_not_compared_is_listed_with_its_reason(command: Command) -> None:
    write(RUNS, depth("a"), segmentation("a"), depth("b"), failed("b", "semseg"))
    (path,) = write(RUNS, segmentation("c"))
    path.write_text("{")
    answer = command("compare", "a", "b")
    assert answer.code == 0
    assert f"left out: {task_of('semseg')}: b: failed: NaN features" in answer.err
    assert "not readable as JSON" in answer.err
    listed = json.loads(command("compare", "a", "b", "--format", "json").out)["left_out"]
    assert len(listed) == 2


def test_few_groups_get_no_interval(command: Command) -> None:
    write(RUNS, depth("a", groups=5), depth("b", 0.5, groups=5))
    out = command("compare", "a", "b").out
    assert "none (5 groups)" in out
    assert "no interval" in out


def test_two_checkpoints_of_one_name_are_told_apart_by_digest(command: Command) -> None:
    write(RUNS, depth("a", weights_digest="one"), depth("a", 0.1, weights_digest="two", started=NEW))
    one, two = (digest(weights)[:8] for weights in ("one", "two"))
    answer = command("compare", f"a@{one}", f"a@{two}")
    assert answer.code == 0
    assert f"A: a ({one[:7]})" in answer.out
    same = command("compare", "a", "a")
    assert same.code == 2
    assert "NAME@DIGEST" in same.error


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (segmentation("b"), "not measured"),
        (depth("b", task_changes={"limited": 8}), "other limit: none and 8"),
        (depth("b", task_changes={"score_version": 2}), "other version of the scoring code"),
        (depth("b", metric={"value": 9.0}), "edited, or of another version's scoring"),
        (failed("b"), "failed: NaN features"),
    ],
)
def test_nothing_comparable_exits_3_with_the_reason(command: Command, second: object, reason: str) -> None:
    write(RUNS, depth("a"), second)  # type: ignore[arg-type]
    answer = command("compare", "a", "b")
    assert answer.code == 3
    assert "no task to compare" in answer.error
    assert reason in answer.error


def test_an_empty_folder_and_an_unknown_name_are_one_line(command: Command) -> None:
    assert "no results in runs" in command("compare", "a", "b").error
    two()
    answer = command("compare", "a", "bb")
    assert (answer.code, "did you mean" in answer.error) == (2, True)
    answer = command("compare", "a", "b", "--tasks", "nope")
    assert answer.code == 2
    assert f"--tasks nope: neither has any of them, there are {task_of('depth')}" in answer.error


@pytest.mark.parametrize(
    ("path", "reason"), [(".", "is a folder, name a file"), ("none/x.html", "no folder")]
)
def test_a_bad_page_path_is_usage_and_makes_no_folder(command: Command, path: str, reason: str) -> None:
    two()
    answer = command("compare", "a", "b", "--html", path)
    assert answer.code == 2
    assert reason in answer.error
    assert not Path("none").exists()


def test_a_damaged_file_is_named_once_and_called_cut_short(command: Command) -> None:
    two()
    (path,) = write(RUNS, segmentation("c"))
    path.write_text(path.read_text()[:300])
    (line,) = (line for line in command("compare", "a", "b").err.splitlines() if path.name in line)
    assert line.count(path.name) == 1
    assert line.endswith("not readable as JSON: it is cut short")


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_result_without_its_primary_metric_is_named_with_its_own_encoder(
    command: Command, side: str
) -> None:
    write(RUNS, *(depth(name, metric={"primary": name != side}) for name in ("a", "b")), segmentation("a"))
    write(RUNS, segmentation("b"))
    answer = command("compare", "a", "b")
    assert f"left out: {task_of('depth')}: {side}: " in answer.err


def test_compare_and_gate_import_no_torch(command: Command) -> None:
    two()
    code = (
        "import sys, dune_bench\n"
        "assert dune_bench.compare('a', 'b').tasks\n"
        "assert dune_bench.gate('a', 'base.json', update=True) is None\n"
        "assert dune_bench.gate('b', 'base.json').exit_code == 1\n"
        "from dune_bench.report import comparison, verdict\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=_with_path()
    )
    assert done.returncode == 0, done.stderr


def _with_path() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": str(ROOT)}
