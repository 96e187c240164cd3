"""Features of the images of several domains, as `analyze pca` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.probes.grids import TokenGrid
from dune_bench.report.analysis_pca import FeatureSet
from dune_bench.run.features import MappedFeatures


@dataclass(frozen=True)
class Maps:
    """Features of the images of a domain in one view."""

    mapped: MappedFeatures

    @property
    def grid(self) -> TokenGrid:
        return TokenGrid(self.mapped.grid, self.mapped.image_size, self.mapped.padding)

    def tokens(self, images: int) -> int:
        return images * self.grid.tokens

    def read(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(len(ids), C, h, w)."""
        parts = [f.patch.numpy() for _, f in self.mapped.batches(ids, self.mapped.layout.image_bytes)]
        return np.concatenate(parts)

    def resampled(self, ids: Sequence[str], size: tuple[int, int]) -> NDArray[np.floating[Any]]:
        """(len(ids), C, *size): bilinear, at the middles of the cells that divide the image so."""
        return self.grid.upsample(self.read(ids), size)


@dataclass(frozen=True)
class Source:
    """One view of one encoder.  maps: by domain."""

    features: FeatureSet
    maps: Mapping[str, Maps]


def token_rows(maps: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """(B, C, h, w) -> (B·h·w, C)."""
    return np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1])
