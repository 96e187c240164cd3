"""The sheet a panel is drawn on: rows of tiles with captions, scales and legends below them.

All lengths are inches, so that text has one size whatever the sample's.  Figures are made without
pyplot: no state outlives a panel.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from dune_bench.report.panels.colours import RGB

DPI = 125
MARGIN, GAP = 0.12, 0.10
HEAD, CAPTION = 0.62, 0.26
SCALE, LEGEND_LINE = 0.50, 0.22
TEXT, SMALL = 10.5, 9.0
_MOST_HEADING, _MOST_TEXT = 12.0, 17.0
"""Characters of the heading and of the subheading that fit into an inch, about."""


class Canvas:
    """A sheet of rows of tiles.

    heading, subheading: at its top, in as many lines as the width asks for.  rows: per row the widths of
    its tiles; a row is as high as `heights` says.  below: room under each row for a scale or a legend.
    """

    def __init__(
        self,
        heading: str,
        subheading: str,
        rows: Sequence[Sequence[float]],
        heights: Sequence[float],
        below: Sequence[float],
    ) -> None:
        self.width = max(sum(row) + GAP * (len(row) - 1) for row in rows) + 2 * MARGIN
        inside = self.width - 2 * MARGIN
        titles = _wrap(heading, int(inside * _MOST_HEADING))
        lines = _wrap(subheading, int(inside * _MOST_TEXT))
        lower = 0.2 * (len(titles) - 1)
        head = HEAD + lower + 0.17 * (len(lines) - 1)
        each = [CAPTION + h + b for h, b in zip(heights, below, strict=True)]
        self.height = head + sum(each) + MARGIN
        self._rows, self._heights, self._below = rows, heights, below
        self._tops = [head + sum(each[:i]) + CAPTION for i in range(len(rows))]
        self.figure = Figure(figsize=(self.width, self.height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        for i, title in enumerate(titles):
            self._text(MARGIN, 0.24 + 0.2 * i, title, size=TEXT, weight="bold")
        for i, line in enumerate(lines):
            self._text(MARGIN, 0.45 + lower + 0.17 * i, line, size=SMALL, color="#444444")

    def tile(self, row: int, column: int, caption: str = "") -> Axes:
        """Empty axes, without ticks, at a place of the sheet."""
        left, width = self._left(row, column), self._rows[row][column]
        top, height = self._tops[row], self._heights[row]
        axes = self.figure.add_axes(self._box(left, top, width, height))
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        self._text(left, top - 0.07, caption, size=SMALL)
        return axes

    def picture(self, row: int, column: int, caption: str, image: RGB, size: tuple[int, int]) -> Axes:
        """A tile with an image; its coordinates are pixels of an image of `size` (height, width), with
        pixel centres at half-integers, whatever the resolution of what is shown."""
        axes = self.tile(row, column, caption)
        show(axes, image, size)
        return axes

    def scale(self, row: int, columns: tuple[int, int], mappable: Any, label: str, **options: Any) -> None:
        """A colour bar under the tiles from the first to the last of `columns`."""
        left = self._left(row, columns[0])
        right = self._left(row, columns[1]) + self._rows[row][columns[1]]
        shrink = 0.06 * (right - left)
        box = self._box(left + shrink, self._bottom(row) + 0.08, right - left - 2 * shrink, 0.11)
        axes = self.figure.add_axes(box)
        bar = self.figure.colorbar(mappable, cax=axes, orientation="horizontal", **options)
        bar.ax.tick_params(labelsize=SMALL - 1, length=2, pad=1.5)
        bar.ax.minorticks_off()
        bar.set_label(label, fontsize=SMALL, labelpad=1)

    def legend(self, row: int, entries: Mapping[str, Any], columns: int) -> None:
        """Names with their colours under a row.  Values are colours, or matplotlib's own handles."""
        handles = [
            Patch(facecolor=_colour(value), edgecolor="#666666", linewidth=0.5, label=name)
            if isinstance(value, str | tuple | np.ndarray)
            else value
            for name, value in entries.items()
        ]
        anchor = (MARGIN / self.width, 1 - (self._bottom(row) + 0.09) / self.height)
        self.figure.legend(
            handles=handles,
            labels=list(entries),
            loc="upper left",
            bbox_to_anchor=anchor,
            ncols=columns,
            fontsize=SMALL,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.4,
            handleheight=1.0,
            columnspacing=1.4,
            labelspacing=0.35,
        )

    def note(self, row: int, text: str, column: int = 0) -> None:
        """A small line under a row."""
        self._text(self._left(row, column), self._bottom(row) + 0.17, text, size=SMALL, color="#444444")

    def png(self) -> bytes:
        """The sheet as PNG; the same drawing gives the same bytes."""
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            # A file's name may be in any script; it stands in full in the printed path.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()

    def _left(self, row: int, column: int) -> float:
        return MARGIN + sum(self._rows[row][:column]) + GAP * column

    def _bottom(self, row: int) -> float:
        return self._tops[row] + self._heights[row]

    def _box(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        """From inches below the sheet's top to matplotlib's shares above its bottom."""
        return (
            left / self.width,
            1 - (top + height) / self.height,
            width / self.width,
            height / self.height,
        )

    def _text(self, left: float, base: float, text: str, **options: Any) -> None:
        self.figure.text(left / self.width, 1 - base / self.height, _plain(text), **options)


def show(axes: Axes, image: RGB | NDArray[np.floating[Any]], size: tuple[int, int], **options: Any) -> Any:
    """Draws an array over the pixel coordinates of an image of `size`; returns matplotlib's handle."""
    height, width = size
    handle = axes.imshow(image, extent=(0, width, height, 0), aspect="auto", **options)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return handle


def label(axes: Axes, x: float, y: float, text: str, size: float = SMALL, **options: Any) -> None:
    """White text with a dark rim: readable on anything."""
    settings = {"ha": "center", "va": "center", "color": "white", "fontsize": size, **options}
    axes.text(x, y, _plain(text), path_effects=[withStroke(linewidth=2.2, foreground="#202020")], **settings)


def tile_size(size: tuple[int, int], width: float = 3.4, highest: float = 3.8) -> tuple[float, float]:
    """Width and height in inches of a tile for images of `size` (height, width)."""
    height = width * size[0] / size[1]
    return (width, height) if height <= highest else (highest * size[1] / size[0], highest)


def _colour(value: Any) -> Any:
    """A colour as matplotlib has it; uint8 triples become shares."""
    return value if isinstance(value, str) else tuple(np.asarray(value, float) / 255)


def _plain(text: str) -> str:
    """Names may hold `$`, which matplotlib would take for mathematics."""
    return text.replace("$", r"\$")


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most about `width` characters, broken between the parts of a heading."""
    lines = [""]
    for part in text.split("  ·  "):
        longer = f"{lines[-1]}  ·  {part}" if lines[-1] else part
        if len(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines
