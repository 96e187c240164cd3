from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.errors import TaskError, UsageError
from dune_bench.run.cache import FeatureCache, human
from dune_bench.run.chunks import (
    TEMPORARY,
    Chunk,
    ChunkWriter,
    DamagedChunkError,
    Layout,
    chunk_name,
    remove_leftovers,
    verify_checksum,
)

LAYOUT = Layout(dim=3, grid=(2, 2), image_size=(28, 28), padding=(0, 0, 0, 0), has_cls=True)
DIGESTS = ("aa", "bb", "cc")


def arrays(n: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((n, 2, 2, 3), np.float32), rng.random((n, 3), np.float32)


def write(folder: Path, digests: tuple[str, ...] = DIGESTS, seed: int = 0) -> Chunk:
    patch, cls = arrays(len(digests), seed)
    with ChunkWriter(folder, digests, LAYOUT) as writer:
        writer.add(patch[:1], cls[:1])
        if len(digests) > 1:
            writer.add(patch[1:], cls[1:])
        return writer.commit()


def cache_in(tmp_path: Path) -> tuple[FeatureCache, list[str]]:
    warnings: list[str] = []
    return FeatureCache(tmp_path, warnings.append), warnings


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    chunk = write(tmp_path)
    patch, cls = arrays()
    assert chunk.cls is not None
    np.testing.assert_array_equal(chunk.patch, patch)
    np.testing.assert_array_equal(chunk.cls, cls)
    assert chunk.header.digests == DIGESTS
    assert chunk.header.layout == LAYOUT
    verify_checksum(chunk.path)


def test_reader_that_writes_into_its_features_does_not_change_the_cache(tmp_path: Path) -> None:
    chunk = write(tmp_path)
    chunk.patch[:] = 7
    np.testing.assert_array_equal(Chunk(chunk.path).patch, arrays()[0])
    verify_checksum(chunk.path)


def test_unfinished_chunk_is_never_seen(tmp_path: Path) -> None:
    patch, cls = arrays()
    with ChunkWriter(tmp_path, DIGESTS, LAYOUT) as writer:
        writer.add(patch[:2], cls[:2])
        with pytest.raises(TaskError, match="2 of 3 images"):
            writer.commit()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_is_served(
    tmp_path_factory: pytest.TempPathFactory, position: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("chunk")
    path = write(folder).path
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    path.write_bytes(data)
    cache, warnings = cache_in(folder)
    assert cache.open(path) is None
    assert len(warnings) == 1
    assert "computing it again" in warnings[0]
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 5, 47, 60, 4096, -1])
def test_cut_off_file_is_damaged_not_a_crash(tmp_path: Path, size: int) -> None:
    path = write(tmp_path).path
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedChunkError):
        Chunk(path)


def test_damaged_entry_is_found_again_after_it_was_rebuilt(tmp_path: Path) -> None:
    cache, warnings = cache_in(tmp_path)
    entry = cache.entry("ab12")
    path = write(entry.folder).path
    assert entry.find([DIGESTS]).keys() == set(DIGESTS)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert cache.entry("ab12").find([DIGESTS]) == {}
    assert len(warnings) == 1
    write(entry.folder)
    assert cache.entry("ab12").find([DIGESTS]).keys() == set(DIGESTS)


def test_image_is_found_whatever_chunk_it_was_computed_in(tmp_path: Path) -> None:
    cache, _ = cache_in(tmp_path)
    entry = cache.entry("ab12")
    write(entry.folder, ("aa", "cc"), seed=1)
    rows = entry.find([("aa", "bb"), ("cc", "dd")])
    assert rows.keys() == {"aa", "cc"}
    chunk, row = rows["cc"]
    np.testing.assert_array_equal(chunk.patch[row], arrays(2, 1)[0][1])


def test_exact_chunk_is_preferred_to_another_with_the_same_image(tmp_path: Path) -> None:
    """A resumed run must read what an undisturbed one reads, bit for bit."""
    cache, _ = cache_in(tmp_path)
    entry = cache.entry("ab12")
    write(entry.folder, ("aa",), seed=1)
    exact = write(entry.folder, ("aa", "bb"), seed=2)
    rows = entry.find([("aa", "bb")])
    assert rows["aa"][0].path == exact.path


def test_shape_that_changes_between_batches_is_refused(tmp_path: Path) -> None:
    with (
        ChunkWriter(tmp_path, DIGESTS, LAYOUT) as writer,
        pytest.raises(TaskError, match="changed their shape"),
    ):
        writer.add(np.zeros((1, 2, 3, 3), np.float32), np.zeros((1, 3), np.float32))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(self: Path, *args: object, **options: object) -> object:
        return opened(Path("/dev/full") if self.name.startswith(TEMPORARY) else self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(
        TaskError, match="No space left on device: free space there or set DUNE_BENCH_CACHE"
    ) as caught:
        write(tmp_path)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_dead_processes_go_and_of_living_ones_stay(tmp_path: Path) -> None:
    import socket
    import subprocess
    import sys

    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    host = socket.gethostname()
    dead = [tmp_path / f"{TEMPORARY}{host}-{done.pid}-x{end}" for end in (".features", ".0a1b.part")]
    alive = [tmp_path / f"{TEMPORARY}{host}-{os.getpid()}-x{end}" for end in (".features", ".0a1b.part")]
    # A host whose name begins as ours and goes on with a number that is a dead process here.
    elsewhere = tmp_path / f"{TEMPORARY}{host}-{done.pid}-{done.pid}-x.0a1b.part"
    for path in (*dead, *alive, elsewhere):
        path.touch()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*alive, elsewhere])


def fill(cache: FeatureCache, key: str, used: float) -> Path:
    folder = cache.entry(key).folder
    write(folder)
    os.utime(folder, (used, used))
    return folder


def test_least_recently_used_goes_first_and_what_is_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = cache_in(tmp_path)
    old, middle, new = (fill(cache, key, used) for key, used in (("aa1", 10), ("bb1", 20), ("cc1", 30)))
    size = cache.entries()[0].size
    monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", str(3 * size))
    gone = cache.make_room(size, keep={old})
    assert [entry.path for entry in gone] == [middle]
    assert [entry.path for entry in cache.entries()] == [old, new]


def test_run_that_cannot_fit_evicts_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = cache_in(tmp_path)
    fill(cache, "aa1", 10)
    monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", "10 kB")
    with pytest.raises(
        TaskError, match=r"need 12.0 kB, the cache .* may hold 10.0 kB .*DUNE_BENCH_CACHE_BYTES"
    ):
        cache.make_room(12_000, keep=set())
    assert len(cache.entries()) == 1


def test_entry_that_another_process_writes_to_is_not_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = cache_in(tmp_path)
    busy, idle = fill(cache, "aa1", 10), fill(cache, "bb1", 20)
    size = cache.entries()[0].size
    with ChunkWriter(busy, ("new",), LAYOUT):
        os.utime(busy, (10, 10))
        monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", str(size * 5 // 2))
        gone = cache.make_room(size, keep=set())
    assert [entry.path for entry in gone] == [idle]


def test_use_makes_an_entry_recent(tmp_path: Path) -> None:
    cache, _ = cache_in(tmp_path)
    fill(cache, "aa1", 10)
    fill(cache, "bb1", 20)
    cache.entry("aa1").find([DIGESTS])
    assert [entry.path.name for entry in cache.entries()] == ["bb1", "aa1"]


@pytest.mark.parametrize("text", ["much", "-5", "5 XB", ""])
def test_unreadable_budget_is_not_taken_for_no_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", text)
    with pytest.raises(UsageError, match="DUNE_BENCH_CACHE_BYTES"):
        cache_in(tmp_path)[0].make_room(1, keep=set())


def test_sizes_read_as_people_write_them() -> None:
    assert [human(x) for x in (0, 999, 1500, 2.5e6, 5e10, 3e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "50.0 GB",
        "3.0 TB",
    ]


def test_name_of_a_chunk_depends_on_order_and_content() -> None:
    assert len({chunk_name(d) for d in (("a", "b"), ("b", "a"), ("a",), ("ab",))}) == 4
