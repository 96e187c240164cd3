"""`dune-bench report`: reads a runs folder, writes the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.registry.suggest import did_you_mean
from dune_bench.report.board import Board, make_board
from dune_bench.report.markdown import markdown
from dune_bench.report.table import csv_text
from dune_bench.results.store import ResultStore, write_atomic

FORMATS: dict[str, Callable[[Board], str]] = {"md": markdown, "csv": csv_text}


@dataclass(frozen=True)
class Written:
    """The files written, and what the user should know (refused files)."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def read_board(runs: Path) -> Board:
    """The board of a runs folder.  Raises UnavailableError if there is no result below it."""
    found, refused = ResultStore(runs).load()
    if not found and not refused:
        raise UnavailableError(
            f"no results in {runs}: run `dune-bench run --runs {runs}` first, or name another --runs"
        )
    return make_board(found, refused, runs)


def write_leaderboard(runs: Path, formats: Sequence[str], out: Path) -> Written:
    """Writes `out/leaderboard.FORMAT` for each format, each atomically.

    Raises UsageError for an unknown format, UnavailableError if there is nothing to report,
    TaskError if a file cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format: unknown format {name!r}{did_you_mean(name, FORMATS)}")
    board = read_board(runs)
    paths = []
    for name in dict.fromkeys(formats):
        path = out / f"leaderboard.{name}"
        write_atomic(path, FORMATS[name](board).encode())
        paths.append(path)
    return Written(tuple(paths), tuple(f"left out: {refused.reason}" for refused in board.refused))
