"""What the human head is trained on: cached tokens of images, and the people in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.data.samples import HumanSample
from dune_bench.engine.data import Pick
from dune_bench.geometry.cameras import scale_intrinsics
from dune_bench.models.human_head import HumanHeadConfig
from dune_bench.probes.base import FeatureSource
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_heads import Heads, heads_of
from dune_bench.probes.hmr_layout import Anchor, BodyLayout, BodyNumbers
from dune_bench.probes.hmr_learned_protocol import LearningConstants
from dune_bench.probes.hmr_people import people_of
from dune_bench.probes.stream import grid_of

Floats = NDArray[np.float64]
REMEMBERED = 20_000
"""Images whose people are kept, a few kB each; of a larger training split the others are read anew."""


@dataclass(frozen=True)
class PeopleBatch:
    """B images and the P people to learn from.

    tokens: float32 (B, C, rows, columns).  K: (B, 3, 3) in pixels of the token grid.  heads: int64 (P, 3)
    cells of the heads.  cells: (P, 3) tokens that the people are regressed from.  offset: (P, 2) of the
    head from the centre of `cells`, (dx, dy) in tokens.  people: their numbers.  at: (P, 3) where the head
    is, camera frame, metres.  ignored: bool (B, rows, columns), no head and no background either.
    """

    tokens: Tensor
    K: Tensor
    heads: Tensor
    cells: Tensor
    offset: Tensor
    people: BodyNumbers
    at: Tensor
    ignored: Tensor


def grid_camera(K: Floats, size: tuple[int, int], grid: TokenGrid) -> Floats:
    """K in pixels of the token grid, that is of the network's image with its padding.  size: (height,
    width) of the image that K is of."""
    K = scale_intrinsics(K, size, grid.image_size).copy()
    K[:2, 2] += grid.padding[:2]
    return K


class PeopleImages:
    """Images of a training split.  Raises TaskError naming a sample that cannot be used."""

    def __init__(
        self,
        features: FeatureSource,
        samples: Lazy[HumanSample],
        layout: BodyLayout,
        config: HumanHeadConfig,
        learning: LearningConstants,
        min_visible: float,
        anchor: Anchor,
    ) -> None:
        self._features, self._samples, self._layout = features, samples, layout
        self._config, self._learning, self._min_visible = config, learning, min_visible
        self._anchor = anchor
        self._known: dict[int, _Seen] = {}
        self._grid = grid_of(features)

    def __len__(self) -> int:
        return len(self._samples)

    def describe(self, picks: Sequence[Pick]) -> Sequence[str]:
        return [self._samples.ids[pick.index] for pick in picks]

    def batch(self, picks: Sequence[Pick]) -> PeopleBatch:
        """See `TrainingData`.  Mirroring and neighbours are drawn from each pick's seed."""
        seen = [self._image(pick) for pick in picks]
        counts = [len(one.heads) for one in seen]
        image = torch.repeat_interleave(torch.arange(len(seen)), torch.tensor(counts))[:, None]

        def joined(name: str) -> Tensor:
            return torch.cat([getattr(one, name) for one in seen])

        people = [one.people for one in seen]
        return PeopleBatch(
            tokens=torch.stack([one.tokens for one in seen]),
            K=torch.stack([one.K for one in seen]),
            heads=torch.cat([image, joined("heads")], 1),
            cells=torch.cat([image, joined("cells")], 1),
            offset=joined("offset"),
            people=BodyNumbers(
                *(torch.cat([getattr(p, n) for p in people]) for n in ("rotmat", "betas", "expression"))
            ),
            at=joined("at"),
            ignored=torch.stack([one.ignored for one in seen]),
        )

    def _image(self, pick: Pick) -> _Seen:
        rng = np.random.default_rng(pick.seed)
        image = self._samples.images(pick.index)[0]
        seen = replace(self._remembered(pick.index), tokens=self._features.one(image.id).patch[0])
        if self._learning.mirrored and rng.random() < 0.5:
            seen = mirrored(seen, self._config, self._layout)
        return _beside(seen, self._config, self._learning.neighbour_share, rng)

    def _remembered(self, index: int) -> _Seen:
        """Without tokens.  Posing bodies for their head joints is the dearest part of a batch."""
        if index in self._known:
            return self._known[index]
        seen = self._seen(self._samples[index])
        if len(self._known) < REMEMBERED:
            self._known[index] = seen
        return seen

    def _seen(self, sample: HumanSample) -> _Seen:
        config, people = self._config, people_of(sample, self._min_visible)
        heads = heads_of(people, sample.image.size, self._grid)
        learned = np.flatnonzero(heads.counts & heads.owns)
        numbers = self._layout.numbers([people.people[i] for i in learned], f"sample {sample.id}")
        at = torch.from_numpy(people.heads[learned]).float()
        if self._anchor == "head_joint" and len(learned):
            at = self._layout.head_joints([people.people[i] for i in learned], f"sample {sample.id}")
        K = torch.from_numpy(grid_camera(sample.K, sample.image.size, self._grid)).float()
        cells, offset = _cells(at, K, config)
        spare = self._learning.spare_neighbours
        return _Seen(torch.empty(0), K, cells, cells, offset, numbers, at, _ignored(heads, config, spare))


@dataclass(frozen=True)
class _Seen(PeopleBatch):
    """One image: without the axis of images, and cells without its number."""


def _cells(at: Tensor, K: Tensor, config: HumanHeadConfig) -> tuple[Tensor, Tensor]:
    """(n, 2) row and column of points (n, 3) in the camera frame, and their offset from its centre."""
    pixels = at @ K.T
    place = pixels[:, :2] / pixels[:, 2:] / config.patch
    limits = place.new_tensor([config.grid[1], config.grid[0]])
    # A head joint may lie just outside the image although the middle between the ears is inside.
    corner = torch.minimum(place.floor().clamp_min(0), limits - 1)
    return corner.flip(-1).long(), place - corner - 0.5


def _ignored(heads: Heads, config: HumanHeadConfig, spare_neighbours: bool) -> Tensor:
    """bool (rows, columns): tokens of heads that do not count, and the neighbours of all heads."""
    found = torch.zeros(config.grid, dtype=torch.bool)
    rows, columns = config.grid
    inside = ((heads.tokens >= 0) & (heads.tokens < (rows, columns))).all(-1)
    reach = 1 if spare_neighbours else 0
    for row, column in heads.tokens[inside]:
        found[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = True
    for row, column in heads.tokens[heads.owns & heads.counts]:
        found[row, column] = False
    return found


def mirrored(seen: _Seen, config: HumanHeadConfig, layout: BodyLayout) -> _Seen:
    """The mirror image: the token grid read from the right, the camera and the people to match."""
    width = config.grid[1] * config.patch
    K = seen.K.clone()
    K[0, 2] = width - K[0, 2]
    K[0, 1] = -K[0, 1]
    cells = torch.stack([seen.heads[:, 0], config.grid[1] - 1 - seen.heads[:, 1]], 1)
    other = torch.tensor([-1.0, 1.0])
    return replace(
        seen,
        tokens=seen.tokens.flip(-1),
        K=K,
        heads=cells,
        cells=cells,
        offset=seen.offset * other,
        people=layout.mirrored(seen.people),
        at=seen.at * torch.tensor([-1.0, 1.0, 1.0]),
        ignored=seen.ignored.flip(-1),
    )


def _beside(seen: _Seen, config: HumanHeadConfig, share: float, rng: np.random.Generator) -> _Seen:
    """A share of the people regressed from a neighbour of their head's token."""
    if not share or not len(seen.heads):
        return seen
    step = rng.integers(-1, 2, (len(seen.heads), 2)) * (rng.random((len(seen.heads), 1)) < share)
    limits = torch.tensor(config.grid) - 1
    cells = torch.minimum((seen.heads + torch.from_numpy(step)).clamp_min(0), limits)
    # Two people must not be asked for at one token: whose place is taken stays at home.
    for i in range(len(cells)):
        others = torch.cat([cells[:i], cells[i + 1 :], seen.heads[:i], seen.heads[i + 1 :]])
        if (others == cells[i]).all(-1).any():
            cells[i] = seen.heads[i]
    moved = (seen.heads - cells).flip(-1).float()
    return replace(seen, cells=cells, offset=seen.offset + moved)
