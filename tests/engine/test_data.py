"""Who sees which sample when, and how batches move."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dune_bench.engine.data import MicroBatch, Pick, ShuffledEpochs, loader, map_tensors
from dune_bench.engine.processes import Processes
from dune_bench.engine.recipe import Recipe
from dune_bench.errors import TaskError


@given(length=st.integers(1, 60), seed=st.integers(0, 2**40))
def test_no_sample_is_missed_in_an_epoch_and_no_seed_comes_twice(length: int, seed: int) -> None:
    picks = [ShuffledEpochs(length, seed)(position) for position in range(3 * length)]
    for epoch in range(3):
        part = picks[epoch * length : (epoch + 1) * length]
        assert sorted(pick.index for pick in part) == list(range(length))
    assert len({pick.seed for pick in picks}) == len(picks)
    # Any position can be asked for at once.
    assert ShuffledEpochs(length, seed)(2 * length) == picks[2 * length]


def test_two_epochs_are_not_in_one_order() -> None:
    order = [ShuffledEpochs(30, 1)(position).index for position in range(60)]
    assert order[:30] != order[30:]
    assert order[:30] != [ShuffledEpochs(30, 2)(position).index for position in range(30)]


class Indices:
    """A batch is the indices themselves."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def batch(self, picks: tuple[Pick, ...]) -> Tensor:
        return torch.tensor([pick.index for pick in picks])

    def describe(self, picks: tuple[Pick, ...]) -> list[str]:
        return [str(pick.index) for pick in picks]


def in_order(position: int) -> Pick:
    return Pick(position, position)


@given(world=st.integers(1, 4), accumulate=st.integers(1, 3), each=st.integers(1, 4), first=st.integers(0, 3))
def test_processes_and_micro_batches_share_a_batch_without_loss_or_overlap(
    world: int, accumulate: int, each: int, first: int
) -> None:
    size = world * accumulate * each
    recipe = Recipe(steps=4, batch_size=size, accumulate=accumulate, lr=1.0)
    seen: dict[int, list[int]] = {step: [] for step in range(first, 4)}
    for rank in range(world):
        here = Processes(rank, world, torch.device("cpu"))
        batches = list(loader(Indices(100), in_order, recipe, here, first))
        assert len(batches) == (4 - first) * accumulate
        for number, batch in enumerate(batches):
            assert isinstance(batch, MicroBatch)
            assert len(batch.picks) == each
            seen[first + number // accumulate] += batch.content.tolist()
    assert {step: sorted(indices) for step, indices in seen.items()} == {
        step: list(range(step * size, (step + 1) * size)) for step in range(first, 4)
    }


Pair = namedtuple("Pair", ["left", "right"])


@dataclass(frozen=True)
class Inner:
    tensor: Tensor
    name: str


def test_nested_batch_moves_whole() -> None:
    content = {"a": [torch.ones(1), (torch.ones(1), "text")], "b": Inner(torch.ones(1), "n"), "c": None}
    moved = map_tensors({**content, "d": Pair(torch.ones(1), 3)}, lambda tensor: tensor + 1)
    assert moved["a"][0] == 2
    assert moved["a"][1] == (2, "text")
    assert moved["b"] == Inner(torch.tensor([2.0]), "n")
    assert moved["c"] is None
    assert moved["d"] == Pair(2, 3)
    assert isinstance(moved["d"], Pair)


def test_array_does_not_stay_behind_on_the_cpu() -> None:
    with pytest.raises(TaskError, match="make it a tensor"):
        map_tensors({"a": np.ones(2)}, lambda tensor: tensor)
