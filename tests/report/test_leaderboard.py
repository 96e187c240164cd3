"""The leaderboard's files: right, safe to read, and the same bytes for the same results."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import pytest

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.report.table import COLUMNS
from dune_bench.report.write import write_leaderboard
from dune_bench.results.schema import Result
from tests.report.factory import make_result, metric, task_info, write_results


def page(tmp_path: Path, *results: Result) -> str:
    write_results(tmp_path, *results)
    write_leaderboard(tmp_path, ["md"], tmp_path)
    return (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


def rows(tmp_path: Path, *results: Result) -> list[dict[str, str]]:
    write_results(tmp_path, *results)
    write_leaderboard(tmp_path, ["csv"], tmp_path)
    return list(csv.DictReader(io.StringIO((tmp_path / "leaderboard.csv").read_text(encoding="utf-8"))))


def cells(line: str) -> list[str]:
    """The cells of a Markdown table row, as a renderer splits them: an escaped pipe is no border."""
    return [c.strip() for c in line.replace("\\|", "\0").strip().strip("|").split("|")]


def test_value_interval_unit_and_direction_are_printed(tmp_path: Path) -> None:
    depth = task_info("depth/toy/convex@1")
    error = metric(0.4444, id="rmse_m", unit="m", higher_is_better=False, ci95=(0.4, 0.5))
    text = page(tmp_path, make_result(), make_result(task=depth, metrics=(error,)))
    assert "miou (%) ↑" in text
    assert "rmse_m (m) ↓" in text
    assert "45.1 \\[43.1, 47.1\\]" in text
    assert "0.444 \\[0.400, 0.500\\]" in text


def test_no_interval_is_not_a_zero_interval(tmp_path: Path) -> None:
    text = page(tmp_path, make_result(metrics=(metric(45.12, ci95=None),)))
    assert "| vit | 45.1 | norm |" in text


def test_undefined_metric_is_neither_zero_nor_empty(tmp_path: Path) -> None:
    result = make_result(metrics=(metric(None),))
    assert "| vit | undefined | norm |" in page(tmp_path, result)
    assert rows(tmp_path, result)[0]["value"] == ""


def test_failed_and_unavailable_are_listed_with_their_reason(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        make_result("bad", status="failed", error="non-finite features"),
        make_result("dune_vitb", status="unavailable", error="no weights: get X"),
    )
    assert "| bad | semseg/toy/convex@1 | failed | non-finite features |" in text
    assert "| dune_vitb | semseg/toy/convex@1 | unavailable | no weights: get X |" in text


def test_limited_overridden_and_random_are_branded(tmp_path: Path) -> None:
    task = task_info(limited=8, overrides={"resolution": 224, "limit": 8})
    text = page(tmp_path, make_result("vit", weights="random", task=task))
    assert "(resolution=224, limit 8)" in text
    assert "vit \\[random weights\\]" in text


def test_training_on_the_tasks_data_is_flagged(tmp_path: Path) -> None:
    text = page(tmp_path, make_result("saw_it", trained_on=("Toy",)), make_result("clean"))
    assert "| saw_it † |" in text
    assert "| clean |" in text


def test_refused_files_are_listed_not_dropped(tmp_path: Path) -> None:
    broken = tmp_path / "results" / "vit" / "broken.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{", encoding="utf-8")
    written = write_leaderboard(tmp_path, ["md"], tmp_path)
    assert "broken.json" in written.notes[0]
    assert "broken.json" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


NASTY = "a|b\n# <script>alert(1)</script> `x` *y* [z](u) \x1b[31m"


def test_a_name_cannot_break_out_of_its_cell(tmp_path: Path) -> None:
    text = page(tmp_path, make_result(NASTY), make_result("b", status="failed", error=NASTY))
    assert "<script" not in text
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("# ") and line != "# Leaderboard"]
    tables = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    named = [line for line in tables if "script" in line]
    assert len(named) == 3  # overview, task, not measured
    assert [len(cells(line)) for line in named] == [2, 3, 4]


def test_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = [make_result(name, metrics=(metric(1.0),)) for name in "cab"]
    for folder, order in (("one", results), ("two", results[::-1])):
        write_results(tmp_path / folder, *order)
        write_leaderboard(tmp_path / folder, ["md", "csv"], tmp_path / folder)
    for name in ("leaderboard.md", "leaderboard.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_csv_keeps_every_digit_and_every_field(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    found = rows(tmp_path, make_result(NASTY, metrics=(metric(value, ci95=None),)))
    assert tuple(found[0]) == COLUMNS
    assert float(found[0]["value"]) == value
    assert found[0]["encoder"] == NASTY
    assert (found[0]["ci_low"], found[0]["status"], found[0]["metric"]) == ("", "ok", "miou")


def test_csv_says_which_rows_are_comparable(tmp_path: Path) -> None:
    found = rows(tmp_path, make_result("a"), make_result("b"), make_result("c", task=task_info(limited=4)))
    by_name = {row["encoder"]: row["comparable"] for row in found}
    assert by_name["a"] == by_name["b"] != by_name["c"]


def test_nothing_to_report_is_exit_3_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="dune-bench run"):
        write_leaderboard(tmp_path, ["md"], tmp_path)


def test_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    write_results(tmp_path, make_result())
    with pytest.raises(UsageError, match=r"unknown format 'xyz'.*md"):
        write_leaderboard(tmp_path, ["xyz"], tmp_path)


def test_report_needs_no_torch(tmp_path: Path) -> None:
    write_results(tmp_path, make_result())
    code = (
        "import sys; from pathlib import Path; from dune_bench.report.write import write_leaderboard as w; "
        f"w(Path({str(tmp_path)!r}), ['md', 'csv'], Path({str(tmp_path)!r})); "
        "print(sorted({'torch', 'timm', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
