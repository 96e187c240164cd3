"""How the teachers of a trained student get along: what it still loses to each, on what images; and whether
their gradients pull the shared encoder the same way, block by block.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from dune_bench.distill.batch import DistillBatch
from dune_bench.distill.conflict import Conflict, gradient_conflict
from dune_bench.distill.data import DistillData
from dune_bench.distill.groups import DataGroup, FolderSection, GroupSection, MiniRoomsSection, open_groups
from dune_bench.distill.losses import LossWeights, image_losses
from dune_bench.distill.objective import Objective, Teaches
from dune_bench.distill.recipe import DistillRecipe
from dune_bench.distill.student import Student, start_from
from dune_bench.distill.teacher_norm import TeacherNorm
from dune_bench.distill.teachers import load_teachers
from dune_bench.distill.train import RECIPE, first_student, make_objective
from dune_bench.encoders.load import pick_device
from dune_bench.engine.data import Pick, to_device
from dune_bench.engine.processes import Processes
from dune_bench.engine.runner import SupportsUpdate
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.cards import load_card
from dune_bench.registry.lookup import Registry

WHOLE = "all"
"""In place of a block: the whole encoder."""
_COSINE, _SMOOTH_L1 = LossWeights(cosine=1, smooth_l1=0), LossWeights(cosine=0, smooth_l1=1)


@dataclass(frozen=True)
class DomainLoss:
    """What a student loses to a teacher on the images of a domain, with the moving statistics: means over
    images of 1 − cos and of smooth L1, and their standard errors over images (None for one image).
    held_out: whether these images are of no training."""

    student: str
    teacher: str
    domain: str
    held_out: bool
    images: int
    cosine: float
    cosine_se: float | None
    smooth_l1: float
    smooth_l1_se: float | None


@dataclass(frozen=True)
class BlockCosine:
    """Cosine of two teachers' gradients on a block of the encoder (`embed`, `1`, …, or WHOLE): mean over
    batches, and its standard error (None for one batch).  Negative: a step for one is a step against the
    other."""

    student: str
    first: str
    second: str
    block: str
    batches: int
    cosine: float
    se: float | None


@dataclass(frozen=True)
class Domain:
    """held_out: whether its images are of no training."""

    group: DataGroup
    held_out: bool


@dataclass(frozen=True)
class TrainedStudent:
    """A student as its training left it, in evaluation mode, and what taught it."""

    recipe: DistillRecipe
    student: Student
    objective: Objective


@dataclass(frozen=True)
class InterferenceOptions:
    """limit: images of each domain, evenly spread.  batches: that the gradients are averaged over.
    batch_size: images at once."""

    limit: int = 32
    batches: int = 8
    batch_size: int = 8


def load_trained(
    folder: Path,
    *,
    device: str = "auto",
    offline: bool = False,
    registry: Registry | None = None,
    teachers: Sequence[Teaches] | None = None,
) -> TrainedStudent:
    """A student from the folder of its training.

    teachers: in place of those that the recipe would load, in its order.  Raises UsageError for a folder
    without recipe or projectors, UnavailableError for teachers that are not here, TaskError for damage.
    """
    if not (folder / RECIPE).is_file():
        raise UsageError(f"{folder}: holds no {RECIPE}: name the folder of a dune-bench distill")
    recipe = load_card(folder / RECIPE, DistillRecipe)
    if recipe.student.timm is not None:
        raise UsageError(
            f"{folder}: a timm student is exported without its projectors: nothing to hold against teachers"
        )
    place = pick_device(device)
    if teachers is None:
        teachers = load_teachers(recipe.teachers, device=str(place), offline=offline, registry=registry)
    # First weights are those of the folder: `init` may be gone.
    section = recipe.student.model_copy(update={"init": None, "init_parts": "all"})
    student = first_student(recipe.model_copy(update={"student": section, "ema": None}), teachers)
    start_from(student, folder)
    objective = make_objective(recipe, teachers, tuple(recipe.data.groups), Processes(0, 1, place))
    return TrainedStudent(recipe, student.to(place).eval(), objective)


def domains_of(recipe: DistillRecipe, base: Path, folders: Mapping[str, Path]) -> tuple[Domain, ...]:
    """The recipe's groups for evaluation.

    A group of MiniRooms is its test split; others are what they are, which was trained on.  folders: held-out
    images of a group, or of a domain of their own.  Raises as `open_groups`.
    """
    domains = []
    own = {name: group for name, group in recipe.data.groups.items() if name not in folders}
    for name, group in own.items():
        rooms = [source for source in group.sources if isinstance(source, MiniRoomsSection)]
        changes = {"split": "test", "unlabelled": None, "expected": None, "dataset": None}
        held_out = tuple(source.model_copy(update=changes) for source in rooms)
        section = GroupSection(sources=held_out) if held_out else group
        (opened,) = open_groups({name: section}, base, training=False)
        domains.append(Domain(opened, bool(held_out)))
    for name, folder in folders.items():
        section = GroupSection(sources=(FolderSection(kind="folder", path=str(folder.absolute())),))
        (opened,) = open_groups({name: section}, base, training=False)
        domains.append(Domain(opened, True))
    return tuple(domains)


def interference(
    label: str,
    trained: TrainedStudent,
    domains: Sequence[Domain],
    options: InterferenceOptions,
    progress: SupportsUpdate | None = None,
) -> tuple[tuple[DomainLoss, ...], tuple[BlockCosine, ...]]:
    """Losses by teacher and domain, and cosines by pair of teachers and block (none for one teacher).

    label: of the student.  Raises TaskError for losses that are not finite.
    """
    losses: list[DomainLoss] = []
    total = len(domains) + options.batches
    for number, domain in enumerate(domains):
        losses += domain_losses(label, trained, domain, options)
        if progress is not None:
            progress.update(number + 1, total)
    conflicts = []
    for number, batch in enumerate(_mixed(trained, domains, options)):
        if len(trained.objective.teachers) > 1:
            conflicts.append(gradient_conflict(trained.student, trained.objective, batch))
        if progress is not None:
            progress.update(len(domains) + number + 1, total)
    return tuple(losses), block_cosines(label, conflicts)


@torch.no_grad()
def domain_losses(
    label: str, trained: TrainedStudent, domain: Domain, options: InterferenceOptions
) -> list[DomainLoss]:
    """What the student loses to each teacher on images of a domain."""
    student, objective = trained.student, trained.objective
    found: dict[str, list[tuple[float, float]]] = {teacher.name: [] for teacher in objective.teachers}
    data = _data(trained, (domain,))
    picks = [Pick(index, 0) for index in _spread(len(data), options.limit)]
    for start in range(0, len(picks), options.batch_size):
        batch = to_device(data.batch(picks[start : start + options.batch_size]), _device(student))
        raw, said = objective.teacher_tokens(student, batch), student(batch.images)
        for name, tokens in raw.items():
            target = cast(TeacherNorm, student.teacher_norms[name])(tokens, None, objective.reduce)
            kinds = [image_losses(said[name], target, weights) for weights in (_COSINE, _SMOOTH_L1)]
            found[name] += zip(*(kind.tolist() for kind in kinds), strict=True)
    rows = []
    for name, pairs in found.items():
        cosine, smooth = zip(*pairs, strict=True)
        if not math.isfinite(sum(cosine) + sum(smooth)):
            faults = f": {objective.faults[0]}" if objective.faults else ""
            raise TaskError(
                f"{label}: its loss to teacher {name} on {domain.group.name} is not finite{faults}"
            )
        facts = (*mean_and_error(cosine), *mean_and_error(smooth))
        rows.append(DomainLoss(label, name, domain.group.name, domain.held_out, len(pairs), *facts))
    return rows


def block_cosines(label: str, conflicts: Sequence[Conflict]) -> tuple[BlockCosine, ...]:
    """Means over batches, of the whole encoder and of each block, pair by pair."""
    if not conflicts:
        return ()
    rows = []
    for pair in conflicts[0].cosines:
        first, second = pair.split("|")
        values = {WHOLE: [conflict.cosines[pair] for conflict in conflicts]}
        values |= {
            block: [conflict.by_block[block][pair] for conflict in conflicts]
            for block in conflicts[0].by_block
        }
        for block, cosines in values.items():
            rows.append(BlockCosine(label, first, second, block, len(cosines), *mean_and_error(cosines)))
    return tuple(rows)


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and its standard error if there are two values or more."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def _mixed(
    trained: TrainedStudent, domains: Sequence[Domain], options: InterferenceOptions
) -> Iterator[DistillBatch]:
    """Batches of images of all domains in turn.  A domain of few images gives them again."""
    data = _data(trained, domains)
    starts = [sum(len(d.group) for d in domains[:n]) for n in range(len(domains))]
    needed = -(-options.batches * options.batch_size // len(domains))
    spread = [_spread(len(domain.group), needed) for domain in domains]
    for number in range(options.batches):
        picks = []
        for place in range(options.batch_size):
            turn, domain = divmod(place, len(domains))
            domain = (domain + number) % len(domains)
            # The images of a batch lie far apart in the data.
            index = spread[domain][(turn * options.batches + number) % len(spread[domain])]
            picks.append(Pick(starts[domain] + index, 0))
        yield to_device(data.batch(picks), _device(trained.student))


def _data(trained: TrainedStudent, domains: Sequence[Domain]) -> DistillData:
    return DistillData([domain.group for domain in domains], trained.recipe.student.image_size, None)


def _spread(length: int, count: int) -> list[int]:
    count = min(length, count)
    return [n * length // count for n in range(count)]


def _device(student: Student) -> torch.device:
    return next(student.parameters()).device
