"""A moving average of the student's weights, kept as buffers so that checkpoints and resumes hold it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema(nn.Module):
    """average ← decay·average + (1 − decay)·weight.

    Buffers are named as the weights with `:` for `.`, which a buffer's name cannot hold.  A step updates
    them first, with the weights that the step before left: what the last step leaves is in `ahead` alone.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._names = tuple(weights)
        for name, value in weights.items():
            self.register_buffer(_buffer(name), value.detach().clone())

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Moves the averages towards these weights, in place."""
        averages = [getattr(self, _buffer(name)) for name in self._names]
        torch._foreach_lerp_(averages, [weights[name].detach() for name in self._names], 1 - self.decay)

    @torch.no_grad()
    def ahead(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The averages after one more update, by the weights' own names; the buffers stay."""
        return {
            name: torch.lerp(getattr(self, _buffer(name)), weights[name].detach(), 1 - self.decay)
            for name in self._names
        }


def _buffer(name: str) -> str:
    return name.replace(".", ":")
