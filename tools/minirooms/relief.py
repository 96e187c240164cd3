"""The upper surface of a model seen from above: where things can stand, and how high a seat is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.minirooms.meshes import Part

F64 = NDArray[np.float64]
_CELL = 0.025
_SAMPLES_PER_M2 = 40_000


@dataclass(frozen=True)
class Relief:
    """heights: (ny, nx) metres above the model's underside, -inf where there is nothing; cell (0, 0) is
    at the model's corner (-width/2, -depth/2); every cell is 2.5 cm."""

    heights: F64
    half_width: float
    half_depth: float

    def patch(self, x: float, y: float, half: float) -> F64:
        """The heights of the cells within a square of the model frame, empty outside."""
        low = np.array([x - half + self.half_width, y - half + self.half_depth]) / _CELL
        high = np.array([x + half + self.half_width, y + half + self.half_depth]) / _CELL
        (i0, j0), (i1, j1) = (
            np.floor(np.maximum(low, 0)).astype(int),
            np.ceil(np.maximum(high, 0)).astype(int),
        )
        return self.heights[j0:j1, i0:i1]

    def flat_height(self, x: float, y: float, half: float, tolerance: float = 0.012) -> float | None:
        """The height of the surface under a square if it is flat within the tolerance, else None."""
        cells = self.patch(x, y, half)
        if cells.size == 0 or not np.isfinite(cells).all() or cells.max() - cells.min() > tolerance:
            return None
        return float(cells.max())

    def seat_height(self) -> float | None:
        """The height (m) of a seat: the middle of the model, if most of it is at one level."""
        y = -0.1 * self.half_depth
        cells = self.patch(0.0, y, 0.12)
        if cells.size == 0 or not np.isfinite(cells).all():
            return None
        height = float(np.median(cells))
        return height if np.mean(np.abs(cells - height) < 0.04) > 0.8 else None


def relief_of(parts: list[Part], size: tuple[float, float, float]) -> Relief:
    """Samples the triangles densely (a fixed seed, so that layouts repeat) and keeps the highest
    point of each cell."""
    rng = np.random.default_rng(1)
    triangles = np.concatenate([part.vertices[part.faces] for part in parts])
    cross = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    # What matters is the area seen from above; upright triangles get a few samples for their edges.
    area = np.abs(cross[:, 2]) / 2
    count = int(np.clip(area.sum() * _SAMPLES_PER_M2, 4_000, 400_000))
    weight = area + 1e-3 * area.sum() / len(area) + 1e-12
    chosen = triangles[rng.choice(len(triangles), count, p=weight / weight.sum())]
    u, v = rng.uniform(size=(2, count, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    points = chosen[:, 0] + u * (chosen[:, 1] - chosen[:, 0]) + v * (chosen[:, 2] - chosen[:, 0])
    half_width, half_depth = size[0] / 2, size[1] / 2
    shape = (max(1, int(np.ceil(size[1] / _CELL))), max(1, int(np.ceil(size[0] / _CELL))))
    column = np.clip(((points[:, 0] + half_width) / _CELL).astype(int), 0, shape[1] - 1)
    row = np.clip(((points[:, 1] + half_depth) / _CELL).astype(int), 0, shape[0] - 1)
    heights = np.full(shape, -np.inf)
    np.maximum.at(heights, (row, column), points[:, 2])
    return Relief(heights, half_width, half_depth)
