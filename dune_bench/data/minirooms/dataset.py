"""MiniRooms: rendered rooms with exact ground truth for all five tasks; the data that ships.

Five kinds of samples are made from the same views: segmentation, depth, pairs (the reference and each
query), people, and relocalization scenes.  The statistical group is the room.  Everything but pixels
comes from the shard's index, so listing samples decodes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from dune_bench.data.base import Dataset, Lazy, LazyItem
from dune_bench.data.minirooms import views as make
from dune_bench.data.minirooms.card import DatasetCard, SplitCard, read_card
from dune_bench.data.minirooms.index import Index, read_index
from dune_bench.data.minirooms.verify import split_problems
from dune_bench.data.minirooms.views import RoomFiles
from dune_bench.data.samples import DepthSample, HumanSample, PairSample, RelocScene, Sample, SegSample
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.registry.cards import fingerprint
from dune_bench.registry.suggest import did_you_mean

LOADER_VERSION = 1
"""Part of the fingerprint: bumped when the same shards give other samples."""


class MiniRooms(Dataset):
    """One version of MiniRooms.

    name: `minirooms@1`.  root: a folder with that card (`minirooms@1.yaml`); default: the one that
    ships with the package.  Raises UnavailableError if there is no such card.
    """

    description = (
        "MiniRooms, synthetic data: pictures of furnished rooms and people rendered by a program, not "
        "photographs; the ground truth is exact"
    )

    def __init__(self, name: str = "minirooms@1", root: Path | None = None) -> None:
        home = root if root is not None else Path(__file__).resolve().parent
        self._card_path = home / f"{name}.yaml"
        self._card = read_card(self._card_path)
        if self._card.name != name:
            raise UsageError(f"{self._card_path}: describes {self._card.name!r}, not {name!r}")
        self.name = name
        self.licence = self._card.licence
        self.classes = self._card.classes
        self.keypoint_names = self._card.keypoint_names
        self.splits = tuple(self._card.splits)

    @property
    def card(self) -> DatasetCard:
        return self._card

    def fingerprint(self, split: str) -> str:
        """sha256 (hex) from the card's sha256 of the shard; `verify` compares that with the file."""
        part = self._split(split)
        return fingerprint(
            {"name": self.name, "split": split, "shard": part.sha256, "loader": LOADER_VERSION}
        )

    def samples(self, kind: type[Sample], split: str) -> Lazy[Sample]:
        """Samples in the shard's order; ids are `split/room/view` (a pair: `split/room/0-view`)."""
        makers: dict[type, Callable[[RoomFiles], list[LazyItem[Any]]]] = {
            SegSample: _segmentation,
            DepthSample: _depth,
            PairSample: _pairs,
            HumanSample: _humans,
            RelocScene: _scenes,
        }
        shard, index = self.shard(split), self.index(split)
        if not index.depth:
            makers = {HumanSample: _humans}
        if kind not in makers:
            names = ", ".join(k.__name__ for k in makers)
            raise UsageError(f"{self.name}: no samples of kind {kind.__name__}; it has {names}")
        items = [item for room in index.rooms for item in makers[kind](RoomFiles(shard, split, index, room))]
        return Lazy(cast("list[LazyItem[Sample]]", items))

    def shard(self, split: str) -> Path:
        """The file of a split.  Raises UsageError, UnavailableError, TaskError (not the card's size)."""
        part = self._split(split)
        path = self._card_path.parent / part.file
        if not path.is_file():
            raise UnavailableError(f"{path}: no such shard; reinstall dune-bench or correct the root")
        if path.stat().st_size != part.size:
            raise TaskError(
                f"{path}: {path.stat().st_size} bytes, but {self._card_path.name} says {part.size}; "
                f"get the shard again (`dune-bench prepare {self.name} --check` shows what is wrong)"
            )
        return path

    def index(self, split: str) -> Index:
        """Everything but pixels.  Raises TaskError if the shard and the card contradict each other."""
        shard = self.shard(split)
        index = read_index(shard)
        if (index.name, index.split, index.classes) != (self.name, split, self.classes):
            raise TaskError(f"{shard}: its index is not that of {self.name}, split {split}; get it again")
        return index

    def verify(self) -> list[str]:
        """Compares every shard with the card and decodes every member once; a line per problem."""
        return [
            problem
            for split in self.splits
            for problem in split_problems(
                self._card_path.parent / self._split(split).file, self._split(split), self.name, split
            )
        ]

    def prepare(self, root: Path | None = None, accept_license: bool = False) -> str:
        """Nothing to fetch: says where the data is.  Raises UnavailableError, TaskError."""
        where = self.shard(self.splits[0]).parent
        counts = ", ".join(f"{split} {self.card.splits[split].views} views" for split in self.splits)
        return f"{self.name}: ready in {where} ({counts})"

    def _split(self, split: str) -> SplitCard:
        if split not in self._card.splits:
            raise UsageError(f"{self.name} has no split {split!r}{did_you_mean(split, self._card.splits)}")
        return self._card.splits[split]


def _item(files: RoomFiles, tag: str, views: list[int], load: Callable[[], Any]) -> LazyItem[Any]:
    suffix = f"/{tag}" if tag else ""
    return LazyItem(
        id=f"{files.split}/{files.room.id}{suffix}",
        group=files.room.id,
        images=tuple(make.image_ref(files, view) for view in views),
        load=load,
    )


def _segmentation(files: RoomFiles) -> list[LazyItem[Any]]:
    return [
        _item(files, view.id, [i], partial(make.seg_sample, files, i))
        for i, view in enumerate(files.room.views)
    ]


def _depth(files: RoomFiles) -> list[LazyItem[Any]]:
    return [
        _item(files, view.id, [i], partial(make.depth_sample, files, i))
        for i, view in enumerate(files.room.views)
    ]


def _humans(files: RoomFiles) -> list[LazyItem[Any]]:
    return [
        _item(files, view.id, [i], partial(make.human_sample, files, i))
        for i, view in enumerate(files.room.views)
    ]


def _pairs(files: RoomFiles) -> list[LazyItem[Any]]:
    first = files.room.views[0].id
    return [
        _item(files, f"{first}-{view.id}", [0, i], partial(make.pair_sample, files, i))
        for i, view in enumerate(files.room.views)
        if i > 0
    ]


def _scenes(files: RoomFiles) -> list[LazyItem[Any]]:
    if len(files.room.views) < 2:
        return []
    views = list(range(len(files.room.views)))
    return [_item(files, "", views, partial(make.reloc_scene, files))]
