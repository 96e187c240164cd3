"""sha256 and size of image files that nobody wrote down: made once, remembered while a file is untouched.

A large set is hashed when it is first used and only looked at afterwards.  An entry holds while the
file's length, time of change and inode are the same; a file that changed moments before it was hashed is not
remembered, because a second change within the clock's step would go unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dune_bench.data.images import read_size
from dune_bench.errors import TaskError
from dune_bench.registry.paths import digests_cache
from dune_bench.results.store import write_atomic

YOUNG_NS = 2 * 10**9
"""Age below which a file may change again without its time of change moving: the coarsest file systems'
step."""


@dataclass(frozen=True)
class ImageFacts:
    """sha256: hex, of the encoded bytes.  size: (height, width) as decoded."""

    sha256: str
    size: tuple[int, int]


class Digests:
    """Facts of the files in one folder.  `save` writes what is new; losing it costs time only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
        self._memory = digests_cache() / f"{name}.json"
        self._known: dict[str, list[Any]] = _read(self._memory)
        self._new = False

    def facts(self, name: str, fresh: bool = False) -> ImageFacts:
        """Facts of `folder / name`.  fresh: never from memory.  Raises TaskError naming a file that is not
        there or is no image."""
        path = self._folder / name
        stamp = _stamp(path)
        if not fresh and (found := _facts(self._known.get(name), stamp)) is not None:
            return found
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TaskError(f"{path}: {error.strerror or error}: restore the image") from error
        facts = ImageFacts(hashlib.sha256(data).hexdigest(), read_size(data, str(path)))
        if time.time_ns() - stamp[1] > YOUNG_NS:
            self._known[name] = [*stamp, facts.sha256, *facts.size]
            self._new = True
        return facts

    def remembered(self, name: str) -> ImageFacts | None:
        """What memory says of a file that looks untouched, if anything.  Raises TaskError without it."""
        return _facts(self._known.get(name), _stamp(self._folder / name))

    def save(self) -> None:
        """Writes the memory, if anything is new."""
        if not self._new:
            return
        try:
            write_atomic(self._memory, json.dumps(self._known).encode())
        except TaskError:
            return  # only speed is lost: the next command hashes again
        self._new = False


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror or error}: restore the image") from error
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _read(memory: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _facts(entry: object, stamp: list[int]) -> ImageFacts | None:
    """The facts of an entry that belongs to the stamp; None for any other, also a damaged one."""
    match entry:
        case [int(), int(), int(), str(digest), int(height), int(width)] if entry[:3] == stamp:
            return ImageFacts(digest, (height, width))
    return None
