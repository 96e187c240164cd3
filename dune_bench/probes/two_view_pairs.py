"""Pairs that a two-view decoder is trained on: cached tokens of both views, and truth on the output map."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.data.samples import PairSample, View
from dune_bench.engine.data import Pick
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, pixel_centres, scale_points, unproject
from dune_bench.geometry.poses import check_pose, invert, transform
from dune_bench.geometry.sampling import sample_nearest
from dune_bench.models.two_view_losses import PairTargets, ViewTarget
from dune_bench.probes.base import FeatureSource, ProtocolConstants
from dune_bench.probes.two_view_correspondences import (
    NOWHERE,
    Cells,
    Size,
    cells_seen,
    draw,
    reciprocal,
)


class PairConstants(ProtocolConstants):
    """The part of a protocol about what is trained on; nested under `pairs:` in a card.

    min_covisible: share of view 1's points that view 2 sees, from 0 to 1, below which an ordered pair
    of views is left out.  correspondences: per pair, true ones and negatives.  negative_share: of them,
    at least.  occlusion_m: how far behind view 2's surface a point may lie and still count as seen.
    """

    min_covisible: float = Field(ge=0, lt=1)
    correspondences: int = Field(ge=2)
    negative_share: float = Field(ge=0, lt=1)
    occlusion_m: float = Field(gt=0)


@dataclass(frozen=True)
class PairBatch:
    """tokens1, tokens2: float32 (B, C, h, w).  targets: truth on the decoder's output map."""

    tokens1: Tensor
    tokens2: Tensor
    targets: PairTargets


@dataclass(frozen=True)
class _Seen:
    """A view as the targets need it.  points: float32 (H, W, 3), the surface at each cell's centre, in
    the world; NaN where there is none."""

    image: str
    points: NDArray[np.float32]
    T_world_cam: NDArray[np.float64]


class TwoViewPairs:
    """Every ordered pair of views of a group that share enough of what they see.

    The samples name the views: pairs are formed anew among all views of a group, in both orders.
    Raises TaskError naming a sample whose camera or pose cannot be, or if no pair shares enough.
    """

    def __init__(
        self,
        features: FeatureSource,
        samples: Lazy[PairSample],
        size: Size,
        constants: PairConstants,
    ) -> None:
        self._features, self._size, self._constants = features, size, constants
        self._views: list[_Seen] = []
        self._pairs: list[tuple[int, int]] = []
        self._true: list[tuple[Cells, Cells]] = []
        for _, indices in groupby(range(len(samples)), key=samples.groups.__getitem__):
            self._add(_views(samples, indices))  # one group's truth at a time is in memory
        if not self._pairs:
            raise TaskError(
                f"no pair of training views shares {constants.min_covisible:.0%} of what it shows: "
                "nothing to train a two-view decoder on"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def batch(self, picks: Sequence[Pick]) -> PairBatch:
        """See `TrainingData`.  Correspondences are drawn anew from each pick's seed."""
        pairs = [self._pairs[pick.index] for pick in picks]
        c = self._constants
        drawn = [
            draw(
                *self._true[pick.index],
                (self._size, self._size),
                c.correspondences,
                np.random.default_rng(pick.seed),
                c.negative_share,
            )
            for pick in picks
        ]
        cells1, cells2 = ([getattr(one, name) for one in drawn] for name in ("cells1", "cells2"))
        poses = np.stack([self._views[i].T_world_cam for i, _ in pairs])
        return PairBatch(
            self._tokens([i for i, _ in pairs]),
            self._tokens([j for _, j in pairs]),
            PairTargets(
                self._target([i for i, _ in pairs], cells1),
                self._target([j for _, j in pairs], cells2),
                torch.from_numpy(poses).float(),
                torch.ones(len(pairs), dtype=torch.bool),
                torch.from_numpy(np.stack([one.matched for one in drawn])),
            ),
        )

    def describe(self, picks: Sequence[Pick]) -> Sequence[str]:
        """The pairs, by their images."""
        pairs = [self._pairs[pick.index] for pick in picks]
        return [f"{self._views[i].image} + {self._views[j].image}" for i, j in pairs]

    def _add(self, views: Sequence[View]) -> None:
        first = len(self._views)
        self._views += [_seen(view, self._size) for view in views]
        sizes, c = (self._size, self._size), self._constants
        seen = {
            (i, j): cells_seen(one, other, sizes, c.occlusion_m)
            for i, one in enumerate(views)
            for j, other in enumerate(views)
            if i != j
        }
        for i, j in seen:
            known = np.isfinite(self._views[first + i].points).all(-1).sum()
            if known and (seen[i, j] != NOWHERE).sum() >= c.min_covisible * known:
                self._pairs.append((first + i, first + j))
                self._true.append(reciprocal(seen[i, j], seen[j, i]))

    def _tokens(self, views: Sequence[int]) -> Tensor:
        return torch.cat([self._features.one(self._views[i].image).patch for i in views])

    def _target(self, views: Sequence[int], cells: Sequence[Cells]) -> ViewTarget:
        points = torch.from_numpy(np.stack([self._views[i].points for i in views]))
        valid = torch.isfinite(points).all(-1)
        return ViewTarget(points, valid, torch.zeros_like(valid), torch.from_numpy(np.stack(cells)))


def _views(samples: Lazy[PairSample], indices: Iterable[int]) -> list[View]:
    """The views of some samples, each once, in the order of the samples."""
    views: dict[str, View] = {}
    for index in indices:
        sample = samples[index]
        for view in (sample.view1, sample.view2):
            views.setdefault(view.image.id, view)
    return list(views.values())


def _seen(view: View, size: Size) -> _Seen:
    """Raises TaskError naming the view."""
    try:
        check_pose(view.T_cam_world, "T_cam_world")
        camera = Camera(view.K, view.image.size)
    except TaskError as error:
        raise TaskError(f"view {view.id}: {error}") from error
    centres = pixel_centres(size).reshape(-1, 2)
    depth_size = (view.depth.shape[0], view.depth.shape[1])
    depth = sample_nearest(view.depth.astype(np.float64), scale_points(centres, size, depth_size))
    points = unproject(camera.K, scale_points(centres, size, camera.size), depth)
    T_world_cam = invert(view.T_cam_world)
    world = transform(T_world_cam, points).astype(np.float32).reshape(*size, 3)
    return _Seen(view.image.id, world, T_world_cam)
