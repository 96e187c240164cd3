"""MiniRooms with more people to learn from: a shard of its own beside the rooms of MiniRooms."""

from __future__ import annotations

from pathlib import Path

from dune_bench.data.base import Dataset, Lazy
from dune_bench.data.minirooms.card import PEOPLE, DatasetCard
from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import HumanSample, Sample
from dune_bench.errors import UsageError
from dune_bench.registry.cards import fingerprint

ROOMS = "minirooms@1"


class MiniRoomsPeople(Dataset):
    """People of rooms.  `train`: the training rooms of MiniRooms and, after them, rooms full of people that
    are in no other data set; `test`: the test rooms of MiniRooms, so that results compare with those on it.

    name: `minirooms-people@1`.  root: a folder with that card and the one of `minirooms@1`; default: the
    one that ships with the package.  Raises UnavailableError if a card is not there, UsageError if the two
    do not belong together.
    """

    description = (
        "MiniRooms with more people to learn from, synthetic data: pictures of furnished rooms and people "
        "rendered by a program, not photographs; the ground truth is exact"
    )

    def __init__(self, name: str = "minirooms-people@1", root: Path | None = None) -> None:
        self._people, self._rooms = MiniRooms(name, root), MiniRooms(ROOMS, root)
        if self._people.splits != (PEOPLE,):
            raise UsageError(f"{name}: its card has splits {self._people.splits}, expected {PEOPLE!r} alone")
        if self._people.keypoint_names != self._rooms.keypoint_names:
            raise UsageError(f"{name}: its key points are not those of {ROOMS}; get both again")
        self.name = name
        self.licence = self._people.licence
        self.keypoint_names = self._people.keypoint_names
        self.splits = self._rooms.splits

    @property
    def card(self) -> DatasetCard:
        """The people's, with the shards of the rooms beside them: `train` is made of two."""
        splits = {f"{split}, of {ROOMS}": one for split, one in self._rooms.card.splits.items()}
        splits["train, of this data set"] = self._people.card.splits[PEOPLE]
        return self._people.card.model_copy(update={"splits": splits})

    def fingerprint(self, split: str) -> str:
        """sha256 (hex) of the shards that the split is made of."""
        parts = [self._rooms.fingerprint(split)]
        if split == "train":
            parts.append(self._people.fingerprint(PEOPLE))
        return fingerprint({"name": self.name, "split": split, "parts": parts})

    def samples(self, kind: type[Sample], split: str) -> Lazy[Sample]:
        """Ids and groups are those of MiniRooms; of the people, `people/room/view`."""
        if kind is not HumanSample:
            raise UsageError(f"{self.name}: no samples of kind {kind.__name__}; it has HumanSample")
        rooms = self._rooms.samples(kind, split)
        return rooms.joined(self._people.samples(kind, PEOPLE)) if split == "train" else rooms

    def verify(self) -> list[str]:
        """As `MiniRooms.verify`, of both data sets."""
        return [*self._rooms.verify(), *self._people.verify()]

    def prepare(self, root: Path | None = None, accept_license: bool = False) -> str:
        """Nothing to fetch: says where the data is.  Raises UnavailableError, TaskError."""
        return f"{self._people.prepare()}; with {self._rooms.prepare()}"
