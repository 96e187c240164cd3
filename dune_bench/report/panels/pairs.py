"""Two images beside each other, and lines between points of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from dune_bench.report.panels.canvas import Canvas
from dune_bench.report.panels.colours import RGB

Floats = NDArray[np.float64]
Size = tuple[int, int]
SPACE = 0.03
"""Room between the images, of the first one's width."""


class Side:
    """Two images in one tile.  Their points are in pixels of each; `second` maps view 2's to the tile."""

    def __init__(self, size1: Size, size2: Size) -> None:
        self.zoom = size1[0] / size2[0]  # both as high as the first
        self.offset = size1[1] * (1 + SPACE)
        self.width, self.height = self.offset + size2[1] * self.zoom, size1[0]

    @property
    def aspect(self) -> float:
        """Height by width."""
        return self.height / self.width

    def second(self, points: Floats) -> Floats:
        """Points (n, 2) of view 2 in the tile."""
        return np.asarray(points * self.zoom + (self.offset, 0.0))

    def draw(self, sheet: Canvas, row: int, column: int, caption: str, first: RGB, second: RGB) -> Axes:
        axes = sheet.tile(row, column, caption)
        right = self.width
        axes.imshow(first, extent=(0, self.offset / (1 + SPACE), self.height, 0), aspect="auto")
        axes.imshow(second, extent=(self.offset, right, self.height, 0), aspect="auto")
        axes.set_xlim(0, right)
        axes.set_ylim(self.height, 0)
        return axes

    def lines(self, axes: Axes, points1: Floats, points2: Floats, colours: Any, width: float = 0.9) -> None:
        """Lines from points (n, 2) of view 1 to points (n, 2) of view 2.  colours: one or n.  width: of the
        lines, in points; the dots at their ends go with it."""
        ends = np.stack([points1, self.second(points2)], 1)
        axes.add_collection(LineCollection(list(ends), colors=colours, linewidths=width, alpha=0.8))
        for points in (points1, self.second(points2)):
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=7 * (width / 0.9) ** 2,
                c=colours,
                linewidths=0.3,
                edgecolors="white",
                zorder=3,
            )


def spread_out(points: Floats, count: int) -> NDArray[np.int64]:
    """Indices of at most `count` points (n, 2), far from each other: the farthest from all taken, again
    and again, beginning with the one nearest the middle.  The same points give the same choice."""
    if len(points) <= count:
        return np.arange(len(points))
    chosen = [int(np.argmin(((points - points.mean(0)) ** 2).sum(1)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return np.sort(np.array(chosen))


def position_colours(points: Floats, size: tuple[float, float]) -> RGB:
    """A colour (n, 3) for each place (n, 2) of an area of `size` (height, width): blue to yellow across, dark
    to bright downwards, which every kind of sight tells apart."""
    u = np.clip(points[:, 0] / size[1], 0, 1)[:, None]
    v = np.clip(points[:, 1] / size[0], 0, 1)[:, None]
    left = np.array([0.0, 60, 200]) * (1 - v) + np.array([110.0, 190, 255]) * v
    right = np.array([150.0, 60, 0]) * (1 - v) + np.array([255.0, 225, 60]) * v
    return np.asarray((left * (1 - u) + right * u).round(), dtype=np.uint8)


def place_colours(points: Floats) -> RGB:
    """Colours (n, 3) by the place within the box of all points (n, 2)."""
    if not len(points):
        return np.zeros((0, 3), np.uint8)
    low, high = points.min(0), points.max(0)
    width, height = np.maximum(high - low, 1.0)
    return position_colours(points - low, (height, width))
