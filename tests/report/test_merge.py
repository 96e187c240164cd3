"""Results of other machines count only if they were made on the same task and are intact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dune_bench.errors import UnavailableError
from dune_bench.registry.lookup import load_registry
from dune_bench.report.merge import Merged, merge
from dune_bench.report.write import write_leaderboard
from dune_bench.results.schema import Result
from tests.report.paired_runs import depth, digest, failed, task_of, write


def made(encoder: str, **changes: Any) -> tuple[Result, Any]:
    """A result with the protocol of the card here."""
    card = load_registry().task(task_of("depth"))
    task = {"protocol_fingerprint": card.protocol_fingerprint()} | changes.pop("task_changes", {})
    return depth(encoder, task_changes=task, **changes)


def merged(tmp_path: Path) -> Merged:
    return merge(tmp_path / "own", [tmp_path / "also"], load_registry())


def refusal(tmp_path: Path) -> str:
    found = merged(tmp_path)
    assert len(found.found) == 1
    (refused,) = found.refused
    return refused.reason


@pytest.fixture(autouse=True)
def own(tmp_path: Path) -> None:
    write(tmp_path / "own", made("mine"))


def test_good_result_of_another_machine_is_on_the_board(tmp_path: Path) -> None:
    write(tmp_path / "also", made("theirs"))
    write_leaderboard(tmp_path / "own", ["md"], tmp_path, also=[tmp_path / "also"])
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "theirs" in page
    assert "mine" in page


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol_fingerprint": digest("x")}, "other protocol under the same name"),
        ({"dataset_fingerprints": {"test": digest("x")}}, "other data"),
        ({"dataset_fingerprints": {}}, "does not say which data"),
    ],
)
def test_other_measurement_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    write(tmp_path / "also", made("theirs", task_changes=changes))
    assert reason in refusal(tmp_path)


def test_unknown_task_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "also", made("theirs", id="depth/elsewhere/convex@1"))
    assert "no card of task depth/elsewhere/convex@1" in refusal(tmp_path)


def test_edited_statistics_are_refused(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "also", made("theirs"))
    path.with_suffix(".npz").write_bytes(b"other")
    assert "changed after the run" in refusal(tmp_path)


def test_newer_schema_and_truncated_files_are_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path / "also", made("theirs"), made("others"))
    first.write_text(json.dumps(json.loads(first.read_text()) | {"schema": 99}))
    second.write_text(second.read_text()[:50])
    reasons = " ".join(refused.reason for refused in merged(tmp_path).refused)
    assert "schema 99 is newer" in reasons
    assert "not readable as JSON" in reasons


def test_same_identity_does_not_count_twice(tmp_path: Path) -> None:
    write(tmp_path / "also", made("mine", started="2026-03-01T00:00:00+00:00"))
    assert "the same identity is there already" in refusal(tmp_path)


def test_copies_do_not_drown_a_refusal(tmp_path: Path) -> None:
    many = [made(f"encoder{i}") for i in range(5)]
    write(tmp_path / "own", *many)
    write(tmp_path / "also", *many, made("theirs", task_changes={"dataset_fingerprints": {}}))
    found = merged(tmp_path)
    assert [refused.reason.rpartition(": ")[2] for refused in found.refused] == [
        "does not say which data it was made on"
    ]
    (note,) = found.notes
    assert "5 results are here already, the same to the last digit" in note
    again = merge(tmp_path / "own", [tmp_path / "own"], load_registry())
    assert (len(again.notes), again.refused) == (1, ())


def test_refused_results_are_in_the_report_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path / "also", made("theirs", task_changes={"dataset_fingerprints": {"test": digest("x")}}))
    written = write_leaderboard(tmp_path / "own", ["md"], tmp_path, also=[tmp_path / "also"])
    assert any("other data" in note for note in written.notes)
    assert "other data" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


def test_report_does_not_tell_the_folders_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for encoder, changes in (("newer", {}), ("edited", {}), ("other", {"dataset_fingerprints": {}})):
        write(tmp_path / "also", made(encoder, task_changes=changes))
    (newer,) = (tmp_path / "also").rglob("newer/*.json")
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"schema": 99}))
    next((tmp_path / "also").rglob("edited/*.npz")).write_bytes(b"other")
    write(tmp_path / "also", made("mine", started="2026-03-01T00:00:00+00:00"))
    (damaged,) = write(tmp_path / "own", made("damaged"))
    damaged.write_text("{")
    monkeypatch.chdir(tmp_path)
    for also, shown in ((tmp_path / "also", "…/also"), (Path("also"), "also")):
        written = write_leaderboard(tmp_path / "own", ["md", "html", "latex"], tmp_path / "out", also=[also])
        for path in written.paths:
            text = path.read_text(encoding="utf-8")
            assert str(tmp_path) not in text
        page = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8")
        assert f"- results/damaged/{damaged.name}" in page
        assert f"- {shown}/results/newer/{newer.name}: schema 99 is newer" in page
        assert page.count(f"- {shown}/results/") == 4
        assert "already: results/mine/" in page


def test_failures_of_others_are_kept_as_failures(tmp_path: Path) -> None:
    write(tmp_path / "also", failed("theirs"))
    assert sorted(result.status for _, result in merged(tmp_path).found) == ["failed", "ok"]


def test_folder_without_results_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "also").mkdir()
    with pytest.raises(UnavailableError, match=r"--also .*: no results/ in it"):
        merged(tmp_path)


def test_unchecked_data_is_said(tmp_path: Path) -> None:
    write(tmp_path / "also", made("theirs"))
    found = merge(tmp_path / "empty", [tmp_path / "also"], load_registry())
    assert len(found.found) == 1
    assert any("data fingerprints" in note for note in found.notes)


def test_teacher_measured_elsewhere_is_compared(tmp_path: Path) -> None:
    result, arrays = made("pupil", started="2026-03-01T00:00:00+00:00")
    encoder = result.encoder.model_copy(update={"teachers": ("theirs",)})
    write(tmp_path / "own", (result.model_copy(update={"encoder": encoder}), arrays))
    write(tmp_path / "also", made("theirs", noise=1))
    write_leaderboard(tmp_path / "own", ["md"], tmp_path, also=[tmp_path / "also"], teachers=True)
    page = (tmp_path / "teachers.md").read_text(encoding="utf-8")
    assert "**theirs**" in page
    assert "all tasks: theirs" not in page
