"""The Vision Transformer of DINOv2 and DUNE, with the parameter names of their released files.

Numerics follow the original programs (PROTOCOLS §0.1), which off the native grid differ from timm's:
the position table is resampled by `position_table` below.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dune_bench.registry.cards import Card

PositionRule = Literal["dinov2", "dinov2reg", "transformers"]


class VitConfig(Card):
    """Shape of a ViT.

    width: channels.  patch: pixels.  registers: tokens without position between class and patches.
    table: side of the position table in patches.  position: rule of its resampling.  mlp: GELU with
    4·width hidden units, or SwiGLU (DINOv2's giant).  mask_token: present in files of trained models,
    never used here.
    """

    width: int
    depth: int
    heads: int
    patch: int = 14
    registers: int = 0
    table: int = 37
    position: PositionRule = "dinov2"
    mlp: Literal["gelu", "swiglu"] = "gelu"
    mask_token: bool = True


class Attention(nn.Module):
    """Self-attention with fused q, k, v in this order, heads split inside each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return self.proj(attended)  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two layers with exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class SwiGlu(nn.Module):
    """silu(a)·b with [a, b] = w12(x); hidden width is 2/3 of 4·width, rounded up to a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)  # type: ignore[no-any-return]


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm block: x + γ₁·Attn(LN(x)), then x + γ₂·MLP(LN(x)); LN eps 1e-6.  x: (B, T, C)."""

    def __init__(self, width: int, heads: int, mlp: Literal["gelu", "swiglu"] = "gelu") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = SwiGlu(width) if mlp == "swiglu" else Mlp(width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h·w, C), row-major."""
        return self.proj(images).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class VisionTransformer(nn.Module):
    """Tokens stand as class, registers, patches in row-major order."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.table**2, width))
        if config.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.registers, width))
        if config.mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbed(width, config.patch)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), multiples of the patch, to tokens (B, 1 + R + h·w, C)."""
        batch, _, height, width = images.shape
        patch = self.config.patch
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), self.patch_embed(images)], 1)
        tokens = tokens + position_table(self.pos_embed, (height // patch, width // patch), self.config)
        if not self.config.registers:
            return tokens
        registers = self.register_tokens.expand(batch, -1, -1)
        return torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)

    def forward(self, images: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """Tokens (B, 1 + R + h·w, C) after each asked block, without the final norm.

        Blocks count from 1; those after the last asked one are not run.
        """
        x = self.embed(images)
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks[: max(layers)], start=1):
            x = block(x)
            if number in layers:
                outputs[number] = x
        return outputs


def position_table(table: Tensor, grid: tuple[int, int], config: VitConfig) -> Tensor:
    """The position table (1, 1 + M², C) brought to a token grid (h, w): (1, 1 + h·w, C), float32.

    Used as it is on the native square grid.  Otherwise the patch part is resampled bicubically:
    `dinov2` without antialiasing and by the scale factors (h + 0.1)/M, (w + 0.1)/M, which is not the
    ratio of sizes; `dinov2reg` antialiased, to the size; `transformers` to the size without
    antialiasing (as that library's Dinov2 models do).  The class entry stays.
    Source: PROTOCOLS §0.1.
    """
    side = config.table
    if grid == (side, side):
        return table
    patches = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    # Autocast must not touch this: the originals resample in float32.
    with torch.autocast(table.device.type, enabled=False):
        if config.position == "dinov2reg":
            patches = F.interpolate(patches, size=grid, mode="bicubic", antialias=True)
        elif config.position == "transformers":
            patches = F.interpolate(patches, size=grid, mode="bicubic")
        else:
            scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
            patches = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    return torch.cat([table[:, :1].float(), patches.flatten(2).transpose(1, 2)], 1)


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the released files to ours: `blocks.CHUNK.N.` becomes `blocks.N.`."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "blocks" and len(parts) > 2 and parts[1].isdigit() and parts[2].isdigit():
            del parts[1]
        renamed[".".join(parts)] = value
    return renamed
