"""Which teachers an image learns from: teacher dropping by loss, or by the image's data group.

Source: PROTOCOLS §6.1, §12.  What is drawn is a function of the image's seed, so that neither the number of
processes nor the cut into micro-batches changes who is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dune_bench.errors import UsageError
from dune_bench.registry.suggest import did_you_mean

DroppingMethod = Literal["lowest_loss", "none", "own_data", "own+generic_data"]
GENERIC = "dinov2"
"""The group whose images are of no teacher in particular."""
_PURPOSE = 0x64726F70
"""Keeps these numbers apart from others that are drawn from an image's seed."""


def check_dropping(
    method: str, p: float, homes: Mapping[str, str | None], group_names: Sequence[str], generic: str = GENERIC
) -> None:
    """Raises UsageError for an unknown method, a p that is out of place, or a teacher that the method would
    never let teach (its home group is unknown or not among the data)."""
    if method not in get_args(DroppingMethod):
        raise UsageError(f"dropping method {method!r}{did_you_mean(method, get_args(DroppingMethod))}")
    if not 0 <= p <= 1:
        raise UsageError(f"dropping p {p}: a probability is between 0 and 1")
    if method != "lowest_loss" and p != 0:
        raise UsageError(f"dropping method {method} drops nothing at random: p is {p}, set it to 0")
    if method == "own_data" or (method == "own+generic_data" and generic not in group_names):
        for teacher, home in homes.items():
            if home not in group_names:
                said = "has no home group" if home is None else f"has the home group {home}"
                raise UsageError(
                    f"teacher {teacher} {said}: with dropping method {method} it would teach on no image;"
                    f" the data groups are {', '.join(group_names)}"
                )


def image_uniforms(seeds: Tensor, teachers: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 (B, teachers) on the CPU; a row follows from its seed alone.

    seeds: int64 (B,), not negative.
    """
    rows = [np.random.default_rng([seed, _PURPOSE]).random(teachers, np.float32) for seed in seeds.tolist()]
    return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, teachers)


def coefficients(
    losses: Mapping[str, Tensor],
    homes: Mapping[str, str | None],
    group_names: Sequence[str],
    groups: Tensor,
    method: str,
    p: float,
    random: Tensor | None = None,
    *,
    generic: str = GENERIC,
) -> dict[str, Tensor]:
    """Whether each teacher teaches each image: 0 or 1, float32 (B,) by teacher.

    losses: (B,) by teacher.  homes: each teacher's data group.  groups: int64 (B,), indices in group_names.
    random: (B, T), uniform in [0, 1), columns in the order of `losses`; needed if p is not 0.

    lowest_loss: per image the teacher with the largest loss stays (of equals the first), each other is
    dropped with probability p.  none: all stay.  own_data: those whose home is the image's group.
    own+generic_data: these, and all on images of the group `generic`.
    Raises UsageError as `check_dropping`.
    """
    check_dropping(method, p, homes, group_names, generic)
    stacked = torch.stack(list(losses.values()), 1)
    if method == "none":
        kept = torch.ones_like(stacked, dtype=torch.bool)
    elif method == "lowest_loss":
        kept = _largest_and_lucky(stacked, p, random)
    else:
        home = [_index(homes[teacher], group_names) for teacher in losses]
        kept = groups[:, None] == torch.tensor(home, device=groups.device)
        if method == "own+generic_data":
            kept = kept | (groups == _index(generic, group_names))[:, None]
    return dict(zip(losses, kept.to(stacked.device, torch.float32).unbind(1), strict=True))


def equal_images(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Coefficients whose sum over teachers is 1 for each image that any teacher teaches, (B,) by teacher.

    Without this, as in the original, an image that kept three teachers counts three times one that kept one.
    """
    per_image = torch.stack(list(kept.values())).sum(0)
    return {teacher: c / per_image.clamp(min=torch.finfo(c.dtype).tiny) for teacher, c in kept.items()}


def total_and_count(
    losses: Mapping[str, Tensor], coefficients: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Σ c·ℓ (with its graph) and Σ c over images and teachers; the loss of a batch is their quotient.

    A loss that is not finite shows in the sum even where its coefficient is 0.
    """
    total = torch.stack([(coefficients[teacher] * loss).sum() for teacher, loss in losses.items()]).sum()
    return total, torch.stack([coefficients[teacher].sum() for teacher in losses]).sum()


def shares(coefficients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each teacher's share Σ c / ΣΣ c of a batch, scalars; all 0 if nothing is taught."""
    sums = torch.stack([c.sum() for c in coefficients.values()])
    parts = sums / sums.sum().clamp(min=torch.finfo(sums.dtype).tiny)
    return dict(zip(coefficients, parts.unbind(), strict=True))


def _largest_and_lucky(losses: Tensor, p: float, random: Tensor | None) -> Tensor:
    """(B, T) bool."""
    if random is None:
        if p:
            raise ValueError("dropping with p above 0 needs random numbers")
        return torch.ones_like(losses, dtype=torch.bool)
    if random.shape != losses.shape:
        raise ValueError(f"random numbers {tuple(random.shape)} for losses {tuple(losses.shape)}")
    largest = torch.zeros_like(losses, dtype=torch.bool).scatter_(1, losses.argmax(1, keepdim=True), True)
    return largest | (random.to(losses.device) >= p)


def _index(name: str | None, group_names: Sequence[str]) -> int:
    """Place of a group, −1 where there is no such group among the data."""
    return group_names.index(name) if name in group_names else -1
