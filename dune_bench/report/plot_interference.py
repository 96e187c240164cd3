"""Heat maps of the interference between teachers, as static plots."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dune_bench.report.analysis_interference import UNTOLD, WHOLE, Influence
from dune_bench.report.format import heading
from dune_bench.report.grid import fine, interval
from dune_bench.report.plot_style import DPI, GRID, QUIET, clean

if TYPE_CHECKING:
    from dune_bench.distill.interference import BlockCosine, DomainLoss

_ROW, _TALL_ROW, _COLUMN, _WIDE_COLUMN = 0.42, 0.62, 0.62, 2.05
_HEAD, _FOOT, _SLANTED, _SIDE, _GAP = 0.4, 0.55, 1.0, 2.1, 0.3
"""Inches of rows and columns; of the title above a map, of what stands below it (slanted or not) and at its
left; between maps."""
_NAME, _TITLE = 26, 60
"""Most characters of a name beside a map, and of a map's title."""
_STRONGEST = 4.0
"""Standard errors at which the colour of an influence is full."""
AGAINST_TO_WITH = LinearSegmentedColormap.from_list("against", ["#c44e00", "#ffffff", "#0072b2"])
LITTLE_TO_MUCH = LinearSegmentedColormap.from_list("much", ["#ffffff", "#5c4b9b"])


@dataclass(frozen=True)
class HeatMap:
    """values: (rows, columns), NaN: an empty cell.  texts: of the cells.  quiet: cells with grey text and
    without colour.  column: inches of a column."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    texts: Sequence[Sequence[str]]
    colours: Colormap
    limits: tuple[float, float]
    quiet: frozenset[tuple[int, int]] = frozenset()
    row: float = _ROW
    column: float = _COLUMN

    @property
    def width(self) -> float:
        """Inches, with the names of the rows and a title that may be wider than the columns."""
        return _SIDE + max(self.column * len(self.columns), 0.075 * min(len(self.title), _TITLE))

    @property
    def height(self) -> float:
        """Inches, with title and names of the columns."""
        return _HEAD + self.row * len(self.rows) + (_SLANTED if self.slanted else _FOOT)

    @property
    def slanted(self) -> bool:
        """Whether the names of columns are too long to stand upright."""
        longest = max(min(len(line), _NAME) for name in self.columns for line in name.split("\n"))
        return longest > 13 * self.column


def losses_png(losses: Sequence[DomainLoss]) -> bytes:
    """Teachers × domains, a pair of maps (1 − cos, smooth L1) for each student."""
    maps = []
    for field, name in (("cosine", "1 − cos"), ("smooth_l1", "smooth L1")):
        most = max(getattr(loss, field) for loss in losses) or 1.0
        for student in dict.fromkeys(loss.student for loss in losses):
            own = [loss for loss in losses if loss.student == student]
            rows = list(dict.fromkeys(loss.teacher for loss in own))
            columns = list(dict.fromkeys((loss.domain, loss.held_out) for loss in own))
            cells = {(loss.teacher, loss.domain): getattr(loss, field) for loss in own}
            values = np.array([[cells.get((t, d), math.nan) for d, _ in columns] for t in rows])
            names = [domain + ("" if held_out else "*") for domain, held_out in columns]
            texts = [[_plain(value) for value in row] for row in values]
            maps.append(
                HeatMap(
                    f"{name}: {student}", rows, names, values, texts, LITTLE_TO_MUCH, (0.0, most), column=1.1
                )
            )
    foot = "What the student loses to each teacher (rows) on each domain (columns).  *: not held out."
    return drawn(maps, 2, "Distillation losses by teacher and domain", foot)


def cosines_png(cosines: Sequence[BlockCosine]) -> bytes:
    """Pairs of teachers × blocks, a map for each student."""
    maps = []
    for student in dict.fromkeys(c.student for c in cosines):
        own = [c for c in cosines if c.student == student]
        pairs = list(dict.fromkeys((c.first, c.second) for c in own))
        blocks = list(dict.fromkeys(c.block for c in own))
        cells = {(c.first, c.second, c.block): c.cosine for c in own}
        values = np.array([[cells[(*pair, block)] for block in blocks] for pair in pairs])
        texts = [[f"{value:+.2f}" for value in row] for row in values]
        rows = [f"{a}\n{b}" for a, b in pairs]
        names = ["whole" if block == WHOLE else block for block in blocks]
        maps.append(HeatMap(student, rows, names, values, texts, AGAINST_TO_WITH, (-1.0, 1.0), row=_TALL_ROW))
    foot = "By block of the encoder; below 0 (orange), a step for one teacher is a step against the other."
    return drawn(maps, 1, "Cosine of the teachers' gradients", foot)


def influence_png(influences: Sequence[Influence]) -> bytes:
    """Teachers × tasks: the difference with its interval, coloured where it is told from 0."""
    rows = list(dict.fromkeys(i.teacher for i in influences))
    tasks = {i.task: i for i in influences}
    cells = {(i.teacher, i.task): i for i in influences}
    values = np.full((len(rows), len(tasks)), math.nan)
    texts = [["" for _ in tasks] for _ in rows]
    quiet = set()
    for r, teacher in enumerate(rows):
        for c, task in enumerate(tasks):
            if (found := cells.get((teacher, task))) is None:
                continue
            unit, difference = found.comparison.metric.unit, found.comparison.difference
            values[r, c] = math.copysign(_STRONGEST, found.gain) if found.score is None else found.score
            texts[r][c] = f"{fine(difference.value, unit, signed=True)}\n{interval(difference, unit)}"
            if found.outcome == UNTOLD:
                quiet.add((r, c))
            else:
                texts[r][c] = f"{found.outcome}\n{texts[r][c]}"
    names = [f"{task}\n{heading(i.comparison.metric)}" for task, i in tasks.items()]
    one = HeatMap(
        "",
        rows,
        names,
        values,
        texts,
        AGAINST_TO_WITH,
        (-_STRONGEST, _STRONGEST),
        frozenset(quiet),
        row=0.72,
        column=_WIDE_COLUMN,
    )
    foot = (
        "With the teacher minus without it, 95 % interval.  Blue: it helps.  Orange: it hurts.  "
        "Grey text: cannot be told.  One training each: another seed is not in the intervals."
    )
    return drawn([one], 1, "What each teacher does to each task", foot)


def drawn(maps: Sequence[HeatMap], across: int, title: str, foot: str) -> bytes:
    """Maps in `across` columns, filled column by column.  The same maps give the same bytes."""
    down = math.ceil(len(maps) / across)
    wide = max(one.width for one in maps)
    tall = max(one.height for one in maps)
    width = max(wide * across + _GAP * (across - 1) + 0.3, 6.4)
    lines = textwrap.wrap(foot, int(width * 13))
    height = tall * down + 0.45 + 0.17 * len(lines) + 0.15
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.15 / width, 1 - 0.32 / height, title, fontsize=11, weight="bold")
    for place, one in enumerate(maps):
        column, row = divmod(place, down)
        left = (wide + _GAP) * column + _SIDE
        top = height - 0.45 - tall * row - _HEAD
        size = (one.column * len(one.columns), one.row * len(one.rows))
        box = (left / width, (top - size[1]) / height, size[0] / width, size[1] / height)
        _map(figure.add_axes(box), one)
    figure.text(0.15 / width, 0.12 / height, "\n".join(lines), fontsize=8, color=QUIET, linespacing=1.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _map(axes: Axes, one: HeatMap) -> None:
    scale = Normalize(*one.limits, clip=True)
    for r, row in enumerate(one.values):
        for c, value in enumerate(row):
            empty = math.isnan(value) or (r, c) in one.quiet
            face = (1.0, 1.0, 1.0, 1.0) if empty else one.colours(float(scale(value)))
            axes.add_patch(Rectangle((c, r), 1, 1, facecolor=face, edgecolor=GRID, linewidth=0.8))
            dark = 0.299 * face[0] + 0.587 * face[1] + 0.114 * face[2] < 0.55
            ink = QUIET if (r, c) in one.quiet else "white" if dark else "black"
            axes.text(c + 0.5, r + 0.5, one.texts[r][c], ha="center", va="center", fontsize=7.5, color=ink)
    axes.set_xlim(0, len(one.columns))
    axes.set_ylim(len(one.rows), 0)
    axes.set_xticks([c + 0.5 for c in range(len(one.columns))])
    turn: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if one.slanted else {}
    axes.set_xticklabels([_lines(name) for name in one.columns], fontsize=7.5, **turn)
    axes.set_yticks([r + 0.5 for r in range(len(one.rows))])
    axes.set_yticklabels([_lines(name) for name in one.rows], fontsize=7.5)
    axes.tick_params(length=0, colors=QUIET)
    axes.spines[:].set_visible(False)
    axes.set_title(_label(one.title, _TITLE), fontsize=9, loc="left")


def _label(text: str, most: int) -> str:
    return clean(text, most).replace("$", r"\$")


def _lines(name: str) -> str:
    return "\n".join(_label(line, _NAME) for line in name.split("\n"))


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
