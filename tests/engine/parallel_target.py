"""What each of two processes runs; the first writes what it found to OUT.  Started by test_parallel.py.

Usage: python -m tests.engine.parallel_target OUT, with torchrun's environment variables.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dune_bench.engine.data import Pick
from dune_bench.engine.runner import Every
from dune_bench.engine.step import StepContext
from dune_bench.engine.terms import LossTerm
from dune_bench.engine.train import train
from dune_bench.errors import TaskError
from tests.engine.toy import SEED, Batch, ToyData, drawing_loss, recipe, toy, toy_loss

CASES = {"whole": {}, "micro": {"accumulate": 2}, "clipped": {"clip": "per_tensor", "clip_norm": 0.5}}


def half_empty(position: int) -> Pick:
    """The second half of each batch of 8 has no valid target, so the second process none."""
    return Pick(4 if position % 8 >= 4 else position % 37, position)


def skipping_loss(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
    """Does not run the module where nothing is valid."""
    if not batch.valid.any():
        return {"error": LossTerm(torch.zeros(()), 0)}
    return {"error": toy_loss(module, batch, context)["error"]}


def bad_in_one(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
    """Not a number wherever sample 11 is."""
    error = toy_loss(module, batch, context)["error"]
    if 11 in batch.index:
        error = LossTerm(error.total * float("nan"), error.count)
    return {"error": error}


class CrashError(Exception):
    """Stands for a crash."""


def crash(module: nn.Module, steps: int) -> None:
    if steps == 8:
        raise CrashError


def found(module: nn.Module, record: Any) -> dict[str, Any]:
    weights = nn.utils.parameters_to_vector(module.parameters())
    return {"losses": [line.loss for line in record.lines], "weights": weights.tolist()}


def run_cases() -> dict[str, Any]:
    """Every case in the processes at hand."""
    results = {}
    for name, changes in CASES.items():
        module = toy()
        record = train(module, toy_loss, ToyData(), recipe(**changes), folder=None, seed=SEED)
        results[name] = found(module, record)
    module = toy()
    record = train(module, skipping_loss, ToyData(), recipe(), folder=None, seed=SEED, order=half_empty)
    results["empty"] = found(module, record)
    return results


def main(out: Path) -> None:
    torch.set_num_threads(1)
    results = run_cases()
    numbers = recipe(checkpoint_every=3)
    module = toy(0.2)
    record = train(module, drawing_loss, ToyData(), numbers, folder=None, seed=SEED)
    results["undisturbed"] = found(module, record)
    folder = out.parent / "run"
    try:
        train(toy(0.2), drawing_loss, ToyData(), numbers, folder=folder, seed=SEED, hooks=[Every(1, crash)])
    except CrashError:
        results["crashed"] = True
    module = toy(0.2)
    record = train(module, drawing_loss, ToyData(), numbers, folder=folder, seed=SEED)
    results["resumed"] = {**found(module, record), "from": record.resumed_from}
    try:
        train(toy(), bad_in_one, ToyData(), numbers, folder=out.parent / "bad", seed=SEED)
    except TaskError as error:
        results["bad"] = str(error)
    rank = torch.distributed.get_rank()
    out.with_name(f"{out.stem}{rank}.json").write_text(json.dumps(results), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
