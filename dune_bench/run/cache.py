"""The feature cache: content-addressed entries of chunks, checked when opened, within a byte budget.

An entry is a folder named by the feature key (encoder, view, input); in it images are found by their
content hash.  Entries are evicted least recently used first, never those of the present encoder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import TaskError, UsageError
from dune_bench.run.chunks import (
    Chunk,
    DamagedChunkError,
    Header,
    chunk_files,
    chunk_name,
    live_temporaries,
    read_header,
    remove_entry,
    remove_leftovers,
    verify_checksum,
)

BUDGET_VARIABLE = "DUNE_BENCH_CACHE_BYTES"
DEFAULT_BUDGET = 50 * 10**9
FREE_SHARE = 0.8
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

Row = tuple[Chunk, int]
"""Where the features of an image are: a chunk, and the row in it."""


@dataclass(frozen=True)
class EntryUse:
    """Size in bytes and last use (seconds since the epoch) of an entry.  busy: a process is writing
    to it, so that it must not go."""

    path: Path
    size: int
    used: float
    busy: bool = False


def create_folder(folder: Path) -> None:
    """Makes a folder of the cache.  Raises TaskError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TaskError(
            f"the cache {folder} cannot be created: {error.strerror or error}: set DUNE_BENCH_CACHE "
            "to a folder that can be written"
        ) from error


class FeatureCache:
    """The entries below one folder.

    warn: told, in one line, of every damaged file that is thrown away.
    """

    def __init__(self, root: Path, warn: Callable[[str], None]) -> None:
        self.root = root
        self._warn = warn
        self._verified: set[tuple[Path, int, int, int]] = set()

    def entry(self, key: str) -> Entry:
        return Entry(self, self.root / key[:2] / key)

    def entries(self) -> list[EntryUse]:
        """Every entry, least recently used first."""
        found = []
        for folder in self.root.glob("??/*"):
            remove_leftovers(folder)
            writing = live_temporaries(folder)
            size = sum(_size(file) for file in (*writing, *chunk_files(folder)))
            try:
                found.append(EntryUse(folder, size, folder.stat().st_mtime, bool(writing)))
            except FileNotFoundError:  # another process evicted it meanwhile
                continue
        return sorted(found, key=lambda entry: (entry.used, entry.path))

    def make_room(self, needed: int, keep: Collection[Path]) -> list[EntryUse]:
        """Evicts until `needed` more bytes fit the budget and the disk; returns what went.

        keep: entries in use.  What another live process is writing stays.  Raises TaskError if it
        cannot fit, or the cache cannot be created, before anything is evicted.
        """
        if needed:
            create_folder(self.root)
        entries = self.entries()
        allowed, free = budget(self.root, entries), _free(self.root)
        held = sum(entry.size for entry in entries)
        evictable = [entry for entry in entries if entry.path not in keep and not entry.busy]
        floor = held - sum(entry.size for entry in evictable)
        if needed and (floor + needed > allowed or needed > free + held - floor):
            raise TaskError(
                f"the features of this encoder need {human(floor + needed)}, the cache {self.root} may hold "
                f"{human(allowed)} ({human(free)} free on the disk): set {BUDGET_VARIABLE}, choose another "
                "disk with DUNE_BENCH_CACHE, or use --limit"
            )
        gone = []
        for entry in evictable:
            if held + needed <= allowed and needed <= free:
                break
            remove_entry(entry.path)
            held, free = held - entry.size, free + entry.size
            gone.append(entry)
        return gone

    def open(self, path: Path) -> Chunk | None:
        """A chunk whose checksum holds (checked once per process and file), or None: a damaged one
        is removed with a warning."""
        try:
            stat = path.stat()
            known = (path, stat.st_size, stat.st_mtime_ns, stat.st_ino)
            if known not in self._verified:
                verify_checksum(path)
                self._verified.add(known)
            return Chunk(path)
        except FileNotFoundError:
            return None
        except DamagedChunkError as error:
            self.discard(path, error)
            return None

    def discard(self, path: Path, error: DamagedChunkError) -> None:
        self._warn(f"{error}: computing it again")
        path.unlink(missing_ok=True)


class Entry:
    """Features of one encoder in one view at one input, by image digest."""

    def __init__(self, cache: FeatureCache, folder: Path) -> None:
        self.folder = folder
        self._cache = cache
        self._chunks: dict[str, Chunk] = {}

    def find(self, chunks: Sequence[Sequence[str]]) -> dict[str, Row]:
        """Rows of the images that are here and sound.

        chunks: digests, as this run would group them.  A file that holds exactly such a group is
        preferred, so that a resumed run reads what an undisturbed one does.
        """
        if not self.folder.is_dir():
            return {}
        remove_leftovers(self.folder)
        rows: dict[str, Row] = {}
        for digests in chunks:
            self._add(rows, self.folder / chunk_name(digests), set(digests))
        missing = {digest for digests in chunks for digest in digests} - rows.keys()
        if missing:
            for path in chunk_files(self.folder):
                header = self._header(path)
                if header is not None and not missing.isdisjoint(header.digests):
                    self._add(rows, path, missing)
                    missing -= rows.keys()
        with suppress(FileNotFoundError):  # evicted meanwhile; what was opened stays readable
            os.utime(self.folder)
        return rows

    def forget(self) -> None:
        """Removes everything of the entry, except what another live process is writing."""
        remove_entry(self.folder)
        self._chunks.clear()

    def _add(self, rows: dict[str, Row], path: Path, wanted: Collection[str]) -> None:
        if path.name not in self._chunks:
            chunk = self._cache.open(path) if path.is_file() else None
            if chunk is None:
                return
            self._chunks[path.name] = chunk
        chunk = self._chunks[path.name]
        for row, digest in enumerate(chunk.header.digests):
            if digest in wanted:
                rows.setdefault(digest, (chunk, row))

    def _header(self, path: Path) -> Header | None:
        try:
            return read_header(path)[0]
        except FileNotFoundError:
            return None
        except DamagedChunkError as error:
            self._cache.discard(path, error)
            return None


def budget(root: Path, entries: Sequence[EntryUse]) -> int:
    """Bytes the cache may hold: `$DUNE_BENCH_CACHE_BYTES`, else 50 GB or 80 % of what the disk has
    left with the cache emptied, whichever is less.  Raises UsageError for an unreadable value."""
    chosen = chosen_budget()
    if chosen is not None:
        return chosen
    return min(DEFAULT_BUDGET, int(FREE_SHARE * (_free(root) + sum(entry.size for entry in entries))))


def chosen_budget() -> int | None:
    """`$DUNE_BENCH_CACHE_BYTES` in bytes, None if not set.  Raises UsageError for an unreadable value."""
    text = os.environ.get(BUDGET_VARIABLE)
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?) ?([KMGT]?B)?\s*", text, re.IGNORECASE)
    if not match:
        raise UsageError(f"{BUDGET_VARIABLE}={text}: write a number of bytes, or a size such as 20 GB")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def human(size: float) -> str:
    """A size in decimal units: `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _size(path: Path) -> int:
    """Bytes of a file; none of one that another process removed or renamed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _free(root: Path) -> int:
    place = root
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
