"""Pictures for the HTML page, embedded: panels that `dune-bench panel` made, and any in their layout.

    DIR/<encoder>/<task>/<sample>.png      predictions of one task, the names as files have them
    DIR/<encoder>/pca/<name>.png           features of the encoder as colours, of no task

Pictures are made smaller for the page (WebP); the files themselves stay as they are.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dune_bench.errors import UsageError
from dune_bench.report.board import Board
from dune_bench.report.format import column_name
from dune_bench.report.html_data import Encoders
from dune_bench.results.store import safe_name, weights_folder

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PCA = "pca"
MAX_WIDTH = 1400
"""Pixels; wider pictures are scaled down for the page."""
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """encoder: row of the page.  column: its column, None for a picture of the encoder alone.  data: a
    `data:` address.  size: (width, height) of what is embedded, pixels."""

    encoder: int
    column: int | None
    name: str
    size: tuple[int, int]
    data: str


@dataclass(frozen=True)
class Pictures:
    """The pictures of a page, and one line for each that is left out."""

    found: tuple[Picture, ...] = ()
    left_out: tuple[str, ...] = ()


def read_pictures(folder: Path, board: Board, encoders: Encoders, room: int) -> Pictures:
    """The pictures below `folder` that belong to the board, until `room` bytes are full.

    Every (encoder, task) gets its first picture before any gets its second.  Raises UsageError if
    there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"--panels {folder}: no such folder: `dune-bench panel` makes one")
    rows, columns = _row_folders(encoders), _column_folders(board)
    found: list[Picture] = []
    left_out: list[str] = []
    for path in _in_turns(folder):
        where = path.relative_to(folder)
        encoder, task = where.parts[0], where.parts[1]
        places = (rows.get(encoder, ()), columns.get(task, ()) if task != PCA else (None,))
        reason = _ambiguous("encoder", encoder, len(places[0])) or _ambiguous("column", task, len(places[1]))
        if not reason:
            try:
                picture = _embed(path, places[0][0], places[1][0])
            except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
                reason = f"not readable as a picture ({type(error).__name__})"
            else:
                if len(picture.data) <= room:
                    room -= len(picture.data)
                    found.append(picture)
                    continue
                reason = "the page would grow too large"
        left_out.append(f"{where.as_posix()}: {reason}")
    found.sort(key=lambda p: (p.encoder, -1 if p.column is None else p.column, p.name))
    return Pictures(tuple(found), tuple(sorted(left_out)))


def _ambiguous(kind: str, folder: str, count: int) -> str:
    if count == 0:
        return f"no {kind} of this report is named {folder}"
    return f"{count} {kind}s of this report are named {folder}" if count > 1 else ""


def _row_folders(encoders: Encoders) -> Mapping[str, tuple[int, ...]]:
    """Folder name -> rows.  In a folder without a digest, that two checkpoints of one name share, nobody
    knows whose pictures are."""
    names: dict[str, tuple[int, ...]] = {}
    for place, result in enumerate(encoders.results):
        for folder in {safe_name(result.label), weights_folder(result.label, result.encoder.digest)}:
            names[folder] = (*names.get(folder, ()), place)
    return names


def _column_folders(board: Board) -> Mapping[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {}
    for place, column in enumerate(board.columns):
        folder = safe_name(column_name(column.task))
        names[folder] = (*names.get(folder, ()), place)
    return names


def _in_turns(folder: Path) -> Iterator[Path]:
    """The first picture of every DIR/encoder/task, then the second ones …, each in order of names."""
    groups = [
        sorted(path for path in inner.iterdir() if path.suffix.lower() in SUFFIXES)
        for inner in sorted(folder.glob("*/*/"))
        if inner.is_dir()
    ]
    for turn in range(max(map(len, groups), default=0)):
        yield from (group[turn] for group in groups if turn < len(group))


def _embed(path: Path, encoder: int, column: int | None) -> Picture:
    data, size = as_data(path)
    return Picture(encoder, column, path.stem, size, data)


def as_data(path: Path) -> tuple[str, tuple[int, int]]:
    """A picture's `data:` address and (width, height) in pixels, at most MAX_WIDTH wide."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if image.width > MAX_WIDTH:
        height = max(1, round(image.height * MAX_WIDTH / image.width))
        image = image.resize((MAX_WIDTH, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    data = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return data, image.size
