"""A two-view decoder that knows, and the scene it knows: three views side by side before stepped walls, where
cells of one view see exactly what cells of another see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dune_bench.data.samples import PairSample, RelocScene, View
from dune_bench.geometry.cameras import pixel_centres, scale_points, unproject
from dune_bench.geometry.poses import invert, pose, transform
from dune_bench.models.two_view_decoder import DecoderConfig
from dune_bench.models.two_view_output import ViewOutput
from dune_bench.probes.two_view_maps import PairMaps, ViewMaps
from tests.probes.fake_features import FakeFeatures
from tests.probes.reloc_scenes import (
    BANDS,
    GRID,
    HALF_TURN,
    IMAGE,
    NETWORK,
    SHIFT_M,
    K,
    band_depth,
    make_view,
)
from tests.probes.two_view_world import Floats, view_maps

PLACES = (0, 1, -1)
"""Of the views: steps of SHIFT_M to the left of the first."""
_MARGIN = 2 * max(columns for _, _, columns in BANDS)


def seen_from(first: int, second: int) -> Floats:
    """T_2_1 of two views."""
    return pose(np.eye(3), np.array([(PLACES[second] - PLACES[first]) * SHIFT_M, 0.0, 0.0]))


def true_maps(first: int, second: int) -> PairMaps:
    """Exact maps; equal descriptors are exactly the same place."""
    centres = scale_points(pixel_centres(GRID).reshape(-1, 2), GRID, IMAGE)
    own = unproject(K, centres, band_depth(GRID).ravel())  # of each view: the walls face all of them
    in_1 = (own, transform(invert(seen_from(first, second)), own))
    maps = [
        view_maps(points.reshape(*GRID, 3), _wallpaper(view))
        for view, points in zip((first, second), in_1, strict=True)
    ]
    return PairMaps(*maps)


def _wallpaper(view: int) -> Floats:
    """(h, w, 32) descriptors of what each cell of a view sees."""
    paper = np.random.default_rng(0).normal(size=(GRID[0], GRID[1] + 2 * _MARGIN, 32))
    rows = []
    for row in range(GRID[0]):
        shift = PLACES[view] * next(columns for below, _, columns in BANDS if row < below)
        rows.append(paper[row, _MARGIN - shift : _MARGIN - shift + GRID[1]])
    return np.stack(rows)


class KnownDecoder(nn.Module):
    """Looks up which views a pair is of in their tokens.  changed: maps that are not the true ones."""

    def __init__(self, changed: dict[tuple[int, int], PairMaps] | None = None) -> None:
        super().__init__()
        self.config = DecoderConfig(encoder_dim=1, patch=NETWORK[0] // GRID[0], cells=1)
        self._changed = changed or {}

    def forward(self, tokens1: Tensor, tokens2: Tensor) -> tuple[ViewOutput, ViewOutput]:
        views = [(int(a[0, 0, 0]), int(b[0, 0, 0])) for a, b in zip(tokens1, tokens2, strict=True)]
        maps = [self._changed.get(pair) or true_maps(*pair) for pair in views]
        return _batch([one.view1 for one in maps]), _batch([one.view2 for one in maps])


def _batch(views: Sequence[ViewMaps]) -> ViewOutput:
    names = ("points", "confidence", "descriptors", "descriptor_confidence")
    return ViewOutput(*(torch.from_numpy(np.stack([getattr(v, name) for v in views])) for name in names))


def scene(name: str = "room") -> RelocScene:
    """The first view as the reference, the other two as queries; the world is no camera's frame."""
    world = pose(HALF_TURN, np.array([1.0, 2.0, 3.0]))
    views: list[View] = [
        replace(
            make_view(f"{name}/{i}", name, seen_from(0, i) @ world),
            depth=band_depth(GRID).astype(np.float32),
        )
        for i in range(len(PLACES))
    ]
    return RelocScene(name, name, views[0], tuple(views[1:]))


def pairs(of: RelocScene) -> list[PairSample]:
    """The reference with each query, and the queries with each other."""
    ends = [(of.reference, query) for query in of.queries] + [of.queries]
    return [PairSample(f"{a.id}-{b.id}", of.group, a, b, 0.5) for a, b in ends]


def tokens(*scenes: RelocScene) -> FakeFeatures:
    """Features that are the number of the view."""
    maps = {
        f"{one.group}/{i}": torch.full((1, *GRID), float(i)) for one in scenes for i in range(len(PLACES))
    }
    return FakeFeatures(maps, NETWORK)
