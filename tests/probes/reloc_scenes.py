"""Scenes whose matches and depth are exact: each token of the reference has its own descriptor, which
stands again in the token of the query where its point is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.samples import RelocScene, View, images_of
from dune_bench.geometry.poses import pose
from dune_bench.probes.base import Head, Upstream
from dune_bench.probes.depth import DepthConvex, DepthProbe
from tests.probes.fake_features import FakeFeatures, image

GRID, NETWORK, IMAGE = (24, 24), (336, 336), (300, 400)
"""The image is stretched to the network's size: other factors along rows and columns."""
CELL = (IMAGE[0] / GRID[0], IMAGE[1] / GRID[1])
K = np.array([[350.0, 0, 200.0], [0, 350.0, 150.0], [0, 0, 1]])
BANDS = ((8, 2.0, 4), (16, 4.0, 2), (24, 8.0, 1))
"""(rows below, metres, columns that the query sees them further right)."""
SHIFT_M = 4 * CELL[1] * 2.0 / 350.0
HALF_TURN = np.diag([-1.0, -1.0, 1.0])

Move = Callable[[int, int], tuple[int, int]]


def sideways(row: int, column: int) -> tuple[int, int]:
    """Where the query, SHIFT_M to the left of the reference, sees a token of the bands."""
    return row, column + next(shift for below, _, shift in BANDS if row < below)


def half_turn(row: int, column: int) -> tuple[int, int]:
    """A camera turned by 180° about its axis: pure rotation."""
    return GRID[0] - 1 - row, GRID[1] - 1 - column


def zoom(row: int, column: int) -> tuple[int, int]:
    """Three times the focal length from the same place: the middle third of the tokens."""
    return 3 * row - 23, 3 * column - 23


MOVES: dict[str, tuple[Move, NDArray[np.float64]]] = {
    "sideways": (sideways, pose(np.eye(3), np.array([SHIFT_M, 0.0, 0.0]))),
    "half_turn": (half_turn, pose(HALF_TURN, np.zeros(3))),
    "zoom": (zoom, np.eye(4)),
    "planar": (lambda r, c: (r, c + 2), pose(np.eye(3), np.array([2 * CELL[1] * 3.0 / 350.0, 0, 0]))),
}


def band_depth(size: tuple[int, int]) -> NDArray[np.float64]:
    rows = (np.arange(size[0]) + 0.5) * GRID[0] / size[0]
    metres = np.select([rows < below for below, _, _ in BANDS], [z for _, z, _ in BANDS])
    return np.repeat(metres[:, None], size[1], 1)


@dataclass(frozen=True)
class KnownPrediction:
    metres: float | None

    def depth(self, size: tuple[int, int]) -> NDArray[np.float64]:
        return band_depth(size) if self.metres is None else np.full(size, self.metres)


class KnownDepth(DepthProbe):
    """A depth probe that knows: the bands, or one plane."""

    def __init__(self, metres: float | None = None) -> None:
        super().__init__(
            DepthConvex(
                target="mean_log_depth",
                patch_weight="valid_share",
                min_depth_m=0.05,
                max_depth_m=50.0,
                lambda_per_n=(1.0,),
                folds=2,
                upsample="bilinear_log_depth",
            )
        )
        self.metres = metres

    def depths(self, features: Any, images: Sequence[str], head: Head, ctx: Any) -> Iterator[Any]:
        for _ in images:
            yield KnownPrediction(self.metres)


def make_view(name: str, group: str, T_cam_world: NDArray[np.float64], K_: NDArray[np.float64] = K) -> View:
    return View(name, group, image(name, IMAGE), np.ones((30, 40), np.float32), K_, T_cam_world)


def make_world(
    queries: Sequence[Sequence[str]] = (("sideways", "half_turn"),), seed: int = 0
) -> tuple[FakeFeatures, list[RelocScene]]:
    """A scene per entry, with a query per named move."""
    rng = np.random.default_rng(seed)
    maps, scenes = {}, []
    for i, moves in enumerate(queries):
        group = f"room{i}"
        # The world is no camera's frame, so that nothing works by leaving a transform out.
        world = pose(HALF_TURN, np.array([1.0, 2.0, 3.0]))
        reference = rng.normal(size=(32, *GRID))
        maps[f"{group}/ref"] = torch.from_numpy(reference).float()
        views = []
        for j, name in enumerate(moves):
            move, T = MOVES[name]
            seen = np.zeros((32, *GRID))  # what the reference does not show has no look of its own
            for r in range(GRID[0]):
                for c in range(GRID[1]):
                    row, column = move(r, c)
                    if 0 <= row < GRID[0] and 0 <= column < GRID[1]:
                        seen[:, row, column] = reference[:, r, c]
            maps[f"{group}/{j}"] = torch.from_numpy(seen).float()
            own = K * [[3, 1, 1], [1, 3, 1], [1, 1, 1]] if name == "zoom" else K
            views.append(make_view(f"{group}/{j}", group, T @ world, own))
        scenes.append(RelocScene(group, group, make_view(f"{group}/ref", group, world), tuple(views)))
    return FakeFeatures(maps, NETWORK), scenes


def lazy_scenes(scenes: Sequence[RelocScene]) -> Lazy[Any]:
    return Lazy([LazyItem(s.id, s.group, images_of(s), lambda s=s: s) for s in scenes])


def known_depth(features: FakeFeatures, metres: float | None = None) -> dict[str, Upstream]:
    return {"depth_head": Upstream(KnownDepth(metres), Head({}), features)}
