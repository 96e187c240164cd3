from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.results import baseline as module
from dune_bench.results.baseline import Baseline, make_baseline, read_baseline, write_baseline
from tests.results.pairs import result_of, rooms

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
GROUPS = rooms(12)


def example(seed: int = 0, tasks: int = 2) -> Baseline:
    rng = np.random.default_rng(seed)
    found = [
        result_of(rng.normal(size=len(GROUPS)), GROUPS, task={"id": f"depth/blocks{i}/convex@1"})
        for i in reversed(range(tasks))
    ]
    return make_baseline(found, NOW)


def folder(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    made = example()
    path, beside = write_baseline(tmp_path / "small.json", made)
    found = read_baseline(path)
    assert found.results == made.results
    assert (found.written, found.commit, found.dirty) == ("2026-05-04T03:02:01+00:00", None, None)
    assert [result.task.id for result in found.results] == [
        "depth/blocks0/convex@1",
        "depth/blocks1/convex@1",
    ]
    for mine, theirs in zip(made.arrays, found.arrays, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert json.loads(path.read_text())["arrays"]["file"] == beside.name
    assert path.stat().st_size + beside.stat().st_size < 20_000


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    write_baseline(tmp_path / "a.json", example())
    before = folder(tmp_path)
    write_baseline(tmp_path / "a.json", example())
    assert folder(tmp_path) == before


def test_an_update_leaves_two_files_and_no_old_arrays(tmp_path: Path) -> None:
    write_baseline(tmp_path / "a.json", example(0))
    path, beside = write_baseline(tmp_path / "a.json", example(1))
    assert set(folder(tmp_path)) == {path.name, beside.name}
    read_baseline(path)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_crash_while_writing_leaves_the_old_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    path, _ = write_baseline(tmp_path / "a.json", example(0))
    before = read_baseline(path).results
    calls = 0
    real = module.write_atomic

    def write(target: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise TaskError("disk full")
        real(target, data)

    monkeypatch.setattr(module, "write_atomic", write)
    with pytest.raises(TaskError, match="disk full"):
        write_baseline(path, example(1))
    assert read_baseline(path).results == before


def test_no_file_of_another_baseline_is_deleted(tmp_path: Path) -> None:
    path, beside = write_baseline(tmp_path / "a.json", example(0))
    foreign = tmp_path / "other.npz"
    foreign.write_bytes(b"mine")
    raw = json.loads(path.read_text())
    raw["arrays"]["file"] = foreign.name
    path.write_text(json.dumps(raw))
    write_baseline(path, example(1))
    assert foreign.read_bytes() == b"mine"
    assert beside.exists()


def _truncate(path: Path, beside: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _edit_value(path: Path, beside: Path) -> None:
    raw = json.loads(path.read_text())
    raw["results"][0]["metrics"][0]["value"] += 0.1
    path.write_text(json.dumps(raw))


def _newer(path: Path, beside: Path) -> None:
    path.write_text(json.dumps({"baseline": 99}))


def _foreign(path: Path, beside: Path) -> None:
    path.write_text('["hello"]')


def _binary(path: Path, beside: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def _edit_arrays(path: Path, beside: Path) -> None:
    beside.write_bytes(beside.read_bytes()[:-1] + b"x")


def _lose_arrays(path: Path, beside: Path) -> None:
    beside.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_truncate, "not readable as JSON"),
        (_edit_value, "edited after it was written"),
        (_newer, "baseline format 99 is newer"),
        (_foreign, "not a baseline of dune-bench"),
        (_binary, "not readable as JSON"),
        (_edit_arrays, "changed after it was written"),
        (_lose_arrays, "cannot read the baseline's statistics"),
    ],
)
def test_a_damaged_baseline_is_one_line_and_never_compared(tmp_path: Path, damage: Any, reason: str) -> None:
    damage(*write_baseline(tmp_path / "a.json", example()))
    with pytest.raises(UnavailableError, match=reason) as caught:
        read_baseline(tmp_path / "a.json")
    assert str(tmp_path) in str(caught.value)


def test_a_missing_baseline_names_the_way_to_one(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="--update"):
        read_baseline(tmp_path / "none.json")


def test_a_baseline_needs_a_result_and_a_json_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        make_baseline([])
    with pytest.raises(UsageError, match=r"ends in \.json"):
        write_baseline(tmp_path / "a.txt", example())
    assert not folder(tmp_path)


def test_a_name_with_markup_or_separators_survives_the_file(tmp_path: Path) -> None:
    name = "a|b/<b>\n../c"
    result, arrays = result_of(np.ones(36), GROUPS, encoder={"id": name})
    path, _ = write_baseline(tmp_path / "a.json", make_baseline([(result, arrays)], NOW))
    assert read_baseline(path).encoder.id == name
    assert len(folder(tmp_path)) == 2
