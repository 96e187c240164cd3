"""The dataset contract: named data with splits, a licence, a fingerprint, and sample views of it."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar, overload

from dune_bench.data.samples import ImageRef, Sample

S = TypeVar("S")


class Lazy(Sequence[S], Generic[S]):
    """A sequence whose items are made when they are asked for, so that labels never pile up.

    `ids`, `groups` and `image_refs(i)` come from the index alone: they decode nothing.
    """

    def __init__(self, items: Sequence[LazyItem[S]]) -> None:
        self._items = tuple(items)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(item.id for item in self._items)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(item.group for item in self._items)

    def images(self, index: int) -> tuple[ImageRef, ...]:
        return self._items[index].images

    def subset(self, indices: Sequence[int]) -> Lazy[S]:
        return Lazy([self._items[i] for i in indices])

    def joined(self, other: Lazy[S]) -> Lazy[S]:
        """These samples, then the other's."""
        return Lazy([*self._items, *other._items])

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> S: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy[S]: ...
    def __getitem__(self, index: int | slice) -> S | Lazy[S]:
        if isinstance(index, slice):
            return Lazy(self._items[index])
        return self._items[index].load()

    def __iter__(self) -> Iterator[S]:
        return (item.load() for item in self._items)


@dataclasses.dataclass(frozen=True)
class LazyItem(Generic[S]):
    """One entry of an index: identity, images, and how to make the sample."""

    id: str
    group: str
    images: tuple[ImageRef, ...]
    load: Callable[[], S]


class Dataset(ABC):
    """Named data.  `name` carries the version: `minirooms@1`."""

    name: str
    licence: str
    splits: tuple[str, ...]
    description: str = ""
    """For readers of a report: what the pictures are and where they come from.  Part of no fingerprint."""
    classes: tuple[str, ...] = ()
    """Names of the segmentation labels 0 … K−1, or empty."""

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """sha256 (hex) of everything of that split that can move a number."""

    @abstractmethod
    def samples(self, kind: type[Sample], split: str) -> Lazy[Sample]:
        """The samples of one kind, in a fixed order.  Raises UsageError for a kind or split that the
        dataset does not have, naming those it has."""

    @abstractmethod
    def verify(self) -> list[str]:
        """Problems of the files on disk, one line each; empty if all is well."""

    def prepare(self, root: Path | None = None, accept_license: bool = False) -> str:
        """Makes the data ready to use and says in one line what was done."""
        return f"{self.name}: nothing to prepare"


def limit_groups(samples: Lazy[S], limit: int | None, at_least: int = 2) -> Lazy[S]:
    """Samples with about `limit` images, as whole groups, spread evenly over the groups' order.

    Images are counted, not samples, so that tasks on the same images keep the same groups.  Whole
    groups keep the cluster statistics valid; `at_least` two keep cross-validation possible.
    """
    images = {ref.id for i in range(len(samples)) for ref in samples.images(i)}
    if limit is None or limit >= len(images):
        return samples
    groups = list(dict.fromkeys(samples.groups))
    wanted = max(math.ceil(limit * len(groups) / len(images)), at_least)
    wanted = min(wanted, len(groups))
    kept = {groups[(i * len(groups)) // wanted] for i in range(wanted)}
    return samples.subset([i for i, group in enumerate(samples.groups) if group in kept])
