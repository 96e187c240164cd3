"""The leaderboard as one HTML file that asks nobody for anything.

Style and script are the package's own assets, pictures are embedded, and a content security policy
lets the browser run and load nothing else.  The same board and pictures give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from dune_bench import __version__
from dune_bench.errors import TaskError
from dune_bench.report import html_table, html_teachers
from dune_bench.report.board import Board
from dune_bench.report.format import FAILED_MEANS, NO_SPREAD_MEANS, has_no_spread, overlaps
from dune_bench.report.html_data import (
    Detail,
    Encoders,
    PageData,
    collect_encoders,
    page_data,
    rows_to_json,
    to_json,
)
from dune_bench.report.html_pictures import Pictures, read_pictures
from dune_bench.report.teachers import StudentTable
from dune_bench.results.schema import Metric
from dune_bench.results.store import Refused

MAX_BYTES = 20_000_000
"""A page larger than this is no page: mail, repositories and phones refuse it."""
_MOST_REASONS = 50
"""Pictures left out that the page names; the command names all."""
STYLES = ("page.css", "charts.css")
SCRIPTS = (
    "base.js",
    "overview.js",
    "figures.js",
    "cell.js",
    "task.js",
    "breakdown.js",
    "radar.js",
    "cost.js",
    "main.js",
)
_LEFT_OUT_OF_DATA = {
    Detail.full: (),
    Detail.no_choices: ("the solver's choices and the timings of each result, for the page's size",),
    Detail.metrics_only: (
        "breakdowns, the solver's choices and the timings of each result, for the page's size",
    ),
}


@dataclass(frozen=True)
class Page:
    """html: the file's content.  notes: what the user should know about pictures that are not in it."""

    html: str
    notes: tuple[str, ...] = ()


def html_page(
    board: Board,
    panels: Path | None = None,
    max_bytes: int = MAX_BYTES,
    students: Sequence[StudentTable] = (),
) -> Page:
    """The whole page, at most `max_bytes` long.

    panels: folder of pictures in the layout of `dune-bench panel`.  students: tables of students
    against their teachers, a section of the page.  Details of results that make the
    page too large are left out first, then pictures; the page says so.
    Raises UsageError if `panels` is no folder, TaskError if even the tables are too large.
    """
    encoders = collect_encoders(board)
    for detail in sorted(Detail, reverse=True):
        data = page_data(board, encoders, detail)
        bare = _assemble(board, encoders, data, detail, Pictures(), students)
        room = max_bytes - len(bare.encode())
        if room >= 0:
            break
    else:
        raise TaskError(
            f"the HTML page would be {max_bytes - room:,} bytes, more than {max_bytes:,}: "
            "report fewer results, or use --format csv"
        )
    page, notes = bare, []
    while panels is not None:
        pictures = read_pictures(panels, board, encoders, room)
        notes = [f"picture left out: {reason}" for reason in pictures.left_out]
        page = _assemble(board, encoders, data, detail, pictures, students)
        excess = len(page.encode()) - max_bytes
        if excess <= 0:
            break
        if not pictures.found:
            page = bare  # not even the list of what is left out has room
            break
        room -= excess  # what goes with the pictures: their names, and the list of those left out
    return Page(page, tuple(notes))


def _assemble(
    board: Board,
    encoders: Encoders,
    data: PageData,
    detail: Detail,
    pictures: Pictures,
    students: Sequence[StudentTable],
) -> str:
    style = "\n".join(map(_asset, STYLES))
    script = "(() => {\n'use strict';\n" + "\n".join(map(_asset, SCRIPTS)) + "})();\n"
    left_out = [*board.not_shown(), *_LEFT_OUT_OF_DATA[detail], *_some(pictures.left_out)]
    return Template(_asset("page.html")).substitute(
        style_hash=_sha256(style),
        script_hash=_sha256(script),
        style=style,
        script=script,
        version=html_table.safe(__version__),
        summary=html_table.summary(board, encoders),
        overview=html_table.overview(board, encoders),
        teachers=html_teachers.section(students),
        teachers_link=html_teachers.LINK if students else "",
        described_data=html_table.described_data(board),
        described_encoders=html_table.described_encoders(board, encoders),
        has_encoders=_unless(bool(board.descriptions.encoders)),
        measured=html_table.measured(board),
        no_spread=_unless(has_no_spread(_metrics(board))),
        no_spread_means=html_table.safe(NO_SPREAD_MEANS),
        failed_means=html_table.safe(FAILED_MEANS),
        overlap=_unless(any(overlaps(e.result) for c in board.columns for e in c.entries)),
        missing=html_table.missing(board),
        has_missing=_unless(bool(board.missing)),
        refused=html_table.bullets(map(_refused, board.refused)),
        has_refused=_unless(bool(board.refused)),
        left_out=html_table.bullets(left_out),
        has_left_out=_unless(bool(left_out)),
        all_in=_unless(not (board.missing or board.refused or left_out)),
        board=to_json(data.page),
        details=_details(data),
        pictures=_pictures(pictures),
    )


def _metrics(board: Board) -> Iterator[Metric]:
    return (m for column in board.columns for entry in column.entries for m in entry.result.metrics)


def _refused(refused: Refused) -> str:
    """The reason, with the file's path below the runs folder only."""
    name = refused.path.as_posix()
    return refused.reason[max(0, refused.reason.find(name)) :]


def _some(reasons: Sequence[str]) -> list[str]:
    more = len(reasons) - _MOST_REASONS
    named = list(reasons[:_MOST_REASONS])
    return [*named, f"and {more} more pictures"] if more > 0 else named


def _unless(shown: bool) -> str:
    """The attribute that hides an element, or nothing."""
    return "" if shown else "hidden"


def _details(data: PageData) -> str:
    return "\n".join(
        f'<script type="application/json" id="details-{place}">{rows_to_json(rows)}</script>'
        for place, rows in enumerate(data.columns)
    )


def _pictures(pictures: Pictures) -> str:
    rows = [
        {"encoder": p.encoder, "column": p.column, "name": p.name, "size": p.size, "data": p.data}
        for p in pictures.found
    ]
    return rows_to_json(rows)


def _asset(file: str) -> str:
    return (resources.files("dune_bench.report") / "assets" / file).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    """As a content security policy names the content of an inline element."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
