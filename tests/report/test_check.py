"""A report shows a result only as its run wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dune_bench.registry.lookup import load_registry
from dune_bench.report import merge as merging
from dune_bench.report.merge import Merged, merge
from dune_bench.report.write import write_leaderboard
from tests.report.paired_runs import depth, task_of, write


def made(encoder: str, **changes: Any) -> Any:
    """A result with the protocol of the card here."""
    card = load_registry().task(task_of("depth"))
    return depth(encoder, task_changes={"protocol_fingerprint": card.protocol_fingerprint()}, **changes)


def edit(path: Path, **changes: Any) -> None:
    """Changes the primary metric of a result file, as a hand would."""
    content = json.loads(path.read_text())
    content["metrics"][0] |= changes
    path.write_text(json.dumps(content))


def read(runs: Path, **options: Any) -> Merged:
    return merge(runs, (), load_registry(), **options)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write(tmp_path, made("honest"), made("other", noise=1))
    return tmp_path


@pytest.fixture
def path(runs: Path) -> Path:
    (found,) = runs.rglob("other/*.json")
    return found


def test_an_untouched_folder_is_whole(runs: Path) -> None:
    found = read(runs)
    assert (len(found.found), found.refused, found.notes) == (2, (), ())


@pytest.mark.parametrize("foreign", [False, True])
def test_an_edited_value_takes_no_rank(runs: Path, path: Path, tmp_path: Path, foreign: bool) -> None:
    edit(path, value=0.001)
    own = tmp_path / "mine" if foreign else runs
    also = (runs,) if foreign else ()
    if foreign:
        write(own, made("own"))
    written = write_leaderboard(own, ["md", "csv"], tmp_path / "out", also=also)
    assert any("rmse_m is 0.001 in the file, but its per-sample statistics give" in n for n in written.notes)
    page = (tmp_path / "out/leaderboard.md").read_text()
    assert "results/other/" in page.partition("## Files refused")[2]
    assert "0.001" not in page.partition("## Files refused")[0]
    assert "other" not in (tmp_path / "out/leaderboard.csv").read_text()


def test_changed_or_missing_statistics_are_refused_in_the_own_folder(runs: Path, path: Path) -> None:
    stats = path.with_suffix(".npz")
    content = bytearray(stats.read_bytes())
    content[40] ^= 1
    stats.write_bytes(bytes(content))
    assert "changed after the run" in read(runs).refused[0].reason
    stats.unlink()
    (refused,) = read(runs).refused
    assert "cannot read the per-sample statistics" in refused.reason
    assert str(runs) not in refused.reason


def test_a_result_without_its_primary_metric_is_no_blank_cell(runs: Path, path: Path) -> None:
    edit(path, primary=False)
    assert [refused.reason.partition(": ")[2] for refused in read(runs).refused] == [
        "has no primary metric: run again"
    ]


def test_many_results_are_checked_without_recomputing_and_the_report_says_so(
    runs: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "RECOMPUTED", 1)
    edit(path, value=0.001)
    found = read(runs)
    assert found.refused == ()
    assert "were not recomputed" in found.notes[0]
    edit(path, value=0.001, ci95=[0.9, 1.1])
    assert "outside of its own interval [0.9, 1.1]" in read(runs).refused[0].reason
    found = read(runs, verify=True)
    assert "per-sample statistics give" in found.refused[0].reason
    assert found.notes == ()


def test_a_result_of_another_protocol_is_shown_and_said_to_be_unchecked(runs: Path) -> None:
    write(runs, depth("elsewhere", id="depth/elsewhere/convex@1"))
    found = read(runs)
    assert len(found.found) == 3
    assert found.notes == (
        "1 result not recomputed: no card here declares the same protocol (--include names cards)",
    )


def test_an_undefined_value_is_no_edited_one(tmp_path: Path) -> None:
    write(tmp_path, made("undefined", metric={"value": None}))
    assert read(tmp_path).refused == ()
