"""Where pixels lie on the token grid: the one rule for targets (pixels -> patches) and for
predictions (tokens -> pixels).

A label map, whatever its size, covers the same field of view as the image at network size; the
token grid covers that image plus its padding.  Pixel and token centres are at half-integers.  Label
row r of H thus lies at token coordinate ((r + ½) · h_image / H + top) / patch_height.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenGrid:
    """Geometry of the tokens of an image.

    grid: (h, w) tokens.  image_size: (height, width) at network size, without padding.
    padding: (left, top, right, bottom) network pixels that the grid covers beyond the image.
    """

    grid: tuple[int, int]
    image_size: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    def coordinates(self, axis: int, size: int) -> NDArray[np.float64]:
        """Token coordinates (size,) of `size` label pixel centres along rows (0) or columns (1);
        token i spans [i, i + 1)."""
        before = self.padding[1 - axis]
        padded = self.image_size[axis] + before + self.padding[3 - axis]
        centres = (np.arange(size) + 0.5) * (self.image_size[axis] / size) + before
        return np.asarray(centres * (self.grid[axis] / padded), dtype=np.float64)

    def cells(self, size: tuple[int, int]) -> NDArray[np.int64]:
        """Index (H·W,) of the token whose cell holds each label pixel's centre.  size: (H, W)."""
        rows = np.floor(self.coordinates(0, size[0])).astype(np.int64)
        columns = np.floor(self.coordinates(1, size[1])).astype(np.int64)
        return np.asarray((rows[:, None] * self.grid[1] + columns).ravel())

    def upsample(self, values: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.floating]:
        """Bilinear interpolation of token values at the label pixels' centres.

        values: (..., h, w).  Returns (..., H, W) of the same dtype.  Beyond the outermost token
        centres the nearest value holds.  Without padding this is `interpolate(mode="bilinear",
        align_corners=False)`; with padding, upsampling to the padded size and cropping, in one step.
        """
        rows = _bilinear(self.coordinates(0, size[0]), self.grid[0]).astype(values.dtype)
        columns = _bilinear(self.coordinates(1, size[1]), self.grid[1]).astype(values.dtype)
        return np.asarray(rows @ (values @ columns.T))


def _bilinear(coordinates: NDArray[np.float64], tokens: int) -> NDArray[np.float64]:
    """Matrix (len(coordinates), tokens) of bilinear weights; rows sum to 1."""
    position = np.clip(coordinates - 0.5, 0.0, tokens - 1.0)
    lower = np.minimum(np.floor(position).astype(np.int64), max(tokens - 2, 0))
    share = position - lower
    rows = np.arange(len(coordinates))
    matrix = np.zeros((len(coordinates), tokens))
    matrix[rows, lower] = 1.0 - share
    matrix[rows, np.minimum(lower + 1, tokens - 1)] += share
    return matrix
