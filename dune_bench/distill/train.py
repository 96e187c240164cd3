"""`distill`: trains the student of a recipe and writes it as an encoder."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from dune_bench.distill.batch import DistillBatch
from dune_bench.distill.broken import FILE as BROKEN
from dune_bench.distill.broken import BrokenImages
from dune_bench.distill.conflict import FILE as CONFLICT
from dune_bench.distill.conflict import gradient_conflict, log_conflict
from dune_bench.distill.data import DistillData, loss_seed
from dune_bench.distill.evaluate import Evaluator, Inline
from dune_bench.distill.groups import open_groups
from dune_bench.distill.mixing import parse_mix, pick_order
from dune_bench.distill.objective import LOSS, Objective, Teaches
from dune_bench.distill.recipe import DistillRecipe
from dune_bench.distill.stored import StoredData, open_store
from dune_bench.distill.stored_format import read_manifest
from dune_bench.distill.student import Student, Taught, build_student, patch_of, start_from
from dune_bench.distill.teachers import load_teachers
from dune_bench.distill.weighting import teacher_weights
from dune_bench.encoders.checkpoint import tensor_digest
from dune_bench.encoders.dune_files import dune_card, save_checkpoint, save_folder, timm_card
from dune_bench.encoders.load import pick_device
from dune_bench.engine.data import Pick, PickOrder, derived_seed, to_device
from dune_bench.engine.processes import Processes, join
from dune_bench.engine.record import TrainingRecord
from dune_bench.engine.runner import Every, SupportsUpdate
from dune_bench.engine.train import train
from dune_bench.errors import TaskError, UsageError

RECIPE = "recipe.yaml"
_FIRST_WEIGHTS = 0x57


@dataclass(frozen=True)
class Distilled:
    """A finished distillation.  folder: with encoder.yaml, `--encoder` takes it.  checkpoint: the same in
    DUNE's layout, or None for a timm student.  broken: a note on unreadable images, or None.
    first: whether this process is the one that writes and speaks."""

    record: TrainingRecord
    folder: Path
    checkpoint: Path | None
    broken: str | None
    batch_size: int
    first: bool = True

    def change(self, teacher: str) -> tuple[float, float]:
        """A teacher's mean loss in the first logged step and in the last tenth of them."""
        values = [value for _, value in self.record.curve(LOSS + teacher)]
        last = values[-max(1, len(values) // 10) :]
        return values[0], sum(last) / len(last)


class Traced:
    """Data whose descriptions name those images first that are to blame, as the objective saw it."""

    def __init__(self, data: DistillData | StoredData, objective: Objective) -> None:
        self._data, self._objective = data, objective

    def __len__(self) -> int:
        return len(self._data)

    def batch(self, picks: Sequence[Pick]) -> DistillBatch:
        return self._data.batch(picks)

    def describe(self, picks: Sequence[Pick]) -> Sequence[str]:
        guilty = [pick for pick in picks if loss_seed(pick) in self._objective.suspects]
        return self._data.describe(guilty or picks)


def distill(
    recipe: DistillRecipe,
    folder: Path,
    *,
    base: Path | None = None,
    device: str = "auto",
    offline: bool = False,
    progress: SupportsUpdate | None = None,
    inline: Inline | None = None,
    teachers: Sequence[Teaches] | None = None,
    stored: Path | None = None,
) -> Distilled:
    """Trains the recipe's student, or goes on with what `folder` holds, and writes it there.

    base: what the data's relative paths are relative to (default: the working folder).  inline: see
    `Evaluator`.  teachers: in place of those that the recipe would load, in its order.  stored: a store of
    `cache-teachers`, whose tokens stand for the teachers: none is loaded.

    Raises UsageError for a recipe that cannot be meant, a folder of another training and a store of
    something else, UnavailableError for data, weights or a store that are not here, TaskError for losses
    that are not finite and a damaged store.
    """
    processes = join(pick_device(device))
    data, broken = _open_data(recipe, folder, base or Path(), stored)
    if isinstance(data, StoredData):
        teachers = data.teachers
    elif teachers is None:
        options = {"device": str(processes.device), "dtype": recipe.training.dtype}
        teachers = load_teachers(recipe.teachers, offline=offline, **options)  # type: ignore[arg-type]
    student = first_student(recipe, teachers)
    objective = make_objective(recipe, teachers, tuple(data.lengths), processes)
    identity = {
        "recipe": recipe.identity(),
        "teachers": {teacher.name: _identity(teacher) for teacher in teachers},
        "images": dict(data.lengths),
        "first_weights": tensor_digest(student.parts()),
    }
    if isinstance(data, StoredData):
        identity["store"] = data.manifest.digest
    evaluator = None if recipe.evaluate is None or not processes.first else Evaluator(recipe, folder, inline)
    try:
        record = train(
            student,
            objective,
            Traced(data, objective),
            recipe.training.engine(),
            folder=folder,
            seed=recipe.seed,
            device=str(processes.device),
            progress=progress,
            order=order_of(recipe, data, processes),
            identity=identity,
            trackers=recipe.trackers,
            hooks=_hooks(recipe, folder, data, objective, evaluator, processes),
            find_unused_parameters=True,
        )
    except TaskError as error:
        if not objective.faults:
            raise
        raise TaskError(f"{error}; {objective.faults[0]}") from error
    finally:
        if evaluator is not None:
            evaluator.wait()
    checkpoint = export(student, recipe, folder, record.steps) if processes.first else None
    if processes.world > 1:
        # mmengine's runner and DDP refer to each other in circles and would outlive the process group.
        gc.collect()
    processes.wait()
    note = None if broken is None else broken.note()
    return Distilled(record, folder, checkpoint, note, recipe.training.batch_size, processes.first)


def first_student(recipe: DistillRecipe, teachers: Sequence[Teaches]) -> Student:
    """The recipe's student before the first step.  Raises UsageError."""
    taught = [Taught(teacher.name, teacher.width, teacher.has_cls) for teacher in teachers]
    weighting = teacher_weights(recipe.weighting, [teacher.name for teacher in teachers])
    generator = torch.Generator().manual_seed(derived_seed(recipe.seed, _FIRST_WEIGHTS))
    section = recipe.student
    arch = section.arch or section.timm
    assert arch is not None
    student = build_student(arch, taught, recipe.projectors, weighting, generator, recipe.ema)
    if section.image_size % student.patch:
        raise UsageError(
            f"student.image_size {section.image_size} is not a multiple of the patch, {student.patch} pixels"
        )
    if section.init is not None:
        start_from(student, Path(section.init).expanduser(), section.init_parts == "encoder")
    return student


def make_objective(
    recipe: DistillRecipe,
    teachers: Sequence[Teaches],
    groups: Sequence[str],
    processes: Processes,
) -> Objective:
    """The recipe's loss.  groups: names of the data's groups in their order."""
    return Objective(
        teachers,
        groups,
        recipe.loss,
        recipe.dropping,
        (recipe.teacher_norm.start, recipe.teacher_norm.end),
        recipe.weighting.robust,
        processes.sum,
    )


def order_of(recipe: DistillRecipe, data: DistillData | StoredData, processes: Processes) -> PickOrder:
    """In which order images are seen.  Truncated batches are those of a process."""
    parts = processes.world * recipe.training.accumulate
    own = recipe.training.batch_size // parts if recipe.data.truncated else None
    return pick_order(parse_mix(recipe.data.mix), data.lengths, recipe.seed, own)


def export(
    student: Student, recipe: DistillRecipe, folder: Path, step: int, id: str | None = None
) -> Path | None:
    """Writes encoder.yaml and its tensors, and the same as a checkpoint in DUNE's layout, which is returned
    (None for a timm student, which that layout does not hold)."""
    state, section = student.parts(), recipe.student
    facts: dict[str, Any] = {
        "resolution": section.image_size,
        "description": recipe.description or f"distilled by the recipe {recipe.id}",
    }
    (folder / RECIPE).parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    (folder / RECIPE).write_text(text, "utf-8")
    name = id or recipe.id
    if section.arch is None:
        encoder = {n.removeprefix("encoder."): t for n, t in state.items() if n.startswith("encoder.")}
        save_folder(folder, timm_card(name, str(section.timm), **facts), encoder)
        return None
    save_folder(folder, dune_card(name, section.arch, state, **facts), state)
    path = folder / f"{name}.pth"
    arguments = {"image_size": section.image_size, "recipe": recipe.model_dump(mode="json")}
    save_checkpoint(path, state, section.arch, step, arguments)
    return path


def _open_data(
    recipe: DistillRecipe, folder: Path, base: Path, stored: Path | None
) -> tuple[DistillData | StoredData, BrokenImages | None]:
    """The recipe's images, or its store, and where unreadable images are listed (None: no image is read)."""
    section, augmentation = recipe.student, recipe.data.augmentation
    images = broken = None
    if stored is None or read_manifest(stored).images == "remade":
        groups = open_groups(recipe.data.groups, base)
        broken = BrokenImages(folder / BROKEN, sum(map(len, groups)), recipe.data.max_broken)
        images = DistillData(groups, section.image_size, augmentation, broken)
        if stored is None:
            return images, broken
    assert stored is not None
    patch = patch_of(section.arch or str(section.timm))
    shape: dict[str, Any] = {"image_size": section.image_size, "patch": patch, "augmentation": augmentation}
    data = open_store(stored, recipe.teachers, images=images, **shape)
    there, here = (list(names) for names in (data.lengths, recipe.data.groups))
    if there != here:
        raise UsageError(f"{stored}: has the groups {', '.join(there)}; the recipe: {', '.join(here)}")
    return data, broken


def _hooks(
    recipe: DistillRecipe,
    folder: Path,
    data: DistillData | StoredData,
    objective: Objective,
    evaluator: Evaluator | None,
    processes: Processes,
) -> list[Every]:
    """What happens between steps, on the first process alone."""
    found = []
    if evaluator is not None and recipe.evaluate is not None:

        def evaluate(module: nn.Module, step: int) -> None:
            assert isinstance(module, Student)
            evaluator.start(step, lambda place, name: _snapshot(module, recipe, step, place, name))

        found.append(Every(recipe.evaluate.every, evaluate))
    every = recipe.log.gradient_conflict_every
    if every is not None and processes.first:
        order = order_of(recipe, data, processes)
        size = recipe.log.gradient_conflict_images
        batch = to_device(data.batch([order(position) for position in range(size)]), processes.device)
        found.append(Every(every, partial(_conflict, folder=folder, objective=objective, batch=batch)))
    return found


def _snapshot(student: Student, recipe: DistillRecipe, step: int, place: Path, name: str) -> None:
    export(student, recipe, place, step, name)


def _conflict(
    module: nn.Module, step: int, *, folder: Path, objective: Objective, batch: DistillBatch
) -> None:
    assert isinstance(module, Student)
    log_conflict(folder / CONFLICT, step, gradient_conflict(module, objective, batch))


def _identity(teacher: Teaches) -> Mapping[str, Any]:
    """What its tokens depend on, if it says so."""
    known = getattr(teacher, "identity", None)
    return known() if known is not None else {"width": teacher.width, "cls": teacher.has_cls}
