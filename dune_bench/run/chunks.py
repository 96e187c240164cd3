"""One chunk of features on disk: some images, one view, checksummed, memory-mapped.

Layout: magic (8 bytes), sha256 of all that follows it (32), header length (u64, little endian),
header (JSON), zeros up to a multiple of 4096, patch tokens float32 (n, h, w, C), then class
tokens float32 (n, C) if there are any.  A file is complete or absent: it is written under a temporary
name, synced, and renamed.  Processes may share a folder: a temporary file has one writer and is touched
by nobody else while that lives, and of two writers of one chunk the last wins, with equal content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.registry.cards import fingerprint

MAGIC = b"DUNEFT01"
SUFFIX = ".features"
TEMPORARY = ".writing-"
_ALIGN = 4096
_START = len(MAGIC) + 32 + 8
_BLOCK = 4 * 2**20
_ATTEMPTS = 10

F32 = NDArray[np.float32]


class DamagedChunkError(TaskError):
    """A chunk file that cannot be trusted; the caller makes it anew."""


@dataclass(frozen=True)
class Layout:
    """Shape of the features of one image.  dim: C.  grid: (h, w).  image_size: (height, width) at
    network size.  padding: pixels (left, top, right, bottom).  has_cls: class tokens are there."""

    dim: int
    grid: tuple[int, int]
    image_size: tuple[int, int]
    padding: tuple[int, int, int, int]
    has_cls: bool

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return 4 * self.dim * (self.grid[0] * self.grid[1] + int(self.has_cls))


@dataclass(frozen=True)
class Header:
    """digests: content hash of each image, in the order of the rows."""

    digests: tuple[str, ...]
    layout: Layout


def chunk_name(digests: Sequence[str]) -> str:
    """The file name of a chunk: a digest of its images' digests."""
    return fingerprint(list(digests))[:24] + SUFFIX


def read_header(path: Path) -> tuple[Header, int]:
    """(header, offset of the payload).  Raises DamagedChunkError, or FileNotFoundError if another
    process removed the file; checks no checksum."""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
            length = int.from_bytes(start[-8:], "little")
            if start[: len(MAGIC)] != MAGIC or len(start) < _START or length > 2**26:
                raise DamagedChunkError(f"{path}: not a features file")
            header = _parse(json.loads(file.read(length)))
            actual = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedChunkError(f"{path}: cannot read it: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedChunkError(f"{path}: damaged header") from error
    offset = -(-(_START + length) // _ALIGN) * _ALIGN
    expected = offset + len(header.digests) * header.layout.image_bytes
    if actual != expected:
        raise DamagedChunkError(f"{path}: {actual} bytes, expected {expected}")
    return header, offset


def _parse(raw: Any) -> Header:
    layout = raw["layout"]
    h, w = layout["grid"]
    height, width = layout["image_size"]
    left, top, right, bottom = layout["padding"]
    return Header(
        tuple(raw["digests"]),
        Layout(
            dim=int(layout["dim"]),
            grid=(h, w),
            image_size=(height, width),
            padding=(left, top, right, bottom),
            has_cls=bool(layout["has_cls"]),
        ),
    )


def verify_checksum(path: Path) -> None:
    """Raises DamagedChunkError if the content is not what was written."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        stored = file.read(len(MAGIC) + 32)[len(MAGIC) :]
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.digest() != stored:
        raise DamagedChunkError(f"{path}: its checksum does not match")


class Chunk:
    """An open chunk.  patch: (n, h, w, C); cls: (n, C) or None; both mapped, copy on write, so that
    nothing a reader does reaches the file or another reader."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header, offset = read_header(path)
        layout, n = self.header.layout, len(self.header.digests)
        shape = (n, *layout.grid, layout.dim)
        self.patch: F32 = np.memmap(path, np.float32, "c", offset, shape)
        self.cls: F32 | None = None
        if layout.has_cls:
            self.cls = np.memmap(path, np.float32, "c", offset + self.patch.nbytes, (n, layout.dim))


class ChunkWriter:
    """Writes one chunk, batch by batch, in the order of `digests`.

    As a context manager it leaves no temporary file behind.  Raises TaskError if it cannot write, such
    as on a full disk.
    """

    def __init__(self, folder: Path, digests: Sequence[str], layout: Layout) -> None:
        self.path = folder / chunk_name(digests)
        self._temporary = folder / _temporary_name(self.path.stem)
        self._layout, self._rows, self._written = layout, len(digests), 0
        self._cls: list[F32] = []
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        header = json.dumps({"digests": list(digests), "layout": asdict(layout)}).encode()
        try:
            self._file = _create(self._temporary)
            self._file.write(MAGIC + bytes(32))
            self._put(len(header).to_bytes(8, "little") + header + bytes(-(_START + len(header)) % _ALIGN))
        except OSError as error:
            self._abandon()
            raise _cannot_write(folder, error) from error

    def add(self, patch: F32, cls: F32 | None) -> None:
        """patch: (B, h, w, C), C-contiguous.  cls: (B, C) exactly if the layout has class tokens."""
        layout = self._layout
        if patch.shape[1:] != (*layout.grid, layout.dim) or (cls is not None) != layout.has_cls:
            raise TaskError(
                f"features changed their shape between batches: {patch.shape[1:]} and "
                f"{(*layout.grid, layout.dim)}: the encoder's output must not depend on the batch"
            )
        try:
            self._put(np.ascontiguousarray(patch, dtype=np.float32).data.cast("B"))
        except OSError as error:
            self._abandon()
            raise _cannot_write(self.path.parent, error) from error
        self._written += len(patch)
        if cls is not None:
            self._cls.append(np.ascontiguousarray(cls, dtype=np.float32))

    def commit(self) -> Chunk:
        """Makes the chunk visible under its name, complete, and opens it.  What is opened stays
        readable even if another process evicts the entry the next moment."""
        if self._written != self._rows or self._file is None:
            raise TaskError(f"{self.path}: {self._written} of {self._rows} images written")
        try:
            for cls in self._cls:
                self._put(cls.data.cast("B"))
            self._file.seek(len(MAGIC))
            self._file.write(self._digest.digest())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            chunk = Chunk(self._temporary)
            chunk.path = self._temporary.replace(self.path)
        except OSError as error:
            self._abandon()
            raise _cannot_write(self.path.parent, error) from error
        self._file = None
        return chunk

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandon()

    def _put(self, data: bytes | memoryview) -> None:
        if self._file is None:
            raise TaskError(f"{self.path}: already closed")
        self._digest.update(data)
        self._file.write(data)

    def _abandon(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError:
            # Closing flushes, which fails again on a full disk; the file goes away anyway.
            pass
        finally:
            self._temporary.unlink(missing_ok=True)


def _create(path: Path) -> BinaryIO:
    """Opens a new file, in a folder that is made if need be.  An eviction may remove the folder, still
    empty, between the two steps: then again."""
    for _ in range(_ATTEMPTS):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.open("wb")
        except FileNotFoundError as error:
            last = error
    raise last


def _cannot_write(folder: Path, error: OSError) -> TaskError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free space there or set DUNE_BENCH_CACHE to another disk"
    else:
        advice = "make it a folder that can be written, or set DUNE_BENCH_CACHE to another one"
    return TaskError(
        f"cannot write features to {folder}: {error.strerror or error}: {advice}, and run again "
        "(what is computed stays)"
    )


def _temporary_name(stem: str) -> str:
    """Names the writing process; ends in no SUFFIX; differs for two writers of one process."""
    return f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{stem}.{secrets.token_hex(4)}.part"


def chunk_files(folder: Path) -> list[Path]:
    """The finished chunks of an entry, sorted; none if the folder is gone.  Temporary files, whatever
    their ending, are never among them: somebody may be writing them."""
    return [path for path in _files(folder) if path.name.endswith(SUFFIX) and not _is_temporary(path)]


def live_temporaries(folder: Path) -> list[Path]:
    """Temporary files whose process may live: on this host it does; of another host nobody knows."""
    return [path for path in _files(folder) if _is_temporary(path) and _may_live(path)]


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of processes of this host that no longer live."""
    for path in _files(folder):
        if _is_temporary(path) and not _may_live(path):
            path.unlink(missing_ok=True)


def remove_entry(folder: Path) -> None:
    """Removes an entry, except what live processes are writing there: their files keep the folder.
    Raises TaskError if files may not be removed."""
    remove_leftovers(folder)
    try:
        for path in chunk_files(folder):
            path.unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        pass  # another process removed it
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise TaskError(
                f"cannot remove {folder}: {error.strerror or error}: remove it, or set DUNE_BENCH_CACHE "
                "to a folder of your own"
            ) from error


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:  # another process evicted it
        return []


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(TEMPORARY)


def _may_live(path: Path) -> bool:
    # From the right, for a host's name may contain hyphens and digits: node-17 is not process 17 of node.
    parts = path.name.removeprefix(TEMPORARY).rsplit("-", 2)
    if len(parts) < 3 or parts[0] != socket.gethostname() or not parts[1].isdecimal():
        return True
    return process_lives(int(parts[1]))


def process_lives(pid: int) -> bool:
    """Whether a process of this host is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
