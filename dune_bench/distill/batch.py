"""What flows between data, teachers, student and losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """Tokens of a batch.  patch: (B, N, C), row-major.  cls: (B, C), or None where there is none or where
    it is not taught."""

    patch: Tensor
    cls: Tensor | None = None


@dataclass(frozen=True)
class DistillBatch:
    """Images to learn from.

    images: float32 (B, 3, S, S), RGB in [0, 1], augmented.  groups: int64 (B,), index of each image's data
    group.  seeds: int64 (B,), of everything random about an image in the loss.  stored: raw tokens of
    teachers whose features were stored, by teacher name; the others are asked.
    """

    images: Tensor
    groups: Tensor
    seeds: Tensor
    stored: Mapping[str, Tokens] = field(default_factory=dict)
