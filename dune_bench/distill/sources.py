"""Where images to learn from come from: folders, lists of files, and the rendered rooms that ship.

A source only knows names and reads pixels by number.  Names are kept packed, because one set of the paper
has 13 million, and Python strings of as many would be copied into every loader process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.images import decode_image
from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import ImageRef, SegSample
from dune_bench.errors import TaskError, UnavailableError, UsageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
"""Endings of file names that are images, in lower case, if a source does not choose."""
MAX_IMAGE_BYTES = 512 << 20
"""A larger file is not read: it is no photograph, and it would fill a loader process."""


class ImageSource(Protocol):
    """Images by number.  Runs in loader processes, so it is plain data and can be pickled."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def describe(self, index: int) -> str:
        """Name of an image, for messages; decodes nothing."""
        ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), RGB.  Raises TaskError for an image that is missing or damaged."""
        ...


class PackedNames(Sequence[str]):
    """File names as one piece of bytes.  Names that are no UTF-8 survive, as the file system has them."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.blob = b"".join(encoded)
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    @classmethod
    def restored(cls, blob: bytes, ends: NDArray[np.int64]) -> PackedNames:
        """From `blob` and `ends` of another one.  Raises ValueError if they do not belong together."""
        lengths = np.diff(ends, prepend=0)
        if ends.ndim != 1 or (lengths < 0).any() or len(blob) != (int(ends[-1]) if len(ends) else 0):
            raise ValueError("names and their ends do not belong together")
        made = cls(())
        made.blob, made.ends = blob, ends
        return made

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # nobody takes slices of names
        if not 0 <= index < len(self.ends):
            raise IndexError(index)
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.blob[start : int(self.ends[index])])


class _Files:
    """Image files by name below a folder."""

    name: str
    _root: Path
    _names: PackedNames

    def __len__(self) -> int:
        return len(self._names)

    def describe(self, index: int) -> str:
        return printable(self._names[index])

    def read(self, index: int) -> NDArray[np.uint8]:
        return decode_image(
            read_bytes(self._root / self._names[index], self.describe(index)), self.describe(index)
        )


class ImageFolder(_Files):
    """All images below a folder, in the order of their paths.

    suffixes: endings that count, so that `.jpg` leaves out depth maps that lie beside.  Names that begin
    with a dot are left out.  Raises UnavailableError for a missing folder, UsageError for one that is
    empty or cannot be listed.
    """

    def __init__(self, folder: Path, name: str | None = None, suffixes: Sequence[str] = SUFFIXES) -> None:
        if not folder.is_dir():
            raise UnavailableError(f"{folder}: no such folder of images; get the data or correct the path")
        self.name = name or folder.name
        self._root = folder
        self._names = PackedNames(sorted(_images_below(folder, tuple(s.lower() for s in suffixes))))
        if not len(self._names):
            raise UsageError(f"{folder}: no image ({', '.join(suffixes)}) in this folder; correct the path")


class ImageList(_Files):
    """Images named in a text file, one path a line, relative to a folder; empty lines are skipped.

    root: that folder; default: the one of the list.  Whether the files are there shows when they are read.
    Raises UnavailableError for a missing list or root, UsageError for one that names nothing, and for a
    path that is absolute or leads out of the root.
    """

    def __init__(self, file: Path, root: Path | None = None, name: str | None = None) -> None:
        self._root = file.parent if root is None else root
        if not self._root.is_dir():
            raise UnavailableError(f"{self._root}: no such folder of images; get the data or correct `root`")
        self.name = name or file.stem
        self._names = PackedNames(_listed(file))
        if not len(self._names):
            raise UsageError(f"{file}: this list names no image: write one path a line")


class MiniRoomsImages:
    """Images of a split of MiniRooms, then those of `--unlabelled` renders if there are.

    unlabelled: the folder that `tools.minirooms render --unlabelled --out` wrote; unfinished rooms and
    test rooms in it are left out.  Raises UnavailableError, UsageError, TaskError as the data set does.
    """

    def __init__(
        self,
        version: str = "minirooms@1",
        split: str = "train",
        root: Path | None = None,
        unlabelled: Path | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or version
        samples = MiniRooms(version, root).samples(SegSample, split)
        self._refs: tuple[ImageRef, ...] = tuple(samples.images(i)[0] for i in range(len(samples)))
        self._more = unlabelled
        self._names = PackedNames(() if unlabelled is None else _rendered(unlabelled))

    def __len__(self) -> int:
        return len(self._refs) + len(self._names)

    def describe(self, index: int) -> str:
        if index < len(self._refs):
            return self._refs[index].id
        return printable(f"unlabelled/{self._names[index - len(self._refs)]}")

    def read(self, index: int) -> NDArray[np.uint8]:
        if index < len(self._refs) or self._more is None:
            return self._refs[index].read()
        data = read_bytes(self._more / self._names[index - len(self._refs)], self.describe(index))
        return decode_image(data, self.describe(index))


def check_length(source: ImageSource, expected: Sequence[int]) -> None:
    """Raises UsageError unless the source has one of the expected numbers of images (none: any)."""
    if expected and len(source) not in expected:
        wanted = " or ".join(f"{count:,}" for count in expected)
        raise UsageError(
            f"{source.name}: {len(source):,} images found, {wanted} expected: complete the data, or set "
            f"`expected: {len(source)}` if that is what there should be"
        )


def read_bytes(path: Path, name: str, offset: int = 0, size: int | None = None) -> bytes:
    """A file, or `size` bytes of it.  Raises TaskError naming the image if they cannot be had."""
    try:
        with path.open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size - offset if size is None else size
            if length > MAX_IMAGE_BYTES:
                raise TaskError(f"{name}: {length} bytes are more than {MAX_IMAGE_BYTES}: not read")
            stream.seek(offset)
            data = stream.read(length)
    except OSError as error:
        raise TaskError(f"{name}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # a NUL in a name
        raise TaskError(f"{name}: cannot be read ({error})") from error
    if size is not None and len(data) != size:
        raise TaskError(f"{name}: {len(data)} bytes of {size}: {path.name} is cut off")
    return data


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes written out: fit for a log line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _images_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Paths of images relative to the folder, with `/`.  Links to folders are followed, each folder once."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename}: this folder of images cannot be listed: {error.strerror}")

    seen: set[tuple[int, int]] = set()
    for path, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(path).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Sorted, so that of two ways to a folder the same one is taken everywhere.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(path).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in files:
            if not name.startswith(".") and name.lower().endswith(suffixes):
                yield prefix + name


def _listed(file: Path) -> Iterator[str]:
    """The paths in a list, checked."""
    try:
        stream = file.open("rb")
    except FileNotFoundError as error:
        raise UnavailableError(f"{file}: no such list of images; correct the path") from error
    except OSError as error:
        raise UsageError(f"{file}: cannot read this list of images: {error.strerror}") from error
    with stream:
        for number, line in enumerate(stream, 1):
            text = os.fsdecode(line).strip("\r\n")
            if not text.strip():
                continue
            path = PurePosixPath(text)
            if path.is_absolute() or ".." in path.parts or "\0" in text:
                raise UsageError(
                    f"{file}: line {number}: {printable(text)[:80]!r} is no path below the root: write paths "
                    f"relative to it"
                )
            yield text


def _rendered(folder: Path) -> list[str]:
    """Images of the finished training rooms of a rendering, relative to `folder`."""
    if not folder.is_dir():
        raise UnavailableError(f"{folder}: no such folder of unlabelled renders; render them or leave it out")
    rooms = folder / "rooms" if (folder / "rooms").is_dir() else folder
    done = sorted(r.parent for r in rooms.glob("train_*/room.json") if r.parent.suffix != ".partial")
    # By number of the view, so that 10 comes after 9.
    images = [
        p.relative_to(folder).as_posix()
        for room in done
        for p in sorted(room.glob("*.jpg"), key=lambda p: (len(p.stem), p.stem))
    ]
    if not images:
        raise UsageError(
            f"{folder}: no finished room (train_N/room.json with N.jpg) in this folder of renders; "
            f"give the folder that `render --unlabelled --out` wrote"
        )
    return images
