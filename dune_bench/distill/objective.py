"""The loss of a distillation: what the engine calls at each micro-batch.

Source: PROTOCOLS §6.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from dune_bench.distill.batch import DistillBatch, Tokens
from dune_bench.distill.dropping import DroppingMethod, coefficients, equal_images, image_uniforms
from dune_bench.distill.losses import LossWeights, kind_losses
from dune_bench.distill.student import Student
from dune_bench.distill.teacher_norm import Reduce, TeacherNorm, alone
from dune_bench.distill.weighting import TeacherWeights, robust_weights
from dune_bench.engine.step import StepContext
from dune_bench.engine.terms import LossTerm
from dune_bench.errors import TaskError
from dune_bench.registry.cards import Card

LOSS, PART, SHARE, FACTOR = "loss/", "part/", "share/", "factor/"
"""Before a teacher's name: its mean loss over all images; its part of the loss that is minimised; its share
of the coefficients; what its loss is multiplied by, if teachers weigh unlike.  The parts sum to the loss; the
others have weight 0."""


class Teaches(Protocol):
    """What the loss needs of a teacher; `teachers.Teacher` is one."""

    @property
    def name(self) -> str: ...
    @property
    def has_cls(self) -> bool: ...
    @property
    def width(self) -> int: ...
    @property
    def home(self) -> str | None: ...

    def tokens(self, images: Tensor, student_patch: int) -> Tokens: ...


class Dropping(Card):
    """Which teachers teach an image; see `dropping.coefficients`.

    equal_images: each image counts the same, however many teachers it kept.  counts: Σ c·ℓ is divided by the
    Σ c of the `batch` of all processes, or of each `process` (and micro-batch), whose quotients are then
    averaged: the original's.  draw: random numbers from each `image`'s seed, or from the `process`'s stream:
    the original's.  p: default 0.5 for `lowest_loss`, 0 for the others.
    """

    method: DroppingMethod = "lowest_loss"
    p: float | None = None
    equal_images: bool = False
    counts: Literal["batch", "process"] = "batch"
    draw: Literal["image", "process"] = "image"

    @property
    def probability(self) -> float:
        if self.p is not None:
            return self.p
        return 0.5 if self.method == "lowest_loss" else 0.0


@dataclass
class Objective:
    """A `Loss` of the engine over `Student` and `DistillBatch`.

    groups: names of the data groups, in the order of the batches' numbers.  reduce: sums over processes.
    momentum: of the teachers' statistics at the start and at the end (a cosine between them).
    robust: scale of `robust_weights`, or None.
    faults: what teachers said that could not give finite tokens; seeds of images that are to blame.
    """

    teachers: Sequence[Teaches]
    groups: Sequence[str]
    loss: LossWeights = field(default_factory=LossWeights)
    dropping: Dropping = field(default_factory=Dropping)
    momentum: tuple[float, float] = (1.0, 1e-3)
    robust: float | None = None
    reduce: Reduce = alone
    faults: list[str] = field(default_factory=list)
    suspects: set[int] = field(default_factory=set)
    _averaged: int = -1

    def __call__(self, module: nn.Module, batch: DistillBatch, context: StepContext) -> dict[str, LossTerm]:
        student = cast(Student, module)
        # The engine may first count without gradient, and cut a step into micro-batches.
        if torch.is_grad_enabled() and context.step != self._averaged:
            self._averaged = context.step
            student.follow()
        losses = self.image_losses(student, batch, self.momentum_at(context.progress))
        kept = self._kept({name: loss.detach() for name, loss in losses.items()}, batch, context)
        weighted = cast(dict[str, Tensor], student.weighting(losses))
        return self._terms(losses, weighted, kept) | _factors(student.weighting)

    def momentum_at(self, progress: float) -> float:
        """Share of a batch in the teachers' statistics."""
        start, end = self.momentum
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2

    def image_losses(
        self, student: Student, batch: DistillBatch, momentum: float | None
    ) -> dict[str, Tensor]:
        """Loss of each image, (B,) by teacher, with graph.  momentum: see `TeacherNorm`."""
        raw = self.teacher_tokens(student, batch)
        targets = {
            name: cast(TeacherNorm, student.teacher_norms[name])(tokens, momentum, self.reduce)
            for name, tokens in raw.items()
        }
        weights = None
        if self.robust is not None:
            weights = robust_weights([target.patch for target in targets.values()], self.robust)
        said = student(batch.images)
        return {
            name: kind_losses(said[name], target, self.loss).per_image(weights)
            for name, target in targets.items()
        }

    @torch.no_grad()
    def teacher_tokens(self, student: Student, batch: DistillBatch) -> dict[str, Tokens]:
        """Raw tokens by teacher, stored or asked for."""
        return {
            teacher.name: batch.stored[teacher.name]
            if teacher.name in batch.stored
            else self._asked(teacher, batch, student.patch)
            for teacher in self.teachers
        }

    def _asked(self, teacher: Teaches, batch: DistillBatch, patch: int) -> Tokens:
        try:
            return teacher.tokens(batch.images, patch)
        except TaskError as error:
            self.faults.append(f"teacher {teacher.name}: {error}")
        # Not a number in its place: the engine stops all processes at once and saves the state.
        for image, seed in zip(batch.images, batch.seeds.tolist(), strict=True):
            try:
                teacher.tokens(image[None], patch)
            except TaskError:
                self.suspects.add(seed)
        size, (height, width) = len(batch.images), batch.images.shape[-2:]
        count = (height // patch) * (width // patch)
        nothing = batch.images.new_full((size, count, teacher.width), math.nan)
        return Tokens(nothing, nothing[:, 0] if teacher.has_cls else None)

    def _kept(
        self, losses: Mapping[str, Tensor], batch: DistillBatch, context: StepContext
    ) -> dict[str, Tensor]:
        rule, size = self.dropping, (len(batch.seeds), len(losses))
        random = None
        if rule.method == "lowest_loss":
            if rule.draw == "process":
                generator = context.generator
                random = torch.rand(size, generator=generator, device=generator.device)
            else:
                random = image_uniforms(batch.seeds, len(losses))
        homes = {teacher.name: teacher.home for teacher in self.teachers}
        kept = coefficients(losses, homes, self.groups, batch.groups, rule.method, rule.probability, random)
        return equal_images(kept) if rule.equal_images else kept

    def _terms(
        self, losses: Mapping[str, Tensor], weighted: Mapping[str, Tensor], kept: Mapping[str, Tensor]
    ) -> dict[str, LossTerm]:
        count = torch.stack([c.sum() for c in kept.values()]).sum()
        own = self.dropping.counts == "process"
        divisor = count.clamp(min=torch.finfo(count.dtype).tiny) if own else torch.ones_like(count)
        counted = (count > 0).to(count.dtype) if own else count
        parts = {
            PART + name: LossTerm((kept[name] * weighted[name]).sum() / divisor, counted) for name in losses
        }
        plain = {
            LOSS + name: LossTerm(loss.detach().sum(), len(loss), weight=0.0) for name, loss in losses.items()
        }
        shares = {SHARE + name: LossTerm(kept[name].sum(), count, weight=0.0) for name in losses}
        return parts | plain | shares


def _factors(weighting: TeacherWeights) -> dict[str, LossTerm]:
    """For the log: the same on every process."""
    if type(weighting) is TeacherWeights:
        return {}
    return {
        FACTOR + name: LossTerm(torch.tensor(value), 1, weight=0.0)
        for name, value in weighting.factors().items()
    }
