"""A room's shell and the things in it: plain data between layout, cameras and rendering."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tools.minirooms.catalogue import Model
from tools.minirooms.footprints import Box, boxes_overlap

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """One wall on the plan, from `start` to `end` (metres); the room is on its left."""

    start: tuple[float, float]
    end: tuple[float, float]

    @property
    def length(self) -> float:
        return math.dist(self.start, self.end)

    @property
    def direction(self) -> tuple[float, float]:
        return (self.end[0] - self.start[0]) / self.length, (self.end[1] - self.start[1]) / self.length

    @property
    def normal(self) -> tuple[float, float]:
        """Unit vector into the room."""
        dx, dy = self.direction
        return -dy, dx

    def at(self, along: float, inward: float) -> tuple[float, float]:
        """The point `along` metres from the start and `inward` metres from the wall."""
        (dx, dy), (nx, ny) = self.direction, self.normal
        return self.start[0] + along * dx + inward * nx, self.start[1] + along * dy + inward * ny


def facing(direction: tuple[float, float]) -> float:
    """The yaw that turns a model's front (-y) towards a direction of the plan."""
    return math.atan2(direction[0], -direction[1])


@dataclass(frozen=True)
class Item:
    """A catalogue model in the room: x, y, z of its underside's centre (metres) and yaw (radians)."""

    model: Model
    x: float
    y: float
    z: float
    yaw: float

    @property
    def box(self) -> Box:
        width, depth, height = self.model.size
        return Box(self.x, self.y, width / 2, depth / 2, self.yaw, self.z, self.z + height)

    @property
    def world_from_model(self) -> F64:
        """(4, 4): model frame (z up, front -y, origin below its centre) -> world."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([[c, -s, 0, self.x], [s, c, 0, self.y], [0, 0, 1, self.z], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Panel:
    """A flat rectangle: a poster, a window pane or a lamp panel.  centre (3,), u, v: half-edge vectors (3,);
    it faces u x v."""

    centre: tuple[float, float, float]
    u: tuple[float, float, float]
    v: tuple[float, float, float]
    kind: str
    radiance: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Room:
    """A room before cameras.

    size: (x, y, z) extent in metres, one corner at the origin, floor at z = 0.  notch: the corner
    block of an L-shaped room, or None.  segments: walls, counter-clockwise.
    """

    id: str
    theme: str
    size: tuple[float, float, float]
    notch: Box | None
    segments: tuple[Segment, ...]
    items: list[Item] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    bodies: list[Box] = field(default_factory=list)
    """Boxes around the people."""

    def contains(self, box: Box, margin: float = 0.0) -> bool:
        """Whether a box is inside the walls, at least `margin` metres from them."""
        corners = box.corners()
        width, depth, height = self.size
        inside = bool(
            corners.min() >= margin - 1e-9
            and corners[:, 0].max() <= width - margin + 1e-9
            and corners[:, 1].max() <= depth - margin + 1e-9
        )
        if not inside or box.low < -1e-9 or box.high > height + 1e-9:
            return False
        return self.notch is None or not boxes_overlap(box.grown(max(margin - 1e-6, 0.0)), self.notch)

    def clearance(self, x: float, y: float, low: float, high: float) -> float:
        """Distance (m) on the plan from a point to the nearest wall, item or person that reaches into the
        height interval; negative outside the room."""
        width, depth, _ = self.size
        nearest = min(x, y, width - x, depth - y)
        boxes = [item.box for item in self.items] + self.bodies
        if self.notch is not None:
            boxes.append(self.notch)
        for box in boxes:
            if box.low < high and low < box.high:
                distance = box.distance(x, y)
                nearest = min(nearest, distance if distance > 0 else -1.0)
        return nearest


def make_shell(room_id: str, theme: str, rng: np.random.Generator) -> Room:
    """An empty room: a rectangle of 3.4-6.4 x 3.2-5.6 m, 2.4-3.0 m high, in a third of the cases
    with one corner taken out."""
    width, depth = float(rng.uniform(3.4, 6.4)), float(rng.uniform(3.2, 5.6))
    height = float(rng.uniform(2.4, 3.0))
    if rng.uniform() > 0.33 or width * depth < 15:
        points = [(0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth)]
        notch = None
    else:
        nx, ny = float(rng.uniform(0.18, 0.36)) * width, float(rng.uniform(0.18, 0.36)) * depth
        points = [(0.0, 0.0), (width, 0.0), (width, depth - ny), (width - nx, depth - ny)]
        points += [(width - nx, depth), (0.0, depth)]
        notch = Box(width - nx / 2, depth - ny / 2, nx / 2, ny / 2, 0.0, 0.0, height)
    segments = tuple(Segment(a, b) for a, b in zip(points, points[1:] + points[:1], strict=True))
    return Room(room_id, theme, (width, depth, height), notch, segments)
