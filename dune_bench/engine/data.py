"""Training data by position: what a step sees is a function of (seed, step, rank, world) alone.

So a resumed training needs neither a loader's state nor to read again what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dune_bench.engine.processes import Processes
from dune_bench.engine.recipe import Recipe
from dune_bench.errors import BenchError, TaskError, UsageError


@dataclass(frozen=True)
class Pick:
    """One sample of a batch.  index: which; seed: of everything random about it (crop, pairing, noise)."""

    index: int
    seed: int


class TrainingData(Protocol):
    """Samples that can be made into batches."""

    def __len__(self) -> int: ...

    def batch(self, picks: Sequence[Pick]) -> Any:
        """The batch of these samples: dataclasses, mappings, tuples and lists of tensors, nested.
        A function of the picks alone; runs in a loader process if the recipe asks for workers."""
        ...

    def describe(self, picks: Sequence[Pick]) -> Sequence[str]:
        """Names of the samples, for messages."""
        ...


class PickOrder(Protocol):
    """Which sample stands at a position of the endless sequence that the steps consume in turn."""

    def __call__(self, position: int) -> Pick: ...


class ShuffledEpochs:
    """Every sample once per epoch, each epoch in an order of its own."""

    def __init__(self, length: int, seed: int) -> None:
        self._length = length
        self._seed = seed
        self._permutation = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng(np.random.SeedSequence([self._seed, epoch])).permutation(self._length)

    def __call__(self, position: int) -> Pick:
        epoch, place = divmod(position, self._length)
        return Pick(int(self._permutation(epoch)[place]), derived_seed(self._seed, position))


def derived_seed(*parts: int) -> int:
    """A 63-bit seed from non-negative numbers: unlike parts give unrelated streams."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class MicroBatch:
    """What one process runs forward and backward at once."""

    picks: tuple[Pick, ...]
    content: Any

    def pin_memory(self) -> MicroBatch:
        """Called by the loader's pinning thread."""
        return replace(self, content=map_tensors(self.content, Tensor.pin_memory))


class _Picks(Sampler[tuple[Pick, ...]]):
    """The micro-batches of this process from `first` to the last step, in order."""

    def __init__(self, order: PickOrder, recipe: Recipe, processes: Processes, first: int) -> None:
        self._order, self._recipe, self._processes, self._first = order, recipe, processes, first

    def __iter__(self) -> Iterator[tuple[Pick, ...]]:
        parts = self._processes.world * self._recipe.accumulate
        size = self._recipe.batch_size // parts
        for step in range(self._first, self._recipe.steps):
            for micro in range(self._recipe.accumulate):
                part = self._processes.rank * self._recipe.accumulate + micro
                start = step * self._recipe.batch_size + part * size
                yield tuple(self._order(position) for position in range(start, start + size))


class _Batches(Dataset[MicroBatch | BenchError]):
    """A known error travels as a value: a loader process would wrap it in a traceback of many lines."""

    def __init__(self, data: TrainingData) -> None:
        self._data = data

    def __getitem__(self, picks: tuple[Pick, ...]) -> MicroBatch | BenchError:
        try:
            return MicroBatch(picks, self._data.batch(picks))
        except BenchError as error:
            return error


def loader(
    data: TrainingData, order: PickOrder, recipe: Recipe, processes: Processes, first: int
) -> DataLoader[MicroBatch | BenchError]:
    """Micro-batches of this process from step `first` on.

    Raises UsageError if there are no data or the batch cannot be shared out evenly.
    """
    parts = processes.world * recipe.accumulate
    if recipe.batch_size % parts:
        raise UsageError(
            f"batch_size {recipe.batch_size} cannot be shared out evenly over {processes.world} process(es) "
            f"× {recipe.accumulate} micro-batch(es): take a multiple of {parts}"
        )
    if not len(data):
        raise UsageError("the training data hold no sample")
    return DataLoader(
        _Batches(data),
        sampler=_Picks(order, recipe, processes, first),
        batch_size=None,
        collate_fn=_as_is,
        num_workers=recipe.workers,
        pin_memory=processes.device.type == "cuda",
        # A generator of its own: the loader would draw from the caller's global one.
        generator=torch.Generator(),
    )


def _as_is(batch: Any) -> Any:
    return batch


def next_batches(
    batches: Iterator[MicroBatch | BenchError], count: int, device: torch.device
) -> list[MicroBatch]:
    """The next `count` micro-batches, on the device.  Raises what the data raised."""
    found = []
    for _ in range(count):
        batch = next(batches)
        if isinstance(batch, BenchError):
            raise batch
        found.append(replace(batch, content=to_device(batch.content, device)))
    return found


def to_device(content: Any, device: torch.device) -> Any:
    """The nested structure with its tensors on `device`."""
    return map_tensors(content, lambda tensor: tensor.to(device, non_blocking=True))


def map_tensors(content: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Applies `change` to every tensor in dataclasses, mappings, tuples and lists; other leaves stay.

    Raises TaskError for a NumPy array: it would silently stay on the CPU.
    """
    match content:
        case Tensor():
            return change(content)
        case Mapping():
            return {key: map_tensors(value, change) for key, value in content.items()}
        case tuple() if hasattr(content, "_fields"):
            return type(content)(*(map_tensors(value, change) for value in content))
        case tuple() | list():
            return type(content)(map_tensors(value, change) for value in content)
        case np.ndarray():
            raise TaskError("a training batch holds a NumPy array: make it a tensor")
    if is_dataclass(content) and not isinstance(content, type):
        changed = {f.name: map_tensors(getattr(content, f.name), change) for f in fields(content) if f.init}
        return replace(cast(Any, content), **changed)
    return content
