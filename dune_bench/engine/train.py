"""`train`: a training protocol is a function of (module, loss, data, recipe)."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dune_bench.engine import checkpoint as files
from dune_bench.engine.checkpoint import Checkpoint
from dune_bench.engine.data import PickOrder, ShuffledEpochs, TrainingData, loader
from dune_bench.engine.optimizer import (
    ParameterGroup,
    StepOptimizer,
    adamw,
    default_groups,
    load_optimizer_tensors,
    optimizer_tensors,
    trainable,
)
from dune_bench.engine.processes import Processes, join
from dune_bench.engine.recipe import Recipe
from dune_bench.engine.record import StepClock, TrainingRecord
from dune_bench.engine.runner import EngineRunner, Every, Session, SupportsUpdate, private_instances
from dune_bench.engine.step import Loss, Objective
from dune_bench.engine.tracking import StepLog, Tracker, visualizer
from dune_bench.errors import UnavailableError, UsageError

logger = logging.getLogger(__name__)

_FREE = {"checkpoint_every", "workers"}
"""Fields of the recipe that move no weight and no log line: a resume may change them."""


class _Silent:
    def update(self, done: float, total: float, note: str = "") -> None:
        del done, total, note


def train(
    module: nn.Module,
    loss: Loss,
    data: TrainingData,
    recipe: Recipe,
    *,
    folder: Path | None,
    seed: int,
    device: torch.device | str = "cpu",
    progress: SupportsUpdate | None = None,
    parameter_groups: Sequence[ParameterGroup] | None = None,
    order: PickOrder | None = None,
    identity: Mapping[str, Any] | None = None,
    trackers: Collection[Tracker] = (),
    hooks: Sequence[Every] = (),
    find_unused_parameters: bool = False,
) -> TrainingRecord:
    """Trains `module` in place, or goes on with what `folder` holds.

    Parameters with requires_grad False are left out of the optimiser and of the checkpoints.  The
    module's mode (train, eval) is the caller's.

    Args:
        loss: see `Loss`.
        folder: of checkpoints and `log.jsonl`; None: nothing is written or resumed.
        seed: of the order of the data and of all randomness in a step.
        parameter_groups: by default weight decay on matrices that are no bias.
        order: of the samples; by default each epoch in a new order.
        identity: what the training is, JSON: a folder of another one is refused.
        trackers: beside the log.
        find_unused_parameters: DDP's; for losses that do not reach every parameter at each step.

    Raises:
        UnavailableError: the recipe asks for a precision that the device does not have.
        UsageError: the batch cannot be shared out, or the folder holds another training.
        TaskError: a loss or gradient that is not finite; the state is saved as `failed-step-N`.
    """
    processes = join(torch.device(device))
    if recipe.dtype == "bfloat16" and processes.device.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(processes.device)
        raise UnavailableError(f"{name} has no bfloat16, which the recipe asks for: take another device")
    module.to(processes.device)
    groups = default_groups(module, recipe.weight_decay) if parameter_groups is None else parameter_groups
    optimizer = adamw(module, groups, recipe)
    run = _run_facts(recipe, seed, processes, groups, identity or {})
    first = 0 if folder is None else _resume(folder, module, optimizer, run, processes)
    batches = loader(data, order or ShuffledEpochs(len(data), seed), recipe, processes, first)
    log = StepLog(folder / "log.jsonl" if folder is not None and processes.first else None, first)

    def snapshot(steps: int, notes: dict[str, Any]) -> Checkpoint:
        return Checkpoint(steps, run, _tensors(module), optimizer_tensors(optimizer, module), notes)

    with private_instances() as (name, work_dir):
        session = Session(
            recipe=recipe,
            seed=seed,
            data=data,
            processes=processes,
            folder=folder,
            first=first,
            clock=StepClock(processes.device),
            log=log,
            progress=progress if progress is not None and processes.first else _Silent(),
            snapshot=snapshot,
            find_unused_parameters=find_unused_parameters,
            name=name,
        )
        board = visualizer(name, trackers if processes.first else (), folder, run, first)
        try:
            if first < recipe.steps:
                EngineRunner(
                    session,
                    Objective(module, loss, processes),
                    StepOptimizer(optimizer, recipe, processes.device),
                    batches,
                    board,
                    tuple(hooks),
                    work_dir,
                ).train()
        finally:
            board.close()
    lines = processes.from_first(tuple(log.lines))
    return TrainingRecord(lines, recipe.steps, first or None)


def _run_facts(
    recipe: Recipe,
    seed: int,
    processes: Processes,
    groups: Sequence[ParameterGroup],
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """What has to be equal for a training to be gone on with."""
    facts = {
        "recipe": recipe.model_dump(mode="json", exclude=_FREE),
        "seed": seed,
        "processes": processes.world,
        "parameter_groups": [
            {"tensors": len(group.names), "weight_decay": group.weight_decay, "lr_scale": group.lr_scale}
            for group in groups
        ],
        "identity": identity,
    }
    # As it comes back from a file: tuples as lists.
    return dict(json.loads(json.dumps(facts)))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Trainable parameters and persistent buffers by name."""
    state = module.state_dict()
    buffers = {name: buffer for name, buffer in module.named_buffers() if name in state}
    return {**trainable(module), **buffers}


def _resume(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.AdamW,
    run: Mapping[str, Any],
    processes: Processes,
) -> int:
    """Loads the newest whole checkpoint, if there is one, and returns its step."""
    found = files.newest(folder)
    if len(set(processes.gather(None if found is None else found.step))) > 1:
        raise UsageError(f"{folder} differs between the processes: it must be a folder that all of them see")
    if found is None:
        return 0
    differences = _differences(found.run, run)
    expected = {name: tuple(tensor.shape) for name, tensor in _tensors(module).items()}
    stored = {name: tuple(tensor.shape) for name, tensor in found.model.items()}
    differences += [f"tensor {text}" for text in _differences(stored, expected)]
    if differences:
        raise UsageError(
            f"{folder} holds another training: {'; '.join(differences[:5])}"
            f"{f' and {len(differences) - 5} more' if len(differences) > 5 else ''}; take another folder"
        )
    with torch.no_grad():
        for name, tensor in _tensors(module).items():
            tensor.copy_(found.model[name])
    load_optimizer_tensors(optimizer, module, found.optimizer)
    if processes.first:
        logger.info("%s: going on after step %d", folder, found.step)
    return found.step


def _differences(stored: Any, now: Any, where: str = "") -> list[str]:
    """`key: A there, B now` for each leaf in which two JSON values differ."""
    if isinstance(stored, Mapping) and isinstance(now, Mapping):
        return [
            text
            for key in sorted({*stored, *now})
            for text in _differences(stored.get(key), now.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if stored == now else [f"{where}: {_short(stored)} there, {_short(now)} now"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
