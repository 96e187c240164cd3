"""The leaderboard as static plots: a radar over all tasks, and a page per column.

Figures are made without pyplot: no state outlives them.  The same board gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from dune_bench.errors import UnavailableError
from dune_bench.report.board import Board
from dune_bench.report.plot_column import draw_column
from dune_bench.report.plot_radar import MOST_AXES, draw_radar, radar_axes
from dune_bench.report.plot_style import DPI, styles
from dune_bench.report.shown import shown_encoders
from dune_bench.results.store import safe_name

_NO_DATE = {"CreationDate": None, "Producer": None, "Creator": None}


def png_files(board: Board) -> dict[str, bytes]:
    """PNG files by name, `radar.png` and one per column.  Raises UnavailableError if there is nothing
    to draw."""
    files = {}
    for name, figure in _drawn(board):
        buffer = io.BytesIO()
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        files[f"{safe_name(name)}.png"] = buffer.getvalue()
    return files


def pdf_file(board: Board) -> bytes:
    """All plots in one PDF, a page each.  Raises UnavailableError if there is nothing to draw."""
    buffer = io.BytesIO()
    with PdfPages(buffer, metadata=_NO_DATE) as pages:
        for _, figure in _drawn(board):
            pages.savefig(figure)
    return buffer.getvalue()


def _drawn(board: Board) -> Iterator[tuple[str, Figure]]:
    axes, shown = radar_axes(board)[:MOST_AXES], shown_encoders(board)
    count = 0
    if len(axes) >= 3:
        yield "radar", draw_radar(board, axes, shown)
        count += 1
    for column in board.columns:
        figure = draw_column(board, column, styles(shown))
        if figure is not None:
            yield column.name, figure
            count += 1
    if not count:
        raise UnavailableError("no result has a primary metric to plot: --format md lists what there is")
