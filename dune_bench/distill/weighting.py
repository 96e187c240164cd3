"""Beyond the paper: weights of teachers, fixed or learned, and of tokens on which teachers disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from dune_bench.errors import UsageError
from dune_bench.registry.cards import Card
from dune_bench.registry.suggest import did_you_mean

AFFINITIES_AT_ONCE = 2**25
"""Token pairs compared in a go: 128 MB a matrix."""


class Weighting(Card):
    """How much each teacher counts.

    kind: `equal`, the paper's; `fixed`, by `weights` (a teacher not named has 1; they are used as they are,
    not made to sum to anything); `uncertainty`, learned.  robust: scale of `robust_weights`; None: all
    tokens alike.
    """

    kind: Literal["equal", "fixed", "uncertainty"] = "equal"
    weights: dict[str, float] = Field(default_factory=dict)
    robust: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.weights) != (self.kind == "fixed"):
            raise ValueError("weights by teacher belong to kind: fixed, and to no other kind")
        if not all(0 <= weight < float("inf") for weight in self.weights.values()):
            raise ValueError(f"weights {self.weights} are not all finite and at least 0")
        return self


class TeacherWeights(nn.Module):
    """Losses by teacher to weighted losses by teacher.

    Teacher dropping looks at the losses before this.  Weighted losses, not coefficients, so that a batch's
    Σ c stays what it is summed over.
    """

    def __init__(self, teachers: Sequence[str]) -> None:
        super().__init__()
        self.teachers = tuple(teachers)

    def forward(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(B,) by teacher -> (B,) by teacher."""
        return dict(losses)

    def factors(self) -> dict[str, float]:
        """What each teacher's loss is multiplied by now, for the log."""
        return dict.fromkeys(self.teachers, 1.0)


class FixedWeights(TeacherWeights):
    """Each teacher's loss times a number."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(tuple(weights))
        self._weights = dict(weights)

    def forward(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {teacher: self._weights[teacher] * loss for teacher, loss in losses.items()}

    def factors(self) -> dict[str, float]:
        return dict(self._weights)


class UncertaintyWeights(TeacherWeights):
    """exp(−s)·ℓ + s with a learned log-variance s per teacher, 0 at first: a teacher whose loss stays high
    comes to count less; at the optimum exp(s) is its mean loss.  The weighted loss may be negative.

    Source: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses" (CVPR 2018).
    `log_variances`: (T,) float32 in the order of the teachers; a vector, so weight decay passes it by.
    """

    def __init__(self, teachers: Sequence[str]) -> None:
        super().__init__(teachers)
        self.log_variances = nn.Parameter(torch.zeros(len(self.teachers)))

    def forward(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        s = dict(zip(self.teachers, self.log_variances.unbind(), strict=True))
        return {
            teacher: torch.exp(-s[teacher]) * loss.float() + s[teacher] for teacher, loss in losses.items()
        }

    def factors(self) -> dict[str, float]:
        return dict(zip(self.teachers, torch.exp(-self.log_variances.detach()).tolist(), strict=True))


def teacher_weights(weighting: Weighting, teachers: Sequence[str]) -> TeacherWeights:
    """The module for a recipe's choice.  Raises UsageError for a weight of a teacher that does not teach, or
    if no teacher has a weight above 0."""
    if weighting.kind == "uncertainty":
        return UncertaintyWeights(teachers)
    if weighting.kind == "equal":
        return TeacherWeights(teachers)
    for name in weighting.weights:
        if name not in teachers:
            raise UsageError(f"weighting: {name!r} is none of the teachers{did_you_mean(name, teachers)}")
    weights = {teacher: weighting.weights.get(teacher, 1.0) for teacher in teachers}
    if not any(weights.values()):
        raise UsageError("weighting: all teachers have the weight 0: nothing would be learned")
    return FixedWeights(weights)


@torch.no_grad()
def disagreement(tokens: Sequence[Tensor]) -> Tensor:
    """How far teachers are from seeing the same structure at a token, float32 (B, N), in [0, 1].

    tokens: each teacher's normalised patch tokens (B, N, C_T).  Teachers live in different spaces, but each
    says which other tokens of the image a token resembles: its cosines with them.  The correlation of two
    teachers' cosines (over the other N − 1 tokens), averaged over pairs of teachers, is ρ; the disagreement
    is (1 − ρ)/2: 0 for the same structure, 1/2 for unrelated, 1 for opposite.  A teacher to which all other
    tokens look alike correlates 0 with everyone.  One teacher, or fewer than 3 tokens: 0.

    The student has no part in this, there is no running state, and an image's values do not depend on the
    batch around it.
    """
    batch, count = tokens[0].shape[:2]
    if len(tokens) < 2 or count < 3:
        return torch.zeros(batch, count, device=tokens[0].device)
    at_once = max(1, AFFINITIES_AT_ONCE // count**2)
    with torch.autocast(tokens[0].device.type, enabled=False):
        starts = range(0, batch, at_once)
        return torch.cat([_disagreement([t[i : i + at_once] for t in tokens]) for i in starts])


def robust_weights(tokens: Sequence[Tensor], scale: float) -> Tensor:
    """Weights of patch tokens, float32 (B, N), without graph: 1/(1 + (disagreement/scale)²), then divided by
    their mean over the image, so that images keep their weight.

    tokens: as of `disagreement`.  scale: the disagreement at which a token counts half of an undisputed one.
    """
    weights = 1 / (1 + (disagreement(tokens) / scale).square())
    return weights / weights.mean(1, keepdim=True)


def _disagreement(tokens: Sequence[Tensor]) -> Tensor:
    """Of a few images.  Σ over pairs of u·v is (|Σ u|² − Σ |u|²)/2, so two matrices are held at a time."""
    rows = _affinity_profile(tokens[0])
    squares = rows.square().sum(-1)
    for teacher in tokens[1:]:
        profile = _affinity_profile(teacher)
        squares += profile.square().sum(-1)
        rows += profile
    pairs = len(tokens) * (len(tokens) - 1)
    correlation = (rows.square().sum(-1) - squares) / pairs
    return ((1 - correlation) / 2).clamp(0, 1)


def _affinity_profile(tokens: Tensor) -> Tensor:
    """(B, N, C) -> (B, N, N): each token's cosines with the others, less their mean, of unit length (0 where
    they do not vary); 0 on the diagonal."""
    unit = F.normalize(tokens.float(), dim=-1)
    cosines = unit @ unit.transpose(1, 2)
    cosines.diagonal(dim1=1, dim2=2).zero_()
    others = cosines.shape[1] - 1
    cosines -= cosines.sum(-1, keepdim=True) / others
    cosines.diagonal(dim1=1, dim2=2).zero_()
    length = cosines.norm(dim=-1, keepdim=True)
    # Below this, cosines differ by rounding only, and their pattern is noise.
    return torch.where(length > 1e-6 * others**0.5, cosines / length.clamp(min=1e-12), 0.0)
