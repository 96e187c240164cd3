"""Rows of patch features as a stream, so that a fit holds one block and not the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.errors import TaskError
from dune_bench.probes.base import FeatureSource
from dune_bench.probes.grids import TokenGrid

BLOCK_ROWS = 4608
"""Rows of one matrix product: enough to keep the processor busy, few enough to stay in its caches."""


class Rows(ABC):
    """A re-iterable stream of rows.  count: n.  dim: C.  device: where blocks are."""

    count: int
    dim: int
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Consecutive (rows, x), x float (r, C) on the solver's device; r is small."""


class PatchRows(Rows):
    """Patch features of images as rows: images in the given order, tokens row-major."""

    def __init__(
        self, features: FeatureSource, image_ids: Sequence[str], chunk_bytes: int, device: torch.device
    ) -> None:
        self.grid = grid_of(features)
        self.count = len(image_ids) * self.grid.tokens
        self.dim = features.dim
        self._features = features
        self._ids = list(image_ids)
        self._chunk_bytes = chunk_bytes
        self.device = device

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        tokens = self.grid.tokens
        for images, batch in self._features.batches(self._ids, self._chunk_bytes):
            # A view for channels-last features, which is what the contract promises.
            x = batch.patch.permute(0, 2, 3, 1).reshape(-1, self.dim).to(self.device)
            start = images.start * tokens
            for offset in range(0, len(x), BLOCK_ROWS):
                block = x[offset : offset + BLOCK_ROWS]
                yield slice(start + offset, start + offset + len(block)), block


def grid_of(features: FeatureSource) -> TokenGrid:
    """The geometry of a source's tokens."""
    return TokenGrid(features.grid, features.image_size, features.padding)


def image_ids(samples: Lazy[Any]) -> list[str]:
    """The image of each sample of a one-image kind."""
    return [samples.images(i)[0].id for i in range(len(samples))]


def room_folds(groups: Sequence[str], folds: int) -> NDArray[np.int64]:
    """Fold of each sample: whole groups, dealt in their order to `folds` folds (at most one per
    group).  Depends on nothing but the groups.  Raises TaskError with fewer than two groups."""
    order = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    if len(order) < 2:
        raise TaskError(f"choosing λ needs at least 2 groups (rooms) to fit on, got {len(order)}")
    count = min(folds, len(order))
    return np.array([order[group] % count for group in groups], dtype=np.int64)
