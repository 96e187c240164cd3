"""What the human head is trained on: cached tokens of images, and the people in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.data.samples import HumanSample, Person
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
BLOCK = 32
"""Images whose people are read and posed at once."""


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

    def read_ahead(self) -> None:
        """Reads the people of all images that are remembered: before loader processes are forked, each of
        which would read them for itself."""
        for first in range(0, min(len(self), REMEMBERED), BLOCK):
            self._remembered(first)

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
        """The image without tokens.  Blocks are read whole, whichever of their images is asked for first:
        the last bits of a body depend on how many are posed at once, and a resumed training asks in another
        order."""
        if index >= REMEMBERED:
            return self._read([index])[0]
        if index not in self._known:
            first = index - index % BLOCK
            block = range(first, min(first + BLOCK, len(self), REMEMBERED))
            self._known.update(zip(block, self._read(block), strict=True))
        return self._known[index]

    def _read(self, indices: Sequence[int]) -> list[_Seen]:
        """Poses the images' people together for their head joints: the dearest part of a batch, and one body
        costs nearly as much as many."""
        found = [self._people(self._samples[i]) for i in indices]
        persons = [person for one in found for person in one.persons]
        at = torch.cat([one.at for one in found])
        if self._anchor == "head_joint" and persons:
            # Each sample's people were checked above, under its name.
            at = self._layout.head_joints(persons, "the training split")
        own = torch.split(at, [len(one.persons) for one in found])
        return [self._seen(one, points) for one, points in zip(found, own, strict=True)]

    def _people(self, sample: HumanSample) -> _Read:
        people = people_of(sample, self._min_visible)
        heads = heads_of(people, sample.image.size, self._grid)
        learned = np.flatnonzero(heads.counts & heads.owns)
        persons = [people.people[i] for i in learned]
        numbers = self._layout.numbers(persons, f"sample {sample.id}")
        K = torch.from_numpy(grid_camera(sample.K, sample.image.size, self._grid)).float()
        return _Read(K, heads, persons, numbers, torch.from_numpy(people.heads[learned]).float())

    def _seen(self, read: _Read, at: Tensor) -> _Seen:
        """at: (n, 3) anchors of the people, camera frame, metres."""
        cells, offset = _cells(at, read.K, self._config)
        ignored = _ignored(read.heads, self._config, self._learning.spare_neighbours)
        return _Seen(torch.empty(0), read.K, cells, cells, offset, read.numbers, at, ignored)


@dataclass(frozen=True)
class _Read:
    """One image: the camera on the token grid, its heads, the n people to learn from and their numbers, and
    the middles between their ears (n, 3), camera frame, metres."""

    K: Tensor
    heads: Heads
    persons: list[Person]
    numbers: BodyNumbers
    at: Tensor


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
    home = [tuple(cell) for cell in seen.heads.tolist()]
    limits = np.array(config.grid) - 1
    away = [tuple(cell) for cell in (np.array(home) + step).clip(0, limits).tolist()]
    # Two people must not be asked for at one token: whose place is taken stays at home.
    for i, cell in enumerate(away):
        if cell in home[:i] + home[i + 1 :] or cell in away[:i] + away[i + 1 :]:
            away[i] = home[i]
    cells = torch.tensor(away)
    moved = (seen.heads - cells).flip(-1).float()
    return replace(seen, cells=cells, offset=seen.offset + moved)
