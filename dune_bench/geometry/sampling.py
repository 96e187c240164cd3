"""Values of a map at points between its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from dune_bench.errors import TaskError

Floats = NDArray[np.float64]


def sample_features(maps: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear values of feature maps at image points.

    maps: (B, C, h, w), covering an image of `size` (height, width).  points: (B, n, 2) pixels (x, y)
    of that image.  Returns (B, n, C).  Beyond the outer cell centres the border's values hold.
    """
    if maps.ndim != 4 or points.ndim != 3 or points.shape[0] != maps.shape[0]:
        raise TaskError(f"maps {tuple(maps.shape)} and points {tuple(points.shape)} do not belong together")
    scale = torch.tensor([size[1], size[0]], dtype=maps.dtype, device=maps.device)
    unit = 2 * points.to(maps.dtype) / scale - 1
    # align_corners False is the half-integer convention: −1 and 1 are the image's edges.
    values = grid_sample(maps, unit[:, :, None], padding_mode="border", align_corners=False)
    return values[..., 0].transpose(1, 2)


def sample_map(values: NDArray[np.floating[Any]], points: Floats) -> Floats:
    """Bilinear values of one map at points in its own pixels, where all four neighbours are valid.

    values: (h, w) or (h, w, C); a pixel with a non-finite channel is invalid (set invalid depth to
    NaN first).  points: (n, 2) (x, y), pixel centres at half-integers.  Returns (n,) or (n, C)
    float64; NaN outside the map or if a neighbour that counts is invalid: depth is never blended
    with a hole.  Within half a pixel of the edge the border's values hold.
    """
    grid = np.asarray(values, np.float64)
    grid = grid[..., None] if grid.ndim == 2 else grid
    height, width = grid.shape[:2]
    out = np.full((len(points), grid.shape[2]), np.nan)
    with np.errstate(invalid="ignore"):
        inside = ((points >= 0) & (points <= (width, height))).all(-1)
    xy = np.clip(points[inside] - 0.5, 0, (width - 1, height - 1))
    low = np.minimum(np.floor(xy), np.maximum((width - 2, height - 2), 0)).astype(np.int64)
    fraction = xy - low
    total = np.zeros((len(xy), grid.shape[2]))
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dx - fraction[:, 0]) * np.abs(1 - dy - fraction[:, 1])
            row, column = np.minimum(low[:, 1] + dy, height - 1), np.minimum(low[:, 0] + dx, width - 1)
            # A neighbour of weight 0 does not count, so 0 · NaN must not arise.
            total += np.where(weight[:, None] > 0, weight[:, None] * grid[row, column], 0.0)
    out[inside] = total
    return out[:, 0] if values.ndim == 2 else out


def sample_nearest(values: NDArray[np.floating[Any]], points: Floats) -> Floats:
    """The value of the pixel (h, w) that each point (n, 2) falls in; NaN outside.  Returns (n,)."""
    height, width = values.shape
    with np.errstate(invalid="ignore"):
        inside = ((points >= 0) & (points <= (width, height))).all(-1)
    column, row = np.floor(points[inside]).astype(np.int64).T
    out = np.full(len(points), np.nan)
    out[inside] = values[np.minimum(row, height - 1), np.minimum(column, width - 1)]
    return out
