"""Features as probes see them: mapped from the cache, streamed in batches, never all in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from dune_bench.encoders.base import Features
from dune_bench.errors import TaskError
from dune_bench.probes.base import FeatureSource
from dune_bench.run.cache import Row
from dune_bench.run.chunks import Layout

CHUNK_IMAGES = 32
"""Consecutive images of a split that are forwarded and stored together.  Batches never cross a
chunk's end, so that what is computed does not depend on where an earlier run stopped."""


class NoImages(FeatureSource):
    """What features look like, for what is made for an encoder without looking at an image."""

    def __init__(self, layout: Layout) -> None:
        self.dim, self.grid = layout.dim, layout.grid
        self.image_size, self.padding = layout.image_size, layout.padding

    def batches(self, image_ids: Sequence[str], max_bytes: int) -> Iterator[tuple[slice, Features]]:
        del max_bytes
        raise TaskError(f"no images were forwarded, {len(image_ids)} are asked for")


class MappedFeatures(FeatureSource):
    """Features of some images.  rows: image id -> where it is; all of one layout, at least one."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        if not rows:
            raise TaskError("no images: the split is empty")
        layouts = {chunk.header.layout for chunk, _ in rows.values()}
        if len(layouts) != 1:
            sizes = sorted({layout.image_size for layout in layouts})
            raise TaskError(f"images of one task need one size at the network's input, got {sizes}")
        self.layout = layouts.pop()
        self.dim, self.grid = self.layout.dim, self.layout.grid
        self.image_size, self.padding = self.layout.image_size, self.layout.padding
        self._rows = dict(rows)

    def batches(self, image_ids: Sequence[str], max_bytes: int) -> Iterator[tuple[slice, Features]]:
        """See `FeatureSource`.  Batch boundaries depend on the number of images and `max_bytes` only.
        Rows that lie side by side are handed out as they are mapped, without a copy."""
        step = min(max(1, max_bytes // self.layout.image_bytes), CHUNK_IMAGES)
        for start in range(0, len(image_ids), step):
            rows = [self._row(image_id) for image_id in image_ids[start : start + step]]
            yield slice(start, start + len(rows)), self._gather(rows)

    def _row(self, image_id: str) -> Row:
        try:
            return self._rows[image_id]
        except KeyError:
            raise TaskError(f"no features of image {image_id!r}: it is not in the planned split") from None

    def _gather(self, rows: Sequence[Row]) -> Features:
        chunk, first = rows[0]
        if all(other is chunk and row == first + i for i, (other, row) in enumerate(rows)):
            span = slice(first, first + len(rows))
            patch = torch.from_numpy(chunk.patch[span])
            cls = None if chunk.cls is None else torch.from_numpy(chunk.cls[span])
        else:
            patch = torch.from_numpy(np.stack([other.patch[row] for other, row in rows]))
            cls = _stack_cls(rows)
        return Features(patch.permute(0, 3, 1, 2), cls, self.padding)


def _stack_cls(rows: Sequence[Row]) -> Tensor | None:
    found = [chunk.cls[row] for chunk, row in rows if chunk.cls is not None]
    return torch.from_numpy(np.stack(found)) if found else None
