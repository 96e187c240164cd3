"""What the regression sees of a person: means of the tokens in fixed windows around the head's token.

A window is given in parts of the image's side, relative to the head token's centre, so that encoders of
any stride see the same surroundings.  A mean is exact over the area: a token that a window cuts counts
by its share.  The part of a window beyond the grid is left out; where nothing is left, the image's mean
token stands in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.probes.grids import TokenGrid

Floats = NDArray[np.float64]
Window = tuple[float, float, float, float]
"""(left, top, right, bottom) relative to the head, in parts of the image's side at network size."""

SLIVER = 1e-3
"""Less of a window than this, in tokens, is nothing: the share of a token that rounding leaves."""


class Summed:
    """The summed-area table of one image's tokens.  patch: (C, h, w)."""

    def __init__(self, patch: Tensor) -> None:
        self.dim, self.height, self.width = patch.shape
        table = torch.zeros(self.height + 1, self.width + 1, self.dim, dtype=torch.float64)
        table[1:, 1:] = patch.permute(1, 2, 0).double().cumsum(0).cumsum(1)
        self._table = table

    def means(self, boxes: Floats) -> Tensor:
        """(n, C) means over boxes (n, 4): left, top, right, bottom in token coordinates (token i spans
        [i, i + 1))."""
        limits = np.array([self.width, self.height, self.width, self.height], dtype=np.float64)
        left, top, right, bottom = np.clip(boxes, 0.0, limits).T
        empty = (right - left <= SLIVER) | (bottom - top <= SLIVER)
        left, top = np.where(empty, 0.0, left), np.where(empty, 0.0, top)
        right, bottom = np.where(empty, self.width, right), np.where(empty, self.height, bottom)
        area = torch.from_numpy((right - left) * (bottom - top))[:, None]
        total = self._at(right, bottom) - self._at(left, bottom) - self._at(right, top) + self._at(left, top)
        return total / area

    def _at(self, x: Floats, y: Floats) -> Tensor:
        """Sum over [0, x) × [0, y), bilinear between the table's entries: exact, as tokens are constant."""
        column = np.minimum(np.floor(x).astype(np.int64), self.width - 1)
        row = np.minimum(np.floor(y).astype(np.int64), self.height - 1)
        dx, dy = torch.from_numpy(x - column)[:, None], torch.from_numpy(y - row)[:, None]
        t = self._table
        above = t[row, column] * (1 - dx) + t[row, column + 1] * dx
        below = t[row + 1, column] * (1 - dx) + t[row + 1, column + 1] * dx
        return above * (1 - dy) + below * dy


def window_boxes(tokens: NDArray[np.int64], grid: TokenGrid, windows: Sequence[Window]) -> Floats:
    """(n, windows, 4) boxes in token coordinates around the centres of tokens (n, 2) (row, column)."""
    left, top, right, bottom = grid.padding
    height, width = grid.image_size
    per_side = np.array(
        [grid.grid[1] * width / (width + left + right), grid.grid[0] * height / (height + top + bottom)]
    )
    centres = tokens[:, ::-1] + 0.5
    boxes = np.asarray(windows, np.float64).reshape(-1, 4) * np.tile(per_side, 2)
    return np.asarray(np.tile(centres, 2)[:, None] + boxes[None])


def descriptors(
    patch: Tensor, tokens: NDArray[np.int64], grid: TokenGrid, windows: Sequence[Window]
) -> Tensor:
    """(n, (1 + windows) · C), float64: the head token itself, then the windows' means.

    patch: (C, h, w).  tokens: (n, 2) rows and columns.
    """
    own = patch.permute(1, 2, 0)[tokens[:, 0], tokens[:, 1]].double()
    boxes = window_boxes(tokens, grid, windows).reshape(-1, 4)
    means = Summed(patch).means(boxes).reshape(len(tokens), -1)
    return torch.cat((own, means), 1)
