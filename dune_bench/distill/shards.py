"""Images in plain tar files, as WebDataset writes them: read in place by offset, never unpacked.

The members of every shard are listed once.  With a folder for indices they are listed once for all: over
terabytes that is the difference between an hour and a second.
"""

from __future__ import annotations

import os
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.images import decode_image
from dune_bench.distill.sources import SUFFIXES, PackedNames, printable, read_bytes
from dune_bench.errors import TaskError, UnavailableError, UsageError

MAX_SHARDS = 1_000_000
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, IndexError, struct.error)
"""What tarfile raises on damaged bytes."""
_INDEX_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
_BLOCK = 512
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class _Index:
    """Plain files of one shard.  offsets, sizes: int64 (N,), bytes."""

    names: PackedNames
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def only(self, suffixes: tuple[str, ...]) -> _Index:
        """Those whose names have one of these endings."""
        kept = [i for i, name in enumerate(self.names) if name.lower().endswith(suffixes)]
        return _Index(PackedNames(self.names[i] for i in kept), self.offsets[kept], self.sizes[kept])


class TarShards:
    """The images of tar files, shard by shard, in the order in which they stand.

    suffixes: endings of member names that count; `.rgb.png` takes one of several images of a sample.
    index: a folder in which to keep the lists of members; a list is made anew if its shard has changed.

    Raises UnavailableError for a missing shard; UsageError if there is no shard, or no image in them;
    TaskError for a shard that is damaged, cut off or compressed, or has a member that is a link or whose
    name leads out of the archive.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        name: str | None = None,
        suffixes: Sequence[str] = SUFFIXES,
        index: Path | None = None,
    ) -> None:
        if not shards:
            raise UsageError("a source of tar shards names no shard")
        self.name = name or shards[0].parent.name
        self._shards = tuple(shards)
        wanted = tuple(suffix.lower() for suffix in suffixes)
        self._parts = [_indexed(shard, index).only(wanted) for shard in shards]
        self._ends = np.array(list(accumulate(len(part.names) for part in self._parts)))
        if not len(self):
            raise UsageError(
                f"{shards[0]} ({len(shards)} shard(s)): no image ({', '.join(suffixes)}) in them; "
                f"correct `suffixes` or `shards`"
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the shard, and of the image in it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, index - (int(self._ends[shard - 1]) if shard else 0)

    def describe(self, index: int) -> str:
        shard, place = self._place(index)
        return printable(f"{self._shards[shard].name}: {self._parts[shard].names[place]}")

    def read(self, index: int) -> NDArray[np.uint8]:
        shard, place = self._place(index)
        part, name = self._parts[shard], self.describe(index)
        # Opened anew: a kept file would have to be told apart in every forked process.
        data = read_bytes(self._shards[shard], name, int(part.offsets[place]), int(part.sizes[place]))
        return decode_image(data, name)


def shard_paths(patterns: Sequence[str], base: Path) -> tuple[Path, ...]:
    """Shards from names with `{000..099}` and `*`, relative to `base`, in order.

    Raises UsageError for a pattern that fits no file; a name without `*` is taken as it is.
    """
    found: list[Path] = []
    for pattern in patterns:
        for name in _expanded(pattern):
            path = base / Path(name).expanduser()
            if not any(mark in name for mark in "*?["):
                found.append(path)
                continue
            anchor = Path(path.anchor)
            matches = sorted(anchor.glob(path.relative_to(anchor).as_posix()))
            if not matches:
                raise UsageError(f"{path}: no shard has such a name; correct `shards`")
            found += matches
        if len(found) > MAX_SHARDS:
            raise UsageError(f"{pattern!r}: more than {MAX_SHARDS} shards; correct `shards`")
    return tuple(found)


def _expanded(pattern: str) -> Iterator[str]:
    """The names that `a-{00..12}.tar` stands for; numbers are as wide as the first one."""
    match = _RANGE.search(pattern)
    if not match:
        yield pattern
        return
    first, last = int(match[1]), int(match[2])
    if last < first or last - first >= MAX_SHARDS:
        raise UsageError(f"{pattern!r}: the range {match[0]} is empty or too long; correct `shards`")
    for number in range(first, last + 1):
        yield from _expanded(f"{pattern[: match.start()]}{number:0{len(match[1])}d}{pattern[match.end() :]}")


def _indexed(shard: Path, folder: Path | None) -> _Index:
    """The members of a shard, from the stored index if that fits."""
    try:
        status = shard.stat()
    except FileNotFoundError as error:
        raise UnavailableError(f"{shard}: no such shard; get the data or correct `shards`") from error
    if folder is None:
        return _listed(shard)
    stamp = (status.st_size, status.st_mtime_ns)
    file = folder / f"{shard.name}.index.npz"
    stored = _stored(file, stamp)
    if stored is None:
        stored = _listed(shard)
        _store(file, stored, stamp)
    return stored


def _stored(file: Path, stamp: tuple[int, int]) -> _Index | None:
    """None: there is no index, or it is damaged or of other bytes."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            if tuple(arrays["stamp"].tolist()) != stamp:
                return None
            names = PackedNames.restored(arrays["names"].tobytes(), arrays["ends"])
            offsets, sizes = arrays["offsets"], arrays["sizes"]
    except _INDEX_ERRORS:
        return None
    shaped = offsets.shape == sizes.shape == (len(names),)
    if not shaped or (offsets < 0).any() or (sizes < 0).any() or (offsets + sizes > stamp[0]).any():
        return None
    return _Index(names, offsets, sizes)


def _store(file: Path, index: _Index, stamp: tuple[int, int]) -> None:
    """Written under another name first: a process that starts beside must not read half of it."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.savez(
                stream,
                stamp=np.array(stamp, np.int64),
                names=np.frombuffer(index.names.blob, np.uint8),
                ends=index.names.ends,
                offsets=index.offsets,
                sizes=index.sizes,
            )
        partial.replace(file)
    except OSError as error:
        raise UsageError(f"{file}: cannot write the index of a shard: {error.strerror}") from error


def _listed(shard: Path) -> _Index:
    """Goes through the headers of a shard."""
    names: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            last = -1
            while (member := archive.next()) is not None:
                # A crafted size can make tarfile go backwards for ever.
                if archive.offset <= last:
                    raise TaskError(f"{shard}: {printable(member.name)!r} has an impossible size")
                last = archive.offset
                if member.isdir():
                    continue
                _check_member(shard, member)
                if member.name in names:
                    raise TaskError(
                        f"{shard}: the member {printable(member.name)!r} stands twice; pack it anew"
                    )
                names[member.name] = (member.offset_data, member.size)
            end = archive.offset
        _check_end(shard, end)
    except _TAR_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TaskError(
            f"{shard}: not a whole plain tar file ({reason}); get it again, or decompress a .tar.gz: "
            f"images are read in place"
        ) from error
    places = np.array(list(names.values()), np.int64).reshape(-1, 2)
    return _Index(PackedNames(names), places[:, 0].copy(), places[:, 1].copy())


def _check_member(shard: Path, member: tarfile.TarInfo) -> None:
    """Refuses what a shard of images never has.  Nothing is unpacked, but names go into logs and lists."""
    shown = printable(member.name)
    if not member.isreg() or member.issparse():
        raise TaskError(f"{shard}: the member {shown!r} is a link, a device or sparse: pack plain files only")
    parts = PurePosixPath(member.name).parts
    outside = member.name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", member.name)
    if not parts or outside or "\\" in member.name or any(ord(c) < 32 for c in member.name):
        raise TaskError(f"{shard}: the member name {shown!r} is not a plain path inside the archive; refused")


def _check_end(shard: Path, end: int) -> None:
    """tarfile takes a damaged header, or none at all, for the end: only zeros are."""
    with shard.open("rb") as stream:
        stream.seek(end)
        block = stream.read(_BLOCK)
    if len(block) < _BLOCK:
        raise TaskError(f"{shard}: cut off at byte {end}, before the end mark; get it again")
    if any(block):
        raise TaskError(f"{shard}: a damaged header at byte {end} hides what follows; get it again")
