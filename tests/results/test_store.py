from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dune_bench.errors import TaskError
from dune_bench.results import store as module
from dune_bench.results.store import ResultStore, pack_arrays, safe_name, write_atomic
from tests.results.example import example

ARRAYS = {"id": np.array(["a", "b"]), "se": np.array([0.5, 1.5])}


def test_result_and_statistics_come_back_exactly(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path = store.write(example(), ARRAYS)
    result = store.read(path)
    assert result.model_copy(update={"samples": None}) == example()
    assert result.samples is not None
    assert result.samples.rows == 2
    for name, array in store.arrays(path, result).items():
        np.testing.assert_array_equal(array, ARRAYS[name])
    assert store.find("toy", result.task.id, result.key) == result


def test_another_identity_is_not_found(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(example(), ARRAYS)
    key = example().key
    assert store.find("toy", "depth/x/convex@1", "0" + key[1:]) is None
    # The same first 12 digits, which name the file, are not the same key.
    assert store.find("toy", example().task.id, key[:12] + "f" * 52) is None
    assert store.find("other", example().task.id, key) is None


def test_results_of_two_identities_live_side_by_side(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    store.write(example(), ARRAYS)
    store.write(example(key="b" * 64), ARRAYS)
    good, refused = store.load()
    assert (len(good), refused) == (2, [])


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "flip"])
def test_damaged_result_counts_as_absent(tmp_path: Path, suffix: str, damage: str) -> None:
    store = ResultStore(tmp_path)
    path = store.write(example(), ARRAYS)
    victim = path.with_suffix(suffix)
    data = victim.read_bytes()
    if damage == "gone":
        victim.unlink()
    else:
        bad = {"cut": data[:-20], "empty": b"", "flip": b"\xff" + data[1:]}[damage]
        victim.write_bytes(bad)
    assert store.find("toy", example().task.id, example().key) is None


def test_one_bad_file_does_not_hide_the_good_ones(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path = store.write(example(), ARRAYS)
    (path.parent / "zz.json").write_text("{")
    (path.parent / "deep.json").write_text("[" * 100_000)
    (path.parent / "foreign.json").write_text('{"schema": "1.0"}')
    good, refused = store.load()
    assert [p for p, _ in good] == [path]
    assert sorted(r.path.name for r in refused) == ["deep.json", "foreign.json", "zz.json"]
    for entry in refused:
        assert entry.reason.startswith(f"{entry.path.relative_to(tmp_path).as_posix()}: ")
        assert "\n" not in entry.reason


def test_statistics_of_another_run_are_refused(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path = store.write(example(), ARRAYS)
    path.with_suffix(".npz").write_bytes(pack_arrays({"se": np.array([0.0, 0.0])}))
    with pytest.raises(TaskError, match="changed after the run"):
        store.arrays(path, store.read(path))


def test_result_cannot_point_to_a_file_elsewhere(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    path = store.write(example(), ARRAYS)
    raw = json.loads(path.read_text())
    secret = tmp_path / "secret.npz"
    path.with_suffix(".npz").rename(secret)
    raw["samples"]["file"] = str(secret)
    path.write_text(json.dumps(raw))
    with pytest.raises(TaskError, match="cannot read"):
        store.arrays(path, store.read(path))


def test_statistics_with_pickles_are_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        pack_arrays({"x": np.array([{}], dtype=object)})


def test_statistics_must_be_there_exactly_for_good_results(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    with pytest.raises(TaskError, match="statistics"):
        store.write(example())
    failed = example(status="failed", error="why", metrics=())
    with pytest.raises(TaskError, match="statistics"):
        store.write(failed, ARRAYS)
    with pytest.raises(TaskError, match="different lengths"):
        store.write(example(), {"a": np.zeros(2), "b": np.zeros(3)})
    assert list(tmp_path.rglob("*.json")) == []


def test_failed_result_overwrites_an_earlier_failure_of_the_same_identity(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    first = store.write(example(status="failed", error="one", metrics=()))
    second = store.write(example(status="failed", error="two", metrics=()))
    assert first == second
    assert store.read(first).error == "two"


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.int64, np.bool_, np.float32]),
        hnp.array_shapes(max_dims=3, max_side=4),
    )
)
def test_packed_arrays_depend_on_their_content_only(array: np.ndarray) -> None:
    pair = {"a": array, "b": array[:1]}
    backwards = dict(reversed(pair.items()))
    data = pack_arrays(pair)
    assert data == pack_arrays(backwards)
    import io

    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["a"], array)
        assert archive["a"].dtype == array.dtype
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


@given(st.text(min_size=1, max_size=200))
def test_any_name_becomes_a_plain_file_name(name: str) -> None:
    safe = safe_name(name)
    assert safe == Path(safe).name
    assert 1 <= len(safe) <= 120
    assert not safe.startswith(".")
    assert safe.isascii()


def test_names_that_look_alike_stay_apart() -> None:
    names = ["a b", "a-b", "a_b", "a\nb", "ä", "ö", "semseg/x/y@1", "x" * 300, "x" * 301, ".hidden", "hidden"]
    assert len({safe_name(name) for name in names}) == len(names)


def test_full_disk_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(TaskError, match=r"cannot write .*a\.json: No space left on device: free space"):
        write_atomic(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


def test_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TaskError, match="cannot write"):
        write_atomic(tmp_path / "file" / "a.json", b"")


def test_death_while_writing_leaves_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the statistics and the JSON: the result is absent, not half there."""
    calls = []

    def dying(path: Path, data: bytes) -> None:
        calls.append(path)
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write_atomic(path, data)

    monkeypatch.setattr(module, "write_atomic", dying)
    store = ResultStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.write(example(), ARRAYS)
    assert [p.suffix for p in calls] == [".npz", ".json"]
    assert store.load() == ([], [])
