"""`dune-bench report`: reads a runs folder, writes the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.registry.suggest import did_you_mean
from dune_bench.report.board import Board, make_board
from dune_bench.report.html_page import html_page
from dune_bench.report.markdown import markdown
from dune_bench.report.table import csv_text
from dune_bench.results.store import ResultStore, write_atomic

PANELS = "panels"
"""Folder of a runs folder where `dune-bench panel` writes."""


@dataclass(frozen=True)
class Rendered:
    """files: content by path relative to the folder of the report.  notes: what the user should know."""

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """The files written, and what the user should know (refused files, pictures left out)."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def _md(board: Board, panels: Path | None) -> Rendered:
    del panels
    return Rendered({"leaderboard.md": markdown(board).encode()})


def _csv(board: Board, panels: Path | None) -> Rendered:
    del panels
    return Rendered({"leaderboard.csv": csv_text(board).encode()})


def _html(board: Board, panels: Path | None) -> Rendered:
    page = html_page(board, panels)
    return Rendered({"leaderboard.html": page.html.encode()}, page.notes)


def _png(board: Board, panels: Path | None) -> Rendered:
    # matplotlib takes a second to import; the other formats go without.
    from dune_bench.report.plots import png_files

    del panels
    return Rendered({f"plots/{name}": content for name, content in png_files(board).items()})


def _pdf(board: Board, panels: Path | None) -> Rendered:
    from dune_bench.report.plots import pdf_file

    del panels
    return Rendered({"leaderboard.pdf": pdf_file(board)})


FORMATS: dict[str, Callable[[Board, Path | None], Rendered]] = {
    "md": _md,
    "csv": _csv,
    "html": _html,
    "png": _png,
    "pdf": _pdf,
}
"""Format -> what it writes, from the board and the folder of pictures (if any)."""


def read_board(runs: Path) -> Board:
    """The board of a runs folder.  Raises UnavailableError if there is no result below it."""
    found, refused = ResultStore(runs).load()
    if not found and not refused:
        raise UnavailableError(
            f"no results in {runs}: run `dune-bench run --runs {runs}` first, or name another --runs"
        )
    return make_board(found, refused, runs)


def write_leaderboard(runs: Path, formats: Sequence[str], out: Path, panels: Path | None = None) -> Written:
    """Writes the leaderboard into `out` in each format, each file atomically.

    panels: folder of pictures for the HTML page; by default that of the runs folder, if it is there.
    Raises UsageError for an unknown format or a folder of pictures that is none, UnavailableError if
    there is nothing to report, TaskError if a file cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format: unknown format {name!r}{did_you_mean(name, FORMATS)}")
    board = read_board(runs)
    if panels is None and (runs / PANELS).is_dir():
        panels = runs / PANELS
    paths = []
    notes = [f"left out: {refused.reason}" for refused in board.refused]
    for name in dict.fromkeys(formats):
        rendered = FORMATS[name](board, panels)
        notes += rendered.notes
        for file, content in rendered.files.items():
            write_atomic(out / file, content)
            paths.append(out / file)
    return Written(tuple(paths), tuple(notes))
