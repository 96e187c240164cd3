"""The radar over tasks as a static plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dune_bench.report.board import Board, Column, encoder_identity
from dune_bench.report.format import number
from dune_bench.report.html_table import primary_metric
from dune_bench.report.plot_style import GRID, QUIET, clean, styles
from dune_bench.results.schema import Metric

MOST_AXES = 12
_INNER = 0.12
"""Radius of the worst value: not 0, where all shapes would meet."""


@dataclass(frozen=True)
class Axis:
    """A column of the radar.  values: by encoder identity.  worst, best: among these."""

    column: Column
    metric: Metric
    values: dict[str, float]
    worst: float
    best: float

    def radius(self, value: float) -> float:
        return _INNER + (1 - _INNER) * (value - self.worst) / (self.best - self.worst)


def radar_axes(board: Board) -> list[Axis]:
    """Columns on which encoders differ; tasks as their cards have them come first."""
    axes = []
    for column in sorted(board.columns, key=lambda c: (c.name != c.task.id, c.name)):
        metric = primary_metric(column)
        values = {
            encoder_identity(entry.result): entry.result.primary.value
            for entry in column.entries
            if entry.result.primary is not None and entry.result.primary.value is not None
        }
        if metric is None or len(set(values.values())) < 2:
            continue
        low, high = min(values.values()), max(values.values())
        worst, best = (low, high) if metric.higher_is_better else (high, low)
        axes.append(Axis(column, metric, values, worst, best))
    return axes


def draw_radar(board: Board, axes: Sequence[Axis], shown: Sequence[str]) -> Figure:
    """axes: at least three.  shown: identities of the encoders to draw."""
    figure = Figure(figsize=(11, 8.5), facecolor="white")
    polar = figure.add_axes((0.25, 0.13, 0.5, 0.65))
    polar.set_aspect("equal")
    polar.set_axis_off()
    polar.set_xlim(-1.15, 1.15)
    polar.set_ylim(-1.15, 1.15)
    _web(polar, axes)
    for identity, style in styles(list(shown)).items():
        points = [
            _point(i, len(axes), axis.radius(axis.values[identity])) if identity in axis.values else None
            for i, axis in enumerate(axes)
        ]
        colour, dashes = style.colour, style.dashes
        for start, end in zip(points, [*points[1:], points[0]], strict=True):
            if start and end:  # a task that was not measured leaves a gap
                polar.plot((start[0], end[0]), (start[1], end[1]), color=colour, linestyle=dashes, lw=1.8)
        known = [point for point in points if point]
        name = clean(board.labels[identity], 40)
        label = f" {name}" if name.startswith("_") else name  # matplotlib hides labels that start so
        polar.plot(*zip(*known, strict=True), style.marker, color=colour, markersize=7, label=label)
    legend = figure.legend(
        loc="upper center", bbox_to_anchor=(0.5, 0.925), ncols=3, frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.text(0.5, 0.95, "Radar over tasks", ha="center", fontsize=14, weight="bold")
    figure.text(0.5, 0.03, _CAPTION, ha="center", fontsize=8.5, color=QUIET)
    return figure


_CAPTION = (
    "Outside is better. An axis runs from the worst to the best value of its column, both written "
    "beside it:\nlengths do not compare between axes, and a long axis may be a small difference. "
    "A gap: not measured."
)


def _point(index: int, count: int, radius: float) -> tuple[float, float]:
    angle = math.pi / 2 - 2 * math.pi * index / count
    return radius * math.cos(angle), radius * math.sin(angle)


def _web(polar: Axes, axes: Sequence[Axis]) -> None:
    count = len(axes)
    for share in (0.0, 0.5, 1.0):
        ring = [_point(i, count, _INNER + (1 - _INNER) * share) for i in range(count)]
        polar.plot(*zip(*ring, ring[0], strict=True), color=GRID, lw=1)
    for i, axis in enumerate(axes):
        inner, outer = _point(i, count, _INNER), _point(i, count, 1.0)
        polar.plot((inner[0], outer[0]), (inner[1], outer[1]), color=GRID, lw=1)
        x, y = _point(i, count, 1.09)
        side = "center" if abs(x) < 0.05 else "left" if x > 0 else "right"
        ends = f"{number(axis.worst, axis.metric.unit)} → {number(axis.best, axis.metric.unit)}"
        text = f"{clean(axis.column.name, 40)}\n{clean(axis.metric.id, 30)} {ends}"
        vertical = "bottom" if y > 0.5 else "top" if y < -0.5 else "center"
        polar.text(x, y, text, ha=side, va=vertical, fontsize=9, parse_math=False)
