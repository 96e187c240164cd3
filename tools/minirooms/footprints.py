"""Upright boxes on a floor plan: what collides with what."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """An upright box in the world (metres, z up): centre (x, y), half extents along its own axes,
    yaw (radians, counter-clockwise seen from above) and the interval [low, high] of z."""

    x: float
    y: float
    half_width: float
    half_depth: float
    yaw: float
    low: float
    high: float

    def corners(self) -> F64:
        """(4, 2) corners of the footprint, counter-clockwise."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        w, d = self.half_width, self.half_depth
        local = np.array([[-w, -d], [w, -d], [w, d], [-w, d]])
        return np.asarray(local @ np.array([[c, s], [-s, c]]) + np.array([self.x, self.y]))

    def grown(self, margin: float) -> Box:
        """The same box, larger by `margin` metres on all four sides (not in z)."""
        return Box(
            self.x, self.y, self.half_width + margin, self.half_depth + margin, self.yaw, self.low, self.high
        )

    def distance(self, x: float, y: float) -> float:
        """Distance (m) of a point of the plan to the footprint; 0 inside."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        dx, dy = x - self.x, y - self.y
        u, v = abs(c * dx + s * dy) - self.half_width, abs(c * dy - s * dx) - self.half_depth
        return math.hypot(max(u, 0.0), max(v, 0.0))


def footprints_overlap(a: Box, b: Box) -> bool:
    """Whether two footprints overlap (separating axes of both rectangles; touching is no overlap)."""
    if math.hypot(a.x - b.x, a.y - b.y) >= math.hypot(a.half_width, a.half_depth) + math.hypot(
        b.half_width, b.half_depth
    ):
        return False
    corners = (a.corners(), b.corners())
    for yaw in (a.yaw, b.yaw):
        for axis in (np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])):
            first, second = corners[0] @ axis, corners[1] @ axis
            if first.max() <= second.min() + 1e-9 or second.max() <= first.min() + 1e-9:
                return False
    return True


def boxes_overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share volume; touching is no overlap."""
    return a.low < b.high - 1e-9 and b.low < a.high - 1e-9 and footprints_overlap(a, b)


def collides(box: Box, others: Iterable[Box]) -> bool:
    """Whether a box shares volume with any of the others."""
    return any(boxes_overlap(box, other) for other in others)
