"""What a pinhole or parallel camera sees of triangles and points: first hits, shaded, without a window.

Every pixel's ray goes through its centre (half-integers); the first surface on it wins.  All work is
on arrays of candidate (triangle, pixel) pairs, in blocks of bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Size = tuple[int, int]

NEAR = 0.05
"""Metres: a triangle with a corner nearer to a pinhole camera, or behind it, is not drawn."""
_CANDIDATES = 2_000_000
"""(triangle, pixel) pairs tried at a time."""


@dataclass(frozen=True)
class Hits:
    """First hits per pixel.

    triangle: int64 (H, W), −1 where the ray meets nothing.  depth: float64 (H, W), z of the hit, inf
    there.  weights: float64 (H, W, 3), barycentric weights of the corners in space, 0 there.
    """

    triangle: Ints
    depth: Floats
    weights: Floats

    @property
    def mask(self) -> NDArray[np.bool_]:
        return self.triangle >= 0


def cast(corners: Floats, depths: Floats, size: Size, parallel: bool = False) -> Hits:
    """First hits of the rays through the pixel centres of an image of `size` (height, width).

    corners: (F, 3, 2) pixels (x, y) of the projected triangles.  depths: (F, 3) z of the corners, metres;
    larger is farther.  parallel: depths are linear in pixels (from above); else 1/z is.
    """
    height, width = size
    best_z = np.full(height * width, np.inf)
    best = np.full(height * width, -1, np.int64)
    weights = np.zeros((height * width, 3))
    usable = np.isfinite(corners).all((1, 2)) & np.isfinite(depths).all(1)
    usable &= parallel | (depths > NEAR).all(1)
    chosen = np.flatnonzero(usable)
    for faces, pixels in _candidates(corners[chosen], size):
        face = chosen[faces]
        centre = np.stack([pixels % width + 0.5, pixels // width + 0.5], -1)
        share, inside = _barycentric(corners[face], centre)
        face, pixels, share = face[inside], pixels[inside], share[inside]
        if not parallel:
            share = share / depths[face]
            share /= share.sum(1, keepdims=True)
        z = (share * depths[face]).sum(1)
        nearer = z < best_z[pixels]
        face, pixels, share, z = face[nearer], pixels[nearer], share[nearer], z[nearer]
        np.minimum.at(best_z, pixels, z)
        first = z == best_z[pixels]
        face, pixels, share = face[first], pixels[first], share[first]
        best[pixels] = len(corners)
        np.minimum.at(best, pixels, face)  # of equal depths the lower triangle
        first = face == best[pixels]
        weights[pixels[first]] = share[first]
    shape = (height, width)
    return Hits(best.reshape(shape), best_z.reshape(shape), weights.reshape(*shape, 3))


def _candidates(corners: Floats, size: Size) -> Iterator[tuple[Ints, Ints]]:
    """(triangle, pixel) pairs whose pixel centre lies in the triangle's bounding box, in blocks."""
    height, width = size
    # The first and last pixel whose centre is within the box.
    low = np.ceil(corners.min(1) - 0.5)
    high = np.floor(corners.max(1) - 0.5)
    first = np.clip(low, 0, (width, height)).astype(np.int64)
    last = np.clip(high, -1, (width - 1, height - 1)).astype(np.int64)
    spans = np.maximum(last - first + 1, 0)
    counts = spans[:, 0] * spans[:, 1]
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        base = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, base + _CANDIDATES, side="right")))
        block = np.arange(start, stop)
        faces = np.repeat(block, counts[block])
        offset = np.arange(len(faces)) - np.repeat(ends[block] - counts[block] - base, counts[block])
        rows, columns = np.divmod(offset, np.maximum(spans[faces, 0], 1))
        yield faces, (first[faces, 1] + rows) * width + first[faces, 0] + columns
        start = stop


def _barycentric(corners: Floats, points: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Weights (n, 3) of triangles' corners (n, 3, 2) at points (n, 2), and which points lie inside.
    A triangle without area holds nothing."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = _cross(b - a, c - a)
    flat = area == 0
    scale = np.where(flat, 1.0, area)
    share = np.stack([_cross(b - points, c - points), _cross(c - points, a - points)], -1) / scale[:, None]
    share = np.concatenate([share, 1 - share.sum(1, keepdims=True)], 1)
    return share, ~flat & (share >= 0).all(1)


def _cross(u: Floats, v: Floats) -> Floats:
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]


def splat(pixels: Floats, depths: Floats, size: Size, side: int = 1) -> Ints:
    """Which point each pixel shows: int64 (H, W), −1 for none; the nearest point wins.

    pixels: (n, 2) positions (x, y).  depths: (n,), larger is farther; not finite or ≤ 0: left out.
    side: points are squares of so many pixels.
    """
    height, width = size
    kept = np.flatnonzero(np.isfinite(pixels).all(1) & np.isfinite(depths) & (depths > 0))
    corner = np.floor(pixels[kept] - (side - 1) / 2).astype(np.int64)
    steps = np.arange(side)
    x = (corner[:, 0, None, None] + steps).repeat(side, 1).reshape(-1)
    y = (corner[:, 1, None, None] + steps[:, None]).repeat(side, 2).reshape(-1)
    who = np.repeat(kept, side * side)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    at, who = (y * width + x)[inside], who[inside]
    order = np.lexsort((who, depths[who], at))
    places, first = np.unique(at[order], return_index=True)
    shown = np.full(height * width, -1, np.int64)
    shown[places] = who[order[first]]
    return shown.reshape(height, width)
