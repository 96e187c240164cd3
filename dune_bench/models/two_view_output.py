"""What a two-view decoder says of each pixel of a pair of views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Margins = tuple[float, float, float, float]
"""Shares (left, top, right, bottom) of a map's width and height."""


@dataclass(frozen=True)
class ViewOutput:
    """Maps of one view of each pair of a batch, float32.

    points: (B, H, W, 3) metres, OpenCV axes, in the frame of **view 1's camera** for both views.
    confidence: (B, H, W), of the points, > 0.  descriptors: (B, H, W, D), unit length.
    descriptor_confidence: (B, H, W), > 0.  The map covers the whole image: its cell (y, x) is centred at
    ((x + 0.5) / W, (y + 0.5) / H) of the image's width and height.
    """

    points: Tensor
    confidence: Tensor
    descriptors: Tensor
    descriptor_confidence: Tensor

    def cropped(self, margins: Margins) -> ViewOutput:
        """The part of the maps inside `margins`: shares (left, top, right, bottom) of the width and height
        that are padding.  The new map has cells of about the old ones' size; values are bilinear between
        the old centres, descriptors of unit length again."""
        if not any(margins):
            return self
        left, top, right, bottom = margins
        height, width = self.confidence.shape[1:]
        size = cropped_size((height, width), margins)
        rows, columns = (
            # In grid_sample's coordinates the whole map spans -1 to 1.
            2 * (first + (1 - first - last) * (torch.arange(cells, device=self.points.device) + 0.5) / cells)
            - 1
            for first, last, cells in ((top, bottom, size[0]), (left, right, size[1]))
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        at = torch.stack([x, y], -1).expand(len(self.points), -1, -1, -1)

        def sampled(maps: Tensor) -> Tensor:
            channels = maps.reshape(*maps.shape[:3], -1).permute(0, 3, 1, 2)
            found = F.grid_sample(channels, at, padding_mode="border", align_corners=False)
            return found.permute(0, 2, 3, 1).reshape(len(maps), *size, *maps.shape[3:])

        return ViewOutput(
            sampled(self.points),
            sampled(self.confidence),
            F.normalize(sampled(self.descriptors), dim=-1),
            sampled(self.descriptor_confidence),
        )


def cropped_size(size: tuple[int, int], margins: Margins) -> tuple[int, int]:
    """(height, width) that maps of `size` have after `ViewOutput.cropped`."""
    left, top, right, bottom = margins
    return round(size[0] * (1 - top - bottom)), round(size[1] * (1 - left - right))
