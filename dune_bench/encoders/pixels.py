"""The floor: mean colour and place of a patch, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from dune_bench.encoders.adapter import Adapter, parse_arch
from dune_bench.encoders.base import Tokens
from dune_bench.encoders.checkpoint import State, tensor_digest
from dune_bench.registry.cards import Card, EncoderCard


class PixelsArch(Card):
    """patch: side of a patch in pixels."""

    patch: int = Field(default=14, ge=1)


class PixelsEncoder(Adapter):
    """Five channels per patch: mean R, G, B in [-1, 1], then row and column of its centre in (-1, 1)
    of the padded image.  No class token; the only view is `raw`."""

    adapter = "pixels@1"
    needs_weights = False
    weights = "none"
    mean = std = (0.5, 0.5, 0.5)
    dim, depth, has_norm = 5, 0, False
    default_view = "raw"

    def __init__(self, id: str, patch_size: int) -> None:
        self.id, self.patch_size = id, patch_size
        self.weights_digest = tensor_digest({})

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> PixelsEncoder:
        return cls(card.id, parse_arch(card, PixelsArch).patch)

    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        colour = F.avg_pool2d(normalised, self.patch_size)
        batch, _, h, w = colour.shape
        rows, columns = (2 * (torch.arange(n, device=colour.device) + 0.5) / n - 1 for n in (h, w))
        place = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(batch, -1, -1, -1)
        return dict.fromkeys(views, (torch.cat([colour, place], 1), None))
