"""One column of the leaderboard as a static plot: all encoders with intervals, accuracy against cost."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dune_bench.report.board import Board, Column, Entry, encoder_identity
from dune_bench.report.conditions import facts, machine
from dune_bench.report.format import (
    NO_SPREAD,
    NO_SPREAD_MEANS,
    has_no_spread,
    heading,
    interval,
    number,
    overlaps,
)
from dune_bench.report.glossary import PROBES, explain
from dune_bench.report.html_table import primary_metric
from dune_bench.report.plot_style import GRID, PLAIN, QUIET, Style, clean
from dune_bench.results.schema import Metric

MOST_ROWS = 60
_ROW = 0.24
_LINE = 0.22
_FOOT = 1.0
"""Inches of an encoder's row, of a line of text above the plots, of the text below them."""
_NAME_SIZE = 7.5
_OFFSETS = (4, -10, 15, -21, 26, -32, 37, -43)
"""Points of type: of the names beside marks, and how far up a name may go to be free of others."""
_ABOVE = ("Data", "About the data")
"""Facts that stand above the plots."""

Points = list[tuple[float, Entry]]


def draw_column(board: Board, column: Column, known: Mapping[str, Style]) -> Figure | None:
    """A page; None if the column has no defined primary metric to draw."""
    metric = primary_metric(column)
    drawn = [e for e in column.entries if e.result.primary is not None and e.result.primary.value is not None]
    if metric is None or not drawn:
        return None
    rows = drawn[:MOST_ROWS]
    lines = _lines(board, column, metric)
    head = 0.75 + _LINE * len(lines)
    height = max(6.0 + head, head + _FOOT + _ROW * len(rows))
    figure = Figure(figsize=(13, height), facecolor="white")
    _text(figure, board, column, lines, height, len(drawn))
    bottom, top = _FOOT / height, 1 - head / height
    used = min(top - bottom, (_ROW * len(rows) + 0.2) / height)
    _forest(figure.add_axes((0.21, top - used, 0.29, used)), board, rows, metric, known)
    each = (6.0 - _FOOT) / 2 / height
    places = [(0.59, top - each + 0.05 / height, 0.38, each - 0.6 / height)]
    places.append((0.59, top - 2 * each, 0.38, each - 0.6 / height))
    parameters = _points(drawn, "parameters")
    latency, where = _one_machine(_points(drawn, "latency_ms"))
    texts = (
        f"parameters{_absent(drawn, parameters)}",
        f"latency, ms per image{_absent(drawn, latency)}; {where}",
    )
    for place, points, text in zip(places, (parameters, latency), texts, strict=True):
        _scatter(figure.add_axes(place), board, points, metric, known, text)
    return figure


def _lines(board: Board, column: Column, metric: Metric) -> list[str]:
    """What is asked, how it is counted and on which data, in lines as wide as the page."""
    meaning = f"{explain(metric.id) or 'no description is known'}; {_direction(metric)}."
    known = dict(facts(board, column))
    about = known.get("About the data")
    texts = (
        PROBES.get(column.task.probe, f"Probe {column.task.probe}."),
        f"{heading(metric)}: {meaning}",
        f"Data: {known['Data']}." + (f" {about}." if about else ""),
    )
    return [line for text in texts for line in textwrap.wrap(clean(text, 600), 165)]


def _text(
    figure: Figure, board: Board, column: Column, lines: Sequence[str], height: float, count: int
) -> None:
    def write(inches: float, text: str, **options: Any) -> None:
        figure.text(0.02, 1 - inches / height, text, va="top", parse_math=False, **options)

    write(0.15, clean(column.name, 110), fontsize=14, weight="bold")
    for place, line in enumerate(lines):
        write(0.48 + _LINE * place, line, fontsize=9.5)
    primaries = [entry.result.primary for entry in column.entries if entry.result.primary is not None]
    notes = (
        "Lines are 95 % intervals, from resampling whole rooms or scenes; none where there are too few. "
        "† trained on data of this set. Ringed: on the Pareto front, by the values. "
        "Latency belongs to a machine: result files do not name the processor. "
        + (f"{NO_SPREAD} {NO_SPREAD_MEANS}. " if has_no_spread(primaries) else "")
        + (f"The best {MOST_ROWS} of {count} encoders. " if count > MOST_ROWS else "")
        + "; ".join(f"{name}: {text}" for name, text in facts(board, column) if name not in _ABOVE)
    )
    wrapped = textwrap.wrap(clean(notes, 1100), 215)
    figure.text(
        0.02, 0.08 / height, "\n".join(wrapped), va="bottom", fontsize=7.5, color=QUIET, parse_math=False
    )


def _direction(metric: Metric) -> str:
    return "higher is better" if metric.higher_is_better else "lower is better"


def _forest(
    axes: Axes, board: Board, rows: Sequence[Entry], metric: Metric, known: Mapping[str, Style]
) -> None:
    places = [-float(i) for i in range(len(rows))]
    names = [clean(board.label(e.result), 34) + (" †" if overlaps(e.result) else "") for e in rows]
    for y, entry in zip(places, rows, strict=True):
        _mark(axes, _value(entry), y, entry, known, horizontal=True)
        own = entry.result.primary
        text = number(_value(entry), metric.unit)
        if own is not None and interval(own) == NO_SPREAD:
            text += f" {NO_SPREAD}"
        axes.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=8.5)
    axes.set_yticks(places, names, fontsize=8.5, parse_math=False)
    axes.set_ylim(places[-1] - 0.7, 0.7)
    axes.set_xlabel(f"{heading(metric)}, {_direction(metric)}", fontsize=9, parse_math=False)
    _quiet(axes, "x")


def _value(entry: Entry) -> float:
    primary = entry.result.primary
    if primary is None or primary.value is None:
        raise ValueError(f"{entry.file} has no primary value to draw")
    return primary.value


def _mark(axes: Axes, x: float, y: float, entry: Entry, known: Mapping[str, Style], horizontal: bool) -> None:
    style = known.get(encoder_identity(entry.result), PLAIN)
    primary = entry.result.primary
    if primary is not None and primary.ci95 is not None:
        low, high = primary.ci95
        ends = ((low, high), (y, y)) if horizontal else ((x, x), (low, high))
        axes.plot(*ends, color=style.colour, lw=1.6, solid_capstyle="butt")
    axes.plot(x, y, style.marker, color=style.colour, markersize=6)


def _quiet(axes: Axes, grid: str) -> None:
    axes.grid(True, axis="both" if grid == "both" else "x", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=8.5, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _points(entries: Sequence[Entry], cost: str) -> Points:
    """(cost, entry), cheapest first; without the unknown ones and those that cost nothing, which a
    logarithmic axis has no place for."""
    pairs = [(getattr(entry.result.cost, cost), entry) for entry in entries]
    return sorted(((float(c), e) for c, e in pairs if c is not None and c > 0), key=lambda pair: pair[0])


def _absent(drawn: Sequence[Entry], points: Points) -> str:
    missing = len(drawn) - len(points)
    return f" ({missing} of {len(drawn)} without)" if missing else ""


def _one_machine(points: Points) -> tuple[Points, str]:
    """Latencies of the machine with the most, and its name; others are not comparable."""
    places = Counter(machine(entry.result) for _, entry in points)
    if not places:
        return [], "not measured"
    most = min(places, key=lambda name: (-places[name], name))
    return [(cost, entry) for cost, entry in points if machine(entry.result) == most], most


def pareto_front(points: Points, higher_is_better: bool) -> Points:
    """The points that no other beats: as cheap or cheaper, and better."""
    sign = -1 if higher_is_better else 1
    front: Points = []
    for cost, entry in sorted(points, key=lambda pair: (pair[0], sign * _value(pair[1]))):
        if not front or sign * _value(entry) < sign * _value(front[-1][1]):
            front.append((cost, entry))
    return front


def _scatter(
    axes: Axes, board: Board, points: Points, metric: Metric, known: Mapping[str, Style], label: str
) -> None:
    wrapped = textwrap.wrap(clean(label, 200), 74)
    axes.set_xlabel("\n".join(wrapped), fontsize=9, parse_math=False)
    axes.set_ylabel(heading(metric), fontsize=9, parse_math=False)
    if not points:
        axes.text(0.5, 0.5, "no encoder has this cost recorded", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.12)
    front = pareto_front(points, metric.higher_is_better)
    for cost, entry in points:
        _mark(axes, cost, _value(entry), entry, known, horizontal=False)
    _names(axes, [p for p in points if encoder_identity(p[1].result) in known], board)
    axes.step(*_xy(front), where="post", color="#1b1f24", lw=1, linestyle=(0, (1, 2)))
    axes.plot(*_xy(front), "o", mfc="none", mec="#1b1f24", markersize=12, linestyle="none")
    _quiet(axes, "both")


def _xy(points: Points) -> tuple[list[float], list[float]]:
    return [cost for cost, _ in points], [_value(entry) for _, entry in points]


def _names(axes: Axes, points: Points, board: Board) -> None:
    """Names beside their marks, moved up or down so that they do not cover each other."""
    figure = axes.figure
    axes.autoscale_view()
    scale = 72 / figure.dpi
    middle = scale * (axes.bbox.x0 + axes.bbox.x1) / 2
    order = sorted(points, key=lambda point: -_value(point[1]))
    places = [scale * axes.transData.transform((cost, _value(entry))) for cost, entry in order]
    taken = [(y + 3, x - 5, x + 5) for x, y in places]  # height, left and right end, in points
    for (cost, entry), (x, y) in zip(order, places, strict=True):
        name = clean(board.label(entry.result), 30)
        on_right = x <= middle
        width = 0.62 * _NAME_SIZE * len(name)
        left, right = (x + 7, x + 7 + width) if on_right else (x - 7 - width, x - 7)
        beside = [at for at, start, end in taken if end >= left and start <= right]
        free = (up for up in _OFFSETS if all(abs(y + up - at) > _NAME_SIZE + 2 for at in beside))
        up = next(free, _OFFSETS[0])
        taken.append((y + up, left, right))
        axes.annotate(
            name,
            (cost, _value(entry)),
            xytext=(7 if on_right else -7, up),
            textcoords="offset points",
            ha="left" if on_right else "right",
            fontsize=_NAME_SIZE,
            parse_math=False,
        )
