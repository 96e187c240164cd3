"""A training small enough to run hundreds of steps in a second, with all that makes one difficult:
a frozen part, dropout, a loss that draws, terms whose counts differ from sample to sample.

As a program: python -m tests.engine.toy FOLDER '{"steps": 40}' trains in FOLDER, slowly enough to be killed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dune_bench.engine.data import Pick
from dune_bench.engine.recipe import Recipe
from dune_bench.engine.step import StepContext
from dune_bench.engine.terms import LossTerm

SEED = 5


@dataclass(frozen=True)
class Batch:
    inputs: Tensor
    targets: Tensor
    valid: Tensor
    index: tuple[int, ...]


class ToyData:
    """37 samples; the i-th has i mod 4 valid targets, so some have none."""

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause

    def __len__(self) -> int:
        return 37

    def batch(self, picks: Sequence[Pick]) -> Batch:
        time.sleep(self._pause)
        inputs = torch.stack(
            [torch.randn(6, generator=torch.Generator().manual_seed(p.seed)) + p.index % 5 for p in picks]
        )
        index = torch.tensor([p.index for p in picks])
        targets = torch.stack([inputs.sum(1), inputs[:, 0], inputs.prod(1).tanh()], 1)
        valid = torch.arange(3) < (index % 4)[:, None]
        return Batch(inputs, targets, valid, tuple(p.index for p in picks))

    def describe(self, picks: Sequence[Pick]) -> list[str]:
        return [f"toy/{pick.index}" for pick in picks]


class Toy(nn.Module):
    """A frozen layer, then trainable ones."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.frozen = nn.Linear(6, 12).requires_grad_(False)
        self.norm = nn.LayerNorm(12)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(12, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.head(self.drop(self.norm(self.frozen(inputs)).tanh()))
        return answer


def toy(dropout: float = 0.0) -> Toy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Toy(dropout)


def toy_loss(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
    """Squared error of the valid targets; size of the answers where the first input is positive."""
    del context
    answers = module(batch.inputs)
    error = (answers - batch.targets)[batch.valid].square().sum()
    chosen = batch.inputs[:, 0] > 0
    size = answers[chosen].abs().sum()
    return {
        "error": LossTerm(error, batch.valid.sum()),
        "size": LossTerm(size, float(chosen.sum()), weight=0.3),
    }


def drawing_loss(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
    """Takes each valid target with probability one half."""
    answers = module(batch.inputs)
    taken = batch.valid & (torch.rand(answers.shape, generator=context.generator) < 0.5)
    error = (answers - batch.targets)[taken].square().sum()
    return {"error": LossTerm(error, taken.sum())}


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{"steps": 12, "batch_size": 8, "lr": 0.05, "log_every": 1, **changes})


def main(folder: str, changes: str) -> None:
    from dune_bench.engine.train import train

    torch.set_num_threads(1)
    numbers = recipe(**json.loads(changes))
    record = train(toy(0.2), drawing_loss, ToyData(0.01), numbers, folder=Path(folder), seed=SEED)
    print(record.resumed_from)


if __name__ == "__main__":
    main(*sys.argv[1:])
