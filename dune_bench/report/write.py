"""`dune-bench report`: reads a runs folder, writes the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import ExitCode, UnavailableError, UsageError
from dune_bench.registry.lookup import load_registry
from dune_bench.registry.suggest import did_you_mean
from dune_bench.report.board import Board, make_board
from dune_bench.report.describe import described
from dune_bench.report.html_page import html_page
from dune_bench.report.latex import leaderboard_latex, teachers_latex
from dune_bench.report.markdown import markdown
from dune_bench.report.merge import Merged, merge
from dune_bench.report.table import csv_text
from dune_bench.report.teachers import StudentTable, student_tables
from dune_bench.report.teachers_text import teachers_csv, teachers_markdown
from dune_bench.results.store import ResultStore, write_atomic

PANELS = "panels"
"""Folder of a runs folder where `dune-bench panel` writes."""
Students = Sequence[StudentTable]


@dataclass(frozen=True)
class Rendered:
    """files: content by path relative to the folder of the report.  notes: what the user should know."""

    files: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """The files written, and what the user should know (refused files, pictures left out).  exit_code: 3 if
    the tables against the teachers, which were asked for, could not be made."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]
    exit_code: ExitCode = ExitCode.OK


def _md(board: Board, panels: Path | None, students: Students) -> Rendered:
    del panels, students
    return Rendered({"leaderboard.md": markdown(board).encode()})


def _csv(board: Board, panels: Path | None, students: Students) -> Rendered:
    del panels, students
    return Rendered({"leaderboard.csv": csv_text(board).encode()})


def _html(board: Board, panels: Path | None, students: Students) -> Rendered:
    page = html_page(board, panels, students=students)
    return Rendered({"leaderboard.html": page.html.encode()}, page.notes)


def _latex(board: Board, panels: Path | None, students: Students) -> Rendered:
    del panels, students
    return Rendered({"leaderboard.tex": leaderboard_latex(board).encode()})


def _png(board: Board, panels: Path | None, students: Students) -> Rendered:
    # matplotlib takes a second to import; the other formats go without.
    from dune_bench.report.plots import png_files

    del panels, students
    return Rendered({f"plots/{name}": content for name, content in png_files(board).items()})


def _pdf(board: Board, panels: Path | None, students: Students) -> Rendered:
    from dune_bench.report.plots import pdf_file

    del panels, students
    return Rendered({"leaderboard.pdf": pdf_file(board)})


FORMATS: dict[str, Callable[[Board, Path | None, Students], Rendered]] = {
    "md": _md,
    "csv": _csv,
    "html": _html,
    "latex": _latex,
    "png": _png,
    "pdf": _pdf,
}
"""Format -> what it writes, from the board, the folder of pictures and the teachers' tables (if any)."""


TEACHERS: dict[str, tuple[str, Callable[[Sequence[StudentTable]], str]]] = {
    "md": ("teachers.md", teachers_markdown),
    "csv": ("teachers.csv", teachers_csv),
    "latex": ("teachers.tex", teachers_latex),
}
"""Format -> file and content of the tables against the teachers; `html` has a section, the others nothing."""


def read_board(runs: Path) -> Board:
    """The board of a runs folder.  Raises UnavailableError if there is no result below it."""
    return _board(merge(runs, (), load_registry()), runs)


def _board(merged: Merged, runs: Path) -> Board:
    if not merged.found and not merged.refused:
        raise UnavailableError(
            f"no results in {runs}: run `dune-bench run --runs {runs}` first, or name another --runs"
        )
    return make_board(merged.found, merged.refused, runs)


def write_leaderboard(
    runs: Path,
    formats: Sequence[str],
    out: Path,
    panels: Path | None = None,
    *,
    also: Sequence[Path] = (),
    teachers: bool = False,
    panel: Sequence[str] = (),
    include: Sequence[Path] = (),
    verify: bool = False,
    announce: Callable[[str], object] = lambda text: None,
) -> Written:
    """Writes the leaderboard into `out` in each format, each file atomically.

    panels: folder of pictures for the HTML page; by default that of the runs folder, if it is there.
    also: runs folders of other machines, checked and merged.  teachers: writes the tables of students
    against their teachers too; panel: the encoders that their mean rank is over.  include: folders with
    further cards.  verify: recomputes the values of any number of results.  announce: told what is being
    done.
    Raises UsageError for an unknown format or a folder of pictures that is none, UnavailableError if
    there is nothing to report, TaskError if a file cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise UsageError(f"--format: unknown format {name!r}{did_you_mean(name, FORMATS)}")
    if panel and not teachers:
        raise UsageError("--panel goes with --teachers: it names the encoders of the mean rank")
    if teachers and not set(formats) & {*TEACHERS, "html"}:
        raise UsageError(f"--teachers has no {', '.join(formats)}: add one of {', '.join(TEACHERS)}, html")
    registry = load_registry(tuple(include))
    announce("checking the results")
    merged = merge(runs, also, registry, verify=verify)
    board = described(_board(merged, runs), registry)
    if panels is None and (runs / PANELS).is_dir():
        panels = runs / PANELS
    files: dict[str, bytes] = {}
    notes = [*merged.notes, *(f"left out: {refused.reason}" for refused in board.refused)]
    students: Students = ()
    code = ExitCode.OK
    if teachers:
        try:
            students = student_tables(merged.found, board, ResultStore(runs), registry, panel)
        except UnavailableError as error:  # the leaderboard itself needs no teacher
            notes.append(str(error))
            code = error.exit_code
    for name in dict.fromkeys(formats):
        announce(f"writing {name}")
        rendered = FORMATS[name](board, panels, students)
        notes += rendered.notes
        files |= rendered.files
    if students:
        files |= {file: text(students).encode() for n, (file, text) in TEACHERS.items() if n in formats}
    for file, content in files.items():
        write_atomic(out / file, content)
    return Written(tuple(out / file for file in files), tuple(notes), code)
