"""Several runs on one cache: none harms what another is writing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dune_bench.errors import TaskError, UsageError
from dune_bench.run.cache import FeatureCache, create_folder
from dune_bench.run.chunks import (
    SUFFIX,
    TEMPORARY,
    ChunkWriter,
    chunk_files,
    live_temporaries,
    remove_entry,
    verify_checksum,
)
from dune_bench.run.execute import execute
from dune_bench.run.request import RunRequest
from tests.run.fakes import Blocks, ToyEncoder, fake_registry
from tests.run.recorder import Recorder
from tests.run.test_chunks import DIGESTS, LAYOUT, arrays, cache_in, fill, write

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import sys
from pathlib import Path
from dune_bench.run.execute import execute
from dune_bench.run.request import RunRequest
from tests.run.fakes import fake_registry
from tests.run.kill_target import SlowEncoder
from tests.run.recorder import Recorder

print("ready", flush=True)
sys.stdin.readline()
ui = Recorder()
request = RunRequest(encoders=(SlowEncoder(),), runs=Path(sys.argv[1]), batch_size=4)
summary = execute(request, ui, fake_registry())
print(int(summary.exit_code), [outcome.result.error for outcome in summary.outcomes], ui.warnings)
"""

HALF = """
import sys
from pathlib import Path
from dune_bench.run.chunks import ChunkWriter
from tests.run.test_chunks import DIGESTS, LAYOUT, arrays

patch, cls = arrays()
with ChunkWriter(Path(sys.argv[1]), DIGESTS, LAYOUT) as writer:
    writer.add(patch[:1], cls[:1])
    print("half", flush=True)
    sys.stdin.readline()
    writer.add(patch[1:], cls[1:])
    print(writer.commit().path.name, flush=True)
"""


def start(program: str, argument: Path | str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(argument)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_runs_at_once_on_one_cache_both_finish() -> None:
    with start(RUN, "runs_a") as a, start(RUN, "runs_b") as b:
        assert (line(a), line(b)) == ("ready", "ready")
        go(a)
        deadline = time.monotonic() + 30
        while not list(Path("cache").rglob(f"{TEMPORARY}*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        go(b)
        assert [line(a), line(b)] == ["0 [None] []"] * 2
    files = [path for path in Path("cache/features").rglob("*") if path.is_file()]
    assert files
    assert all(path.name.endswith(SUFFIX) and not path.name.startswith(".") for path in files)


def test_other_process_reads_evicts_and_forgets_around_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, warnings = cache_in(tmp_path)
    entry = cache.entry("ab12")
    with start(HALF, entry.folder) as other:
        assert line(other) == "half"
        [temporary] = live_temporaries(entry.folder)
        os.utime(entry.folder, (10, 10))
        assert entry.find([DIGESTS]) == {}
        monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", str(2 * temporary.stat().st_size + 100))
        assert cache.make_room(100, keep=()) == []
        entry.forget()
        remove_entry(entry.folder)
        assert live_temporaries(entry.folder) == [temporary]
        go(other)
        name = line(other)
    assert [path.name for path in entry.folder.iterdir()] == [name]
    verify_checksum(entry.folder / name)
    assert entry.find([DIGESTS]).keys() == set(DIGESTS)
    assert warnings == []


def test_two_writers_of_one_chunk_both_succeed(tmp_path: Path) -> None:
    patch, cls = arrays()
    with ChunkWriter(tmp_path, DIGESTS, LAYOUT) as a, ChunkWriter(tmp_path, DIGESTS, LAYOUT) as b:
        assert chunk_files(tmp_path) == []
        a.add(patch[:2], cls[:2])
        b.add(patch, cls)
        a.add(patch[2:], cls[2:])
        first, second = a.commit(), b.commit()
    assert list(tmp_path.iterdir()) == [first.path] == [second.path]
    verify_checksum(first.path)
    np.testing.assert_array_equal(first.patch, patch)
    np.testing.assert_array_equal(second.patch, patch)


def test_writer_whose_finished_chunks_are_evicted_still_reads_them(tmp_path: Path) -> None:
    chunk = write(tmp_path / "entry")
    remove_entry(tmp_path / "entry")
    assert not (tmp_path / "entry").exists()
    np.testing.assert_array_equal(chunk.patch, arrays()[0])


def test_folder_that_vanishes_as_a_writer_starts_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, vanished = Path.open, []

    def evicted(self: Path, *args: object, **options: object) -> object:
        if self.name.startswith(TEMPORARY) and not vanished:
            vanished.append(self)
            self.parent.rmdir()
        return opened(self, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", evicted)
    verify_checksum(write(tmp_path / "entry").path)
    assert len(vanished) == 1


def test_chunk_that_another_process_removes_while_it_is_looked_at_is_absent_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, warnings = cache_in(tmp_path)
    entry = cache.entry("ab12")
    write(entry.folder)
    monkeypatch.setattr(
        "dune_bench.run.cache.chunk_files", lambda folder: [folder / f"gone{SUFFIX}", *chunk_files(folder)]
    )
    assert entry.find([("aa", "zz")]).keys() == {"aa"}
    assert warnings == []


def test_busy_entry_counts_towards_the_budget(tmp_path: Path) -> None:
    cache, _ = cache_in(tmp_path)
    folder = fill(cache, "aa1", 10)
    with ChunkWriter(folder, ("new",), LAYOUT):
        [entry] = cache.entries()
        assert entry.busy
        assert entry.size == sum(path.stat().st_size for path in folder.iterdir())
    assert not cache.entries()[0].busy


@pytest.mark.parametrize(
    ("code", "full"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.ENOENT, False), (errno.EACCES, False)],
)
def test_only_a_full_disk_is_told_to_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, full: bool
) -> None:
    def failing(self: Path, *args: object, **options: object) -> object:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(TaskError, match=os.strerror(code)) as caught:
        write(tmp_path)
    assert ("free space" in str(caught.value)) == full
    assert "DUNE_BENCH_CACHE" in str(caught.value)


def test_cache_that_cannot_be_created_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = FeatureCache(tmp_path / "file" / "features", lambda text: None)
    with pytest.raises(TaskError, match="cannot be created: Not a directory: set DUNE_BENCH_CACHE") as caught:
        cache.make_room(1, keep=())
    assert "free" not in str(caught.value)


def test_unreadable_budget_is_refused_before_the_runs_folder_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE_BYTES", "lots")
    with pytest.raises(UsageError, match="DUNE_BENCH_CACHE_BYTES=lots"):
        execute(RunRequest(encoders=(ToyEncoder(),)), Recorder(), fake_registry())
    assert not Path("runs").exists()
    assert Blocks.decoded == []


def test_uncreatable_cache_is_one_line_also_for_a_scratch_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TaskError, match="cannot be created"):
        create_folder(tmp_path / "file" / "scratch")
