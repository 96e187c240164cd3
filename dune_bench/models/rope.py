"""Rotary position embedding of two-dimensional token grids.

Source: croco `models/pos_embed.py` as restated in PROTOCOLS §3.1 and §12.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 100.0


@dataclass(frozen=True)
class RotaryTable:
    """Cosines and sines (T, D) float32 of a grid's tokens in row-major order, D channels of a head."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotates queries or keys (..., T, D) by their tokens' positions; in float32, returned in x's dtype.

        The first half of the channels turns with the row, the second with the column.  Within a half,
        channel i and channel i + D/4 are one plane.
        """
        halves = x.float().reshape(*x.shape[:-1], 2, 2, -1)
        turned = torch.stack([-halves[..., 1, :], halves[..., 0, :]], -2).flatten(-3)
        return (halves.flatten(-3) * self.cos + turned * self.sin).to(x.dtype)


def rotary_table(grid: tuple[int, int], channels: int, device: torch.device) -> RotaryTable:
    """The table of a token grid (h, w) for heads of `channels` channels, a multiple of 4.

    Plane i of each half turns by position · BASE^(-4i / channels) radians; positions count from 0.
    """
    planes = channels // 4
    # Float32 throughout: autocast must not round positions.
    rate = BASE ** (-torch.arange(planes, dtype=torch.float32, device=device) / planes)
    rows, columns = (torch.arange(n, dtype=torch.float32, device=device) for n in grid)
    y = (rows[:, None, None] * rate).expand(grid[0], grid[1], planes)
    x = (columns[None, :, None] * rate).expand(grid[0], grid[1], planes)
    angles = torch.cat([y, y, x, x], -1).flatten(0, 1)
    return RotaryTable(angles.cos(), angles.sin())
