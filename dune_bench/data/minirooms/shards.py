"""Reading MiniRooms shards: uncompressed zip files, never unpacked, safe in forked workers.

A shard is opened once per process and file.  Handles are not shared over a fork, because forked
processes share a file's offset; what callers pass around is only (path, member).
"""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dune_bench.data.minirooms.depth_codec import decode_depth
from dune_bench.errors import TaskError, UnavailableError

MAX_MEMBER_BYTES = 8 << 20
MAX_INDEX_BYTES = 256 << 20
MAX_MEMBERS = 100_000
MEMBER = re.compile(r"index\.json|[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\.(jpg|objects\.png|depth)")

# What zipfile raises on damaged bytes: bad structure, an unknown version or encryption flag (RuntimeError
# and NotImplementedError, its child), a name that is no UTF-8 (ValueError), a short extra field.
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error)

_open: dict[Path, tuple[int, tuple[int, int], zipfile.ZipFile]] = {}
_lock = threading.Lock()
os.register_at_fork(after_in_child=lambda: _forget())


def _forget() -> None:
    """A forked child starts with no handles and a fresh lock (the parent's may be held)."""
    global _lock
    _lock = threading.Lock()
    _open.clear()


def shard_stamp(shard: Path) -> tuple[int, int]:
    """(size, mtime in ns): changes when the file is replaced.  Raises UnavailableError if absent."""
    try:
        stat = shard.stat()
    except FileNotFoundError as error:
        raise UnavailableError(
            f"{shard}: no such shard; it ships with dune-bench: leave --data or --root out, or reinstall"
        ) from error
    return stat.st_size, stat.st_mtime_ns


def _archive(shard: Path) -> zipfile.ZipFile:
    stamp = shard_stamp(shard)
    with _lock:
        kept = _open.get(shard)
        if kept and kept[:2] == (os.getpid(), stamp):
            return kept[2]
        try:
            archive = zipfile.ZipFile(shard)
        except _ZIP_ERRORS as error:
            raise TaskError(f"{shard}: not a readable zip file ({error}); get it again") from error
        try:
            _check_members(shard, archive)
        except TaskError:
            archive.close()
            raise
        if kept and kept[0] == os.getpid():
            kept[2].close()
        _open[shard] = (os.getpid(), stamp, archive)
        return archive


def _check_members(shard: Path, archive: zipfile.ZipFile) -> None:
    """Refuses names, sizes and packings that a shard never has."""
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise TaskError(
            f"{shard}: {len(members)} members, more than {MAX_MEMBERS}; this is no MiniRooms shard"
        )
    names = set()
    for info in members:
        if not MEMBER.fullmatch(info.filename) or info.filename in names:
            raise TaskError(f"{shard}: unexpected member {info.filename!r}; this is no MiniRooms shard")
        names.add(info.filename)
        limit = MAX_INDEX_BYTES if info.filename == "index.json" else MAX_MEMBER_BYTES
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
            raise TaskError(f"{shard}: member {info.filename!r} is compressed or larger than {limit} bytes")


def member_names(shard: Path) -> tuple[str, ...]:
    """Names of all members, in file order.  Raises UnavailableError, TaskError."""
    return tuple(_archive(shard).namelist())


def read_member(shard: Path, member: str) -> bytes:
    """The bytes of a member, its CRC checked.

    Raises UnavailableError if the shard is not there, TaskError if the member is not or is damaged.
    """
    archive = _archive(shard)
    try:
        return archive.read(member)
    except KeyError as error:
        raise TaskError(f"{shard}: member {member!r} is missing; get the shard again") from error
    except _ZIP_ERRORS as error:
        raise TaskError(f"{shard}: member {member!r} is damaged ({error}); get the shard again") from error


def read_image(shard: Path, member: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB of a JPEG member.  Raises TaskError if it is not of `size` or damaged."""
    return _decode(shard, member, "RGB", "JPEG", size)


def read_objects(shard: Path, member: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (H, W) of object indices, 255 void, of an 8-bit grey PNG member.  Raises TaskError."""
    return _decode(shard, member, "L", "PNG", size)


def read_depth(shard: Path, member: str) -> NDArray[np.float32]:
    """float32 (h, w) metres along z of a `.depth` member, 0 where there is none.  Raises TaskError."""
    try:
        return decode_depth(read_member(shard, member))
    except ValueError as error:
        raise TaskError(f"{shard}: member {member!r}: {error}; get the shard again") from error


def _decode(shard: Path, member: str, mode: str, kind: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    data = read_member(shard, member)
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            # The size stands in the header: a wrong one is refused before anything is decoded.
            if image.mode != mode or (image.height, image.width) != size:
                raise TaskError(
                    f"{shard}: member {member!r} is {image.mode} {image.height} x {image.width}, "
                    f"expected {mode} {size[0]} x {size[1]}; get the shard again"
                )
            return np.array(image, dtype=np.uint8)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise TaskError(
            f"{shard}: member {member!r} does not decode ({error}); get the shard again"
        ) from error
