"""The shortcut: the place of a patch in the image and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor

from dune_bench.encoders.adapter import Adapter, parse_arch
from dune_bench.encoders.base import Tokens
from dune_bench.encoders.checkpoint import State, tensor_digest
from dune_bench.registry.cards import Card, EncoderCard


class PositionArch(Card):
    """patch: side of a patch in pixels.  waves: cosines a side."""

    patch: int = Field(default=14, ge=1)
    waves: int = Field(default=8, ge=2)


class PositionEncoder(Adapter):
    """cos(π i r) · cos(π j c) for i, j = 0 … waves − 1 without the constant (0, 0), where r and c in
    (0, 1) are the row and column of the patch's centre in the padded image.

    The picture is not looked at: whatever a task gets from this, it gets from the camera's habits.
    A linear head draws one smooth map for all images, with details down to 1/waves of the image; the
    nearest neighbour of a patch is the patch at the same place.  No class token; the only view is
    `raw`, with waves² − 1 channels.
    """

    adapter = "position@1"
    needs_weights = False
    weights = "none"
    depth, has_norm = 0, False
    default_view = "raw"

    def __init__(self, id: str, patch_size: int, waves: int) -> None:
        self.id, self.patch_size, self.waves = id, patch_size, waves
        self.dim = waves**2 - 1
        self.options = {"waves": waves}
        self.weights_digest = tensor_digest({})

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> PositionEncoder:
        arch = parse_arch(card, PositionArch)
        return cls(card.id, arch.patch, arch.waves)

    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        batch, _, height, width = normalised.shape
        rows, columns = (self._cosines(side // self.patch_size) for side in (height, width))
        maps = torch.einsum("ir,jc->ijrc", rows, columns).flatten(0, 1)[1:]
        patch = maps.float().to(normalised.device).expand(batch, -1, -1, -1)
        return dict.fromkeys(views, (patch, None))

    def _cosines(self, count: int) -> Tensor:
        """float64 (waves, count): each wave at the centres of `count` patches."""
        places = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        return torch.cos(math.pi * torch.arange(self.waves, dtype=torch.float64)[:, None] * places)
