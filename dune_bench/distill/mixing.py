"""In which order images of several groups are seen: pure functions of seed and position.

Images have one number over all groups: those of the first group, then those of the second, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dune_bench.engine.data import Pick, PickOrder, derived_seed
from dune_bench.errors import UsageError
from dune_bench.registry.suggest import did_you_mean

Kind = Literal["teacher_balanced", "proportional"]


@dataclass(frozen=True)
class Mix:
    """kind: how groups share the images of a batch.  groups: which; empty: all."""

    kind: Kind
    groups: tuple[str, ...] = ()


class _Cycles:
    """The images of one or several groups, over and over, each time in another order."""

    def __init__(self, ranges: Sequence[range], seed: int, stream: int) -> None:
        self._starts = np.array([part.start for part in ranges], np.int64)
        self._ends = np.cumsum([len(part) for part in ranges], dtype=np.int64)
        self._seed, self._stream = seed, stream
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, cycle: int) -> NDArray[np.integer[Any]]:
        length = int(self._ends[-1])
        # Half the memory of int64, for sets of tens of millions.
        order: NDArray[np.integer[Any]] = np.arange(length, dtype=np.uint32 if length < 2**32 else np.int64)
        np.random.default_rng(np.random.SeedSequence([self._seed, self._stream, cycle])).shuffle(order)
        return order

    def __call__(self, count: int) -> int:
        cycle, place = divmod(count, int(self._ends[-1]))
        number = int(self._order(cycle)[place])
        group = int(np.searchsorted(self._ends, number, side="right"))
        return int(self._starts[group]) + number - (int(self._ends[group - 1]) if group else 0)


class TeacherBalanced:
    """One image of each group in turn, so that every group has the same share, whatever its size.

    Within a group every image comes once per cycle; small groups go through more cycles.  ranges: numbers
    of the images of each group.  seed: not negative.

    batch: None, or the size of the batches that are to be truncated as DUNE's are: a batch takes
    ⌈batch / groups⌉ images of each group and drops what is too much from the end, so of 128 images the
    first two of three groups give 43 and the last 42, each time.  Without it the odd image goes around.
    """

    def __init__(self, ranges: Sequence[range], seed: int, batch: int | None = None) -> None:
        if batch is not None and batch < len(ranges):
            raise UsageError(
                f"a truncated batch of {batch} image(s) never shows the last of {len(ranges)} groups: "
                f"take larger batches"
            )
        self._cycles = [_Cycles([part], seed, number + 1) for number, part in enumerate(ranges)]
        self._seed, self._batch = seed, batch

    def __call__(self, position: int) -> Pick:
        groups = len(self._cycles)
        if self._batch is None:
            turn, group = divmod(position, groups)
        else:
            batch, place = divmod(position, self._batch)
            turn, group = divmod(place, groups)
            turn += batch * math.ceil(self._batch / groups)
        return Pick(self._cycles[group](turn), derived_seed(self._seed, position))


class Proportional:
    """Every image of the groups once per epoch, each epoch in another order: groups share by size."""

    def __init__(self, ranges: Sequence[range], seed: int) -> None:
        self._cycles, self._seed = _Cycles(ranges, seed, 0), seed

    def __call__(self, position: int) -> Pick:
        return Pick(self._cycles(position), derived_seed(self._seed, position))


def parse_mix(text: str) -> Mix:
    """How to mix, from what a recipe says.

    `teacher_balanced` or `proportional`, of all groups or of those named after a colon
    (`teacher_balanced:dinov2,mast3r`); `only:GROUP`; or names alone, which is proportional, as DUNE's lists
    are.  Raises UsageError for an empty name or one that stands twice.
    """
    head, colon, tail = (part.strip() for part in text.partition(":"))
    if not colon:
        if head in ("teacher_balanced", "proportional"):
            return Mix("teacher_balanced" if head == "teacher_balanced" else "proportional")
        return Mix("proportional", _names(head, text))
    names = _names(tail, text)
    match head:
        case "teacher_balanced" | "proportional":
            return Mix(head, names)
        case "only" if len(names) == 1:
            return Mix("proportional", names)
        case "only":
            raise UsageError(f"mix {text!r}: `only:` takes one group; write {','.join(names)} for several")
    known = did_you_mean(head, ("teacher_balanced", "proportional", "only"))
    raise UsageError(f"mix {text!r}: unknown way to mix {head!r}{known}")


def pick_order(mix: Mix, lengths: Mapping[str, int], seed: int, batch: int | None = None) -> PickOrder:
    """The order of the images of all groups.

    lengths: images of each group by name, in the order of the data.  batch: see `TeacherBalanced`.
    Raises UsageError for a group that is unknown or has no image.
    """
    starts = dict(zip(lengths, np.cumsum([0, *lengths.values()]).tolist(), strict=False))
    wanted = mix.groups or tuple(lengths)
    for name in wanted:
        if name not in lengths:
            raise UsageError(f"mix: no group {name!r}{did_you_mean(name, lengths)}")
        if not lengths[name]:
            raise UsageError(f"mix: the group {name!r} has no image")
    if not wanted:
        raise UsageError("mix: there is no group of images")
    ranges = [range(starts[name], starts[name] + lengths[name]) for name in wanted]
    if mix.kind == "teacher_balanced":
        return TeacherBalanced(ranges, seed, batch)
    return Proportional(ranges, seed)


def _names(text: str, whole: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"mix {whole!r}: a group without a name: write GROUP,GROUP")
    if len(set(names)) != len(names):
        raise UsageError(f"mix {whole!r}: a group stands twice")
    return names
