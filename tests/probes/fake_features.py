"""Features in memory, as a source that counts how many of its bytes are alive at once."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.samples import DepthSample, ImageRef, SegSample
from dune_bench.encoders.base import Features
from dune_bench.probes.base import FeatureSource
from dune_bench.probes.stream import Rows

S = TypeVar("S", SegSample, DepthSample)


class FakeFeatures(FeatureSource):
    """maps: image id -> float32 (C, h, w).  Every batch is a fresh copy, so `most_alive` is honest."""

    def __init__(
        self,
        maps: dict[str, Tensor],
        image_size: tuple[int, int],
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> None:
        self.maps = maps
        first = next(iter(maps.values()))
        self.dim, *grid = first.shape
        self.grid = (grid[0], grid[1])
        self.image_size = image_size
        self.padding = padding
        self.alive = self.most_alive = self.batches_read = 0

    @property
    def image_bytes(self) -> int:
        return self.dim * self.grid[0] * self.grid[1] * 4

    def batches(self, image_ids: Sequence[str], max_bytes: int) -> Iterator[tuple[slice, Features]]:
        step = max(1, max_bytes // self.image_bytes)
        for start in range(0, len(image_ids), step):
            part = slice(start, min(start + step, len(image_ids)))
            yield part, Features(self._batch(image_ids[part]), None, self.padding)

    def _batch(self, image_ids: Sequence[str]) -> Tensor:
        last = torch.stack([self.maps[i].permute(1, 2, 0) for i in image_ids])
        self.batches_read += 1
        self.alive += last.untyped_storage().nbytes()
        self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(last.untyped_storage(), self._freed, last.untyped_storage().nbytes())
        return last.permute(0, 3, 1, 2)

    def _freed(self, size: int) -> None:
        self.alive -= size


class ArrayRows(Rows):
    """Rows of one array, cut into blocks of a given size."""

    def __init__(self, x: Tensor, block: int = 64) -> None:
        self.x = x
        self.count, self.dim = x.shape
        self.block = block

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, self.count, self.block):
            stop = min(start + self.block, self.count)
            yield slice(start, stop), self.x[start:stop]


def image(name: str, size: tuple[int, int] = (56, 56)) -> ImageRef:
    return ImageRef(name, "0" * 64, size, lambda: np.zeros((*size, 3), np.uint8))


def seg_sample(
    name: str, labels: NDArray[np.uint8], group: str = "room", seen: NDArray[np.bool_] | None = None
) -> SegSample:
    tags = {} if seen is None else {"seen": seen}
    return SegSample(name, group, image(name), labels, tags)


def depth_sample(name: str, depth: NDArray[np.float32], group: str = "room") -> DepthSample:
    return DepthSample(name, group, image(name), depth, np.eye(3))


def lazy(samples: Sequence[S]) -> Lazy[S]:
    items = [LazyItem(s.id, s.group, (s.image,), lambda s=s: s) for s in samples]
    return Lazy(items)
