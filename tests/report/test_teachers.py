"""Students against their teachers: right numbers, right direction, nothing that is not comparable."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.registry.lookup import load_registry
from dune_bench.report.board import make_board
from dune_bench.report.teachers import StudentTable, student_tables
from dune_bench.report.teachers_text import teachers_csv, teachers_markdown
from dune_bench.report.write import write_leaderboard
from dune_bench.results.schema import Result
from dune_bench.results.store import ResultStore
from tests.report.paired_runs import depth, digest, segmentation, write

TEACHERS = ("near", "far", "absent")


def student(
    made: tuple[Result, Any], teachers: tuple[str, ...] = TEACHERS, **more: Any
) -> tuple[Result, Any]:
    result, arrays = made
    encoder = result.encoder.model_copy(update={"teachers": teachers, **more})
    return result.model_copy(update={"encoder": encoder}), arrays


def tables(runs: Path, panel: tuple[str, ...] = ()) -> tuple[StudentTable, ...]:
    store = ResultStore(runs)
    found, refused = store.load()
    return student_tables(found, make_board(found, refused, runs), store, load_registry(), panel)


def usual(runs: Path) -> StudentTable:
    """Depth, lower is better: random 3 m, far 1.5 m, student 1.2 m, near 1 m worse by 0.2 of noise."""
    write(
        runs,
        student(depth("pupil", 0.2)),
        depth("near", 0.0, noise=1),
        depth("far", 0.5, noise=2),
        depth("random_vits14", 2.0, weights="random"),
    )
    (table,) = tables(runs)
    return table


def value(result: Result) -> float:
    assert result.primary is not None
    assert result.primary.value is not None
    return result.primary.value


def test_difference_and_best_follow_the_direction_of_an_error(tmp_path: Path) -> None:
    (row,) = usual(tmp_path).rows
    near, far = row.teachers
    assert (near.best, far.best) == (True, False)
    assert near.comparison.difference.value == pytest.approx(value(row.student) - value(near.teacher))
    assert (near.comparison.outcome, far.comparison.outcome) == ("worse", "better")


def test_retention_of_an_error_is_not_upside_down(tmp_path: Path) -> None:
    (row,) = usual(tmp_path).rows
    near, far = row.teachers
    assert near.retention == pytest.approx((3.0 - 1.2) / (3.0 - 1.0), abs=0.02)
    assert far.retention is not None
    assert near.retention is not None
    assert far.retention > 1 > near.retention


def test_retention_where_higher_is_better(tmp_path: Path) -> None:
    zero, half, full = (
        segmentation(name, right) for name, right in (("random_vits14", 0.4), ("pupil", 0.6), ("near", 0.8))
    )
    write(tmp_path, zero, student(half, ("near",)), full)
    (row,) = tables(tmp_path)[0].rows
    expected = (value(half[0]) - value(zero[0])) / (value(full[0]) - value(zero[0]))
    assert row.teachers[0].retention == pytest.approx(expected)


def test_own_random_weights_come_before_another_architecture(tmp_path: Path) -> None:
    usual(tmp_path)
    write(tmp_path, depth("pupil", 4.0, weights="random", weights_digest="dice"))
    (table,) = tables(tmp_path)
    assert table.rows[0].random is not None
    assert table.rows[0].random.label == "pupil [random weights]"


def test_teacher_below_random_has_no_retention(tmp_path: Path) -> None:
    write(tmp_path, student(depth("pupil"), ("near",)), depth("near", 3.0), depth("random_vits14", 2.0))
    (against,) = tables(tmp_path)[0].rows[0].teachers
    assert against.retention is None
    assert "no better than random" in against.why_not


def test_teacher_within_the_margin_of_random_has_no_retention(tmp_path: Path) -> None:
    write(tmp_path, student(depth("pupil"), ("near",)), depth("near", 1.99), depth("random_vits14", 2.0))
    (against,) = tables(tmp_path)[0].rows[0].teachers
    assert against.retention is None
    assert "within the margin" in against.why_not


def test_without_random_there_is_no_retention_and_it_says_so(tmp_path: Path) -> None:
    write(tmp_path, student(depth("pupil"), ("near",)), depth("near", 3.0))
    page = teachers_markdown(tables(tmp_path))
    assert "no retention: neither pupil with random weights nor random_vits14" in page


def test_absent_teacher_is_named_not_skipped(tmp_path: Path) -> None:
    page = teachers_markdown((usual(tmp_path),))
    assert "all tasks: absent: not measured" in page
    assert "not given, no task has the whole panel: missing absent" in page


def test_random_weights_never_stand_for_a_teacher(tmp_path: Path) -> None:
    write(tmp_path, student(depth("pupil"), ("near",)), depth("near", weights="random"))
    (table,) = tables(tmp_path)
    assert table.rows[0].teachers == ()
    assert any("random weights only" in entry.reason for entry in table.left_out)


def test_other_data_is_left_out_with_its_reason(tmp_path: Path) -> None:
    other = {"dataset_fingerprints": {"test": digest("other")}}
    write(tmp_path, student(depth("pupil"), ("near",)), depth("near", task_changes=other))
    (table,) = tables(tmp_path)
    assert table.rows[0].teachers == ()
    assert any("other data" in entry.reason for entry in table.left_out)


def test_overlap_with_training_data_is_marked(tmp_path: Path) -> None:
    write(
        tmp_path,
        student(depth("pupil"), ("near",), trained_on=("minirooms",)),
        depth("near", trained_on=("imagenet",)),
    )
    (line,) = csv.DictReader(io.StringIO(teachers_csv(tables(tmp_path))))
    assert (line["student_overlap"], line["teacher_overlap"]) == ("True", "False")


def test_mean_rank_is_over_the_panel_alone(tmp_path: Path) -> None:
    usual(tmp_path)
    write(tmp_path, segmentation("pupil", 0.9), segmentation("near", 0.5), depth("bystander", -0.5))
    (table,) = tables(tmp_path, ("pupil", "near"))
    assert table.ranks.ranks == {"pupil": 1.5, "near": 1.5}
    assert len(table.ranks.columns) == 2


def test_default_panel_knows_random_features_by_their_card(tmp_path: Path) -> None:
    write(
        tmp_path,
        student(depth("pupil", 0.2), ("near",)),
        depth("near"),
        depth("random_vits14", 2.0, weights="random"),
    )
    assert tables(tmp_path)[0].ranks.ranks == {"pupil": 2.0, "near": 1.0, "random_vits14": 3.0}


def test_published_numbers_stay_out_of_the_measured_table(tmp_path: Path) -> None:
    write(tmp_path, student(depth("dune_vitb_paper"), ("dinov2reg_vitl14",)), depth("dinov2reg_vitl14", 0.1))
    page = teachers_markdown(tables(tmp_path))
    measured, elsewhere = page.split("### Published elsewhere")
    assert "0.358" in elsewhere
    assert "[primary]" in elsewhere.replace("\\", "")
    assert "0.358" not in measured
    assert "0.358" not in teachers_csv(tables(tmp_path))


def test_names_with_markup_are_escaped(tmp_path: Path) -> None:
    write(tmp_path, student(depth("a|b<script>"), ("near",)), depth("near", 0.1))
    page = teachers_markdown(tables(tmp_path))
    assert "<script>" not in page
    assert "a|b" not in page


def test_no_student_is_one_clear_line(tmp_path: Path) -> None:
    write(tmp_path, depth("near"))
    with pytest.raises(UnavailableError, match=r"no measured encoder in .* has teachers"):
        tables(tmp_path)


def test_the_leaderboard_is_written_without_a_student(tmp_path: Path) -> None:
    write(tmp_path, depth("near"))
    written = write_leaderboard(tmp_path, ["md"], tmp_path / "out", teachers=True)
    assert [path.name for path in written.paths] == ["leaderboard.md"]
    assert written.exit_code == 3
    assert any("has teachers on its card" in note for note in written.notes)


def test_files_are_written_beside_the_leaderboard_and_again_the_same(tmp_path: Path) -> None:
    usual(tmp_path)
    first = write_leaderboard(tmp_path, ["md", "csv", "latex"], tmp_path / "a", teachers=True)
    write_leaderboard(tmp_path, ["md", "csv", "latex"], tmp_path / "b", teachers=True)
    names = {path.name for path in first.paths}
    assert names >= {"teachers.md", "teachers.csv", "teachers.tex", "leaderboard.tex"}
    assert all((tmp_path / "b" / n).read_bytes() == (tmp_path / "a" / n).read_bytes() for n in names)


def test_options_that_do_nothing_are_refused(tmp_path: Path) -> None:
    usual(tmp_path)
    with pytest.raises(UsageError, match="--panel goes with --teachers"):
        write_leaderboard(tmp_path, ["md"], tmp_path, panel=("a",))
    with pytest.raises(UsageError, match="--teachers has no png"):
        write_leaderboard(tmp_path, ["png"], tmp_path, teachers=True)
