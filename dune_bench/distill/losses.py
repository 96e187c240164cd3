"""Distance of a student's tokens from its teachers': cosine and smooth L1, per token and per image.

Always float32, whatever autocast says around it.  Source: PROTOCOLS §6.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from dune_bench.distill.batch import Tokens
from dune_bench.errors import UsageError
from dune_bench.registry.cards import Card


class LossWeights(Card):
    """ℓ = cosine·(1 − cos) + smooth_l1·(mean over channels of smooth L1 with this beta).

    The defaults are DUNE's.  beta 0 is plain L1.
    """

    cosine: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    smooth_l1: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    beta: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if self.cosine + self.smooth_l1 == 0:
            raise ValueError("cosine and smooth_l1 are both 0: nothing would be learned")
        return self


@dataclass(frozen=True)
class TokenLosses:
    """Losses of one teacher's tokens, float32.  patch: (B, N).  cls: (B,), or None where it is not taught."""

    patch: Tensor
    cls: Tensor | None = None

    def per_image(self, token_weights: Tensor | None = None) -> Tensor:
        """(B,): mean over token kinds of the mean over tokens; so class token and patches weigh the same.

        token_weights: (B, N) with mean 1 per image, factors of the patch tokens' losses.
        """
        patch = self.patch if token_weights is None else token_weights.float() * self.patch
        mean = patch.mean(1)
        return mean if self.cls is None else (mean + self.cls) / 2


def token_losses(
    student: Tensor, teacher: Tensor, cosine: float = 0.5, smooth_l1: float = 0.5, beta: float = 1.0
) -> Tensor:
    """Loss of each token, float32 (...,), of tokens (..., C); the teacher's in their normalised space.

    Raises UsageError if the shapes differ (they would broadcast).
    """
    if student.shape != teacher.shape:
        raise UsageError(
            f"student tokens {tuple(student.shape)} and teacher tokens {tuple(teacher.shape)} differ:"
            " both need the same token grid, and the projector the teacher's width"
        )
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = student.float(), teacher.float()
        angular = 1 - F.cosine_similarity(student, teacher, dim=-1)
        distance = F.smooth_l1_loss(student, teacher, reduction="none", beta=beta).mean(-1)
        return cosine * angular + smooth_l1 * distance


def kind_losses(student: Tokens, teacher: Tokens, weights: LossWeights) -> TokenLosses:
    """Losses of the tokens that the teacher teaches; a class token of the student alone is passed over.

    Raises UsageError if the teacher has a class token and the student none, or for unequal shapes.
    """
    factors = (weights.cosine, weights.smooth_l1, weights.beta)
    patch = token_losses(student.patch, teacher.patch, *factors)
    if teacher.cls is None:
        return TokenLosses(patch)
    if student.cls is None:
        raise UsageError("the teacher teaches a class token, which the student has not")
    return TokenLosses(patch, token_losses(student.cls, teacher.cls, *factors))


def image_losses(
    student: Tokens, teacher: Tokens, weights: LossWeights, token_weights: Tensor | None = None
) -> Tensor:
    """Loss of each image, float32 (B,): `kind_losses`, then `TokenLosses.per_image`."""
    return kind_losses(student, teacher, weights).per_image(token_weights)
