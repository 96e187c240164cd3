"""One chunk of features on disk: some images, one view, checksummed, memory-mapped.

Layout: magic (8 bytes), sha256 of all that follows it (32), header length (u64, little endian),
header (JSON), zeros up to a multiple of 4096, patch tokens float32 (n, h, w, C), then class
tokens float32 (n, C) if there are any.  A file is complete or absent: it is written under a temporary
name, synced, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
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
    """(header, offset of the payload).  Raises DamagedChunkError; checks no checksum."""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
            length = int.from_bytes(start[-8:], "little")
            if start[: len(MAGIC)] != MAGIC or len(start) < _START or length > 2**26:
                raise DamagedChunkError(f"{path}: not a features file")
            header = _parse(json.loads(file.read(length)))
    except OSError as error:
        raise DamagedChunkError(f"{path}: cannot read it: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedChunkError(f"{path}: damaged header") from error
    offset = -(-(_START + length) // _ALIGN) * _ALIGN
    expected = offset + len(header.digests) * header.layout.image_bytes
    actual = path.stat().st_size
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

    As a context manager it leaves no temporary file behind.  Raises TaskError if the disk is full.
    """

    def __init__(self, folder: Path, digests: Sequence[str], layout: Layout) -> None:
        self.path = folder / chunk_name(digests)
        self._temporary = folder / f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{self.path.name}"
        self._layout, self._rows, self._written = layout, len(digests), 0
        self._cls: list[F32] = []
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        header = json.dumps({"digests": list(digests), "layout": asdict(layout)}).encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
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
        """Makes the chunk visible under its name, complete, and opens it."""
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
            self._temporary.replace(self.path)
        except OSError as error:
            self._abandon()
            raise _cannot_write(self.path.parent, error) from error
        self._file = None
        return Chunk(self.path)

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


def _cannot_write(folder: Path, error: OSError) -> TaskError:
    return TaskError(
        f"cannot write features to {folder}: {error.strerror or error}: free space there or set "
        "DUNE_BENCH_CACHE to another disk, and run again (what is computed stays)"
    )


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of processes of this host that no longer live."""
    own = f"{TEMPORARY}{socket.gethostname()}-"
    for path in folder.glob(f"{own}*"):
        pid = path.name.removeprefix(own).partition("-")[0]
        if pid.isdecimal() and not process_lives(int(pid)):
            path.unlink(missing_ok=True)


def process_lives(pid: int) -> bool:
    """Whether a process of this host is running."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
