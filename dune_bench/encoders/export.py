"""An encoder as one torch module that can be traced for any batch and image size.

Our ViT's position table is resampled here by two small matrices made from the token grid, which exporters
can keep symbolic, instead of by `F.interpolate`, whose scale factors they turn into constants.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn

from dune_bench.encoders.base import Encoder, parse_view
from dune_bench.encoders.vit import PositionRule, VisionTransformer
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.errors import UsageError


class ExportModule(nn.Module):
    """Normalised images (B, 3, H, W), H and W multiples of the patch size, to the patch map (B, C, h, w) of
    one view; with `has_cls` to the pair of it and the class token (B, C).

    Raises UsageError for an encoder that is no torch module.
    """

    def __init__(self, encoder: Encoder, view: str, has_cls: bool) -> None:
        super().__init__()
        if encoder.module is None:
            raise UsageError(f"encoder {encoder.id} is no torch module: there is no network to export")
        self.view, self.has_cls = view, has_cls
        self.encoder = encoder
        self.network: nn.Module = encoder.module
        if isinstance(encoder, VitEncoder):
            # A shallow copy: the tensors are shared, the encoder of the caller stays as it is.
            traceable = copy.copy(encoder)
            traceable.vit = DynamicVit(encoder.vit)
            teacher = parse_view(view).teacher
            used = [traceable.vit, *([encoder.projectors[teacher]] if teacher else [])]
            self.encoder, self.network = traceable, nn.ModuleList(used)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        patch, cls = self.encoder._forward(images, (self.view,))[self.view]
        return (patch, cls) if self.has_cls and cls is not None else patch


class DynamicVit(VisionTransformer):
    """The same tensors as another ViT; its position table follows a symbolic token grid."""

    def __init__(self, vit: VisionTransformer) -> None:
        nn.Module.__init__(self)
        self.config = vit.config
        self.cls_token, self.pos_embed = vit.cls_token, vit.pos_embed
        if vit.config.registers:
            self.register_tokens = vit.register_tokens
        self.patch_embed, self.blocks, self.norm = vit.patch_embed, vit.blocks, vit.norm

    def embed(self, images: Tensor) -> Tensor:
        """As `VisionTransformer.embed`."""
        config = self.config
        patches = self.patch_embed.proj(images)
        table = dynamic_table(self.pos_embed, patches, config.table, config.position)
        patches = patches.flatten(2).transpose(1, 2) + table
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)
        if not config.registers:
            return torch.cat([cls, patches], 1)
        return torch.cat([cls, self.register_tokens.expand(images.shape[0], -1, -1), patches], 1)

    def forward(self, images: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        return super().forward(images, layers)


def dynamic_table(table: Tensor, patches: Tensor, side: int, rule: PositionRule) -> Tensor:
    """The patch part of `position_table` (1, h·w, C) for the grid of `patches` (B, C, h, w)."""
    rows = torch.arange(patches.shape[2], device=table.device, dtype=torch.float32)
    columns = torch.arange(patches.shape[3], device=table.device, dtype=torch.float32)
    # The last index, not the size: a tensor under every exporter.
    native = ((rows[-1:] + 1 == side) & (columns[-1:] + 1 == side)).float()
    grid = table[0, 1:].float().reshape(side, side, -1)
    by_row, by_column = (_resampling(axis, side, rule, native) for axis in (rows, columns))
    width = grid.shape[2]
    resampled = by_row @ grid.reshape(side, side * width)
    resampled = resampled.reshape(-1, side, width).permute(1, 0, 2).reshape(side, -1)
    resampled = (by_column @ resampled).reshape(patches.shape[3], -1, width)
    return resampled.permute(1, 0, 2).reshape(1, -1, width)


def _resampling(index: Tensor, side: int, rule: PositionRule, native: Tensor) -> Tensor:
    """The matrix (n, side) of bicubic resampling along an axis from `side` entries to n = len(index).

    Entry j weighs k(place(i) - j); what falls beyond the ends counts for the end (plain), or is left out
    and the rest normalised to sum one, the kernel widened by the scale when shrinking (antialiased).
    k: Keys' kernel, with a = -0.75, or -0.5 antialiased, as torch has it.
    """
    count = index[-1:] + 1
    scale = side / (count + 0.1 * (1 - native)) if rule == "dinov2" else side / count
    place = ((index + 0.5) * scale - 0.5)[:, None]
    if rule == "dinov2reg":
        widening = torch.clamp(scale, min=1.0)
        entries = torch.arange(side, device=index.device, dtype=torch.float32)[None]
        weights = _keys((place - entries).abs() / widening, -0.5)
        return weights / weights.sum(1, keepdim=True)
    # A kernel reaches at most two entries beyond either end (three, to be safe).
    margin = 3
    entries = torch.arange(-margin, side + margin, device=index.device, dtype=torch.float32)[None]
    weights = _keys((place - entries).abs(), -0.75)
    first = weights[:, : margin + 1].sum(1, keepdim=True)
    last = weights[:, side + margin - 1 :].sum(1, keepdim=True)
    return torch.cat([first, weights[:, margin + 1 : side + margin - 1], last], 1)


def _keys(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic convolution kernel at distances >= 0."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    zero = torch.zeros_like(distance)
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, zero))
