"""Teacher tokens brought to zero mean and unit deviation per channel, so that no teacher's scale decides.

Training normalises by the current batch and keeps moving averages, which evaluation uses.
Source: PROTOCOLS §6.1, §12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from dune_bench.distill.batch import Tokens
from dune_bench.errors import UsageError

Reduce = Callable[[Tensor], Tensor]
"""Sum of a tensor over all processes; every process calls it (`engine.processes.Processes.sum`)."""

SMALLEST_STD = 1e-3
FIRST_MOMENTUM, LAST_MOMENTUM = 1.0, 1e-3


def momentum_at(progress: float) -> float:
    """Share of the current batch in the moving averages: cosine from 1 at the start to 0.001 at the end.

    progress: share of the training that is done, in [0, 1].
    """
    share = (1 + math.cos(math.pi * progress)) / 2
    return LAST_MOMENTUM + (FIRST_MOMENTUM - LAST_MOMENTUM) * share


def alone(values: Tensor) -> Tensor:
    """The sum over one process."""
    return values


class Normalizer(nn.Module):
    """Statistics of one kind of tokens: float32 buffers mean and std (C,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))

    def forward(self, tokens: Tensor, momentum: float | None, reduce: Reduce) -> Tensor:
        """(..., C) -> (..., C) float32."""
        if tokens.shape[-1] != len(self.mean):
            raise UsageError(
                f"teacher tokens have {tokens.shape[-1]} channels, their statistics {len(self.mean)}"
            )
        tokens = tokens.float()
        if not self.training:
            return (tokens - self.mean) / self.std.clamp(min=SMALLEST_STD)
        mean, centred, std = _standardise(tokens, reduce)
        if momentum is not None:
            self._follow(mean, std, momentum)
        return centred.div_(std.clamp(min=SMALLEST_STD))

    def _follow(self, mean: Tensor, std: Tensor, momentum: float) -> None:
        """Moves the averages towards the batch.  A batch that is not finite stops the training; the averages
        that are then stored stay as they were.  In place, as the engine puts buffers back in place."""
        finite = (mean.isfinite() & std.isfinite()).all()
        for average, value in ((self.mean, mean), (self.std, std)):
            average.copy_(torch.where(finite, (1 - momentum) * average + momentum * value, average))


class TeacherNorm(nn.Module):
    """Normalises one teacher's tokens.  The buffers, `normalizers.{cls,patch}.{mean,std}`, are named as in
    the released files.

    dim: channels.  has_cls: whether the class token is taught; if not, one that comes along is dropped.
    """

    def __init__(self, dim: int, has_cls: bool) -> None:
        super().__init__()
        kinds = ("cls", "patch") if has_cls else ("patch",)
        self.normalizers = nn.ModuleDict({kind: Normalizer(dim) for kind in kinds})

    @torch.no_grad()
    def forward(self, tokens: Tokens, momentum: float | None = None, reduce: Reduce = alone) -> Tokens:
        """Raw tokens (any float type) to normalised ones, float32, without graph.

        In training mode by mean and std of this batch over all processes (over images for cls, images and
        tokens for patch; std unbiased, at least 0.001), and the moving averages take `momentum` of them
        (None: they stay).  In evaluation mode by the averages; momentum and reduce are not used.
        Raises UsageError for a missing class token, another number of channels, or a batch of all
        processes that has a single token (it has no deviation).
        """
        with torch.autocast(tokens.patch.device.type, enabled=False):
            # The order of the kinds is that of the sums over processes: the same on all.
            cls = None
            if "cls" in self.normalizers:
                if tokens.cls is None:
                    raise UsageError("the class token is to be taught, but the teacher's tokens have none")
                cls = self._kind("cls", tokens.cls, momentum, reduce)
            return Tokens(self._kind("patch", tokens.patch, momentum, reduce), cls)

    def _kind(self, kind: str, tokens: Tensor, momentum: float | None, reduce: Reduce) -> Tensor:
        return cast(Tensor, self.normalizers[kind](tokens, momentum, reduce))


def _standardise(tokens: Tensor, reduce: Reduce) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), tokens − mean, unbiased std (C,) of float32 tokens (..., C) over all processes.

    Two passes: deviations from the common mean are summed, not squares of tokens, whose mean may be large.
    """
    rows = tokens.flatten(0, -2)
    count = torch.full((1,), len(rows), dtype=torch.float64, device=rows.device)
    sums = reduce(torch.cat([rows.sum(0, dtype=torch.float64), count]))
    total, count = sums[:-1], sums[-1]
    if len(rows) < 2 and count.item() < 2:
        raise UsageError("teacher statistics need at least 2 images in the batch: raise batch_size")
    mean = (total / count).float()
    centred = tokens - mean
    squares = reduce(centred.flatten(0, -2).square().sum(0, dtype=torch.float64))
    return mean, centred, (squares / (count - 1)).sqrt().float()
