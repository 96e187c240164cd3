"""Transformer blocks with rotary positions: CroCo's encoder block and two-view decoder block.

Parameter names are those of the released files.  Source: croco `models/blocks.py` as restated in
PROTOCOLS §3.1 and §12.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dune_bench.models.rope import RotaryTable

NORM_EPS = 1e-6


class SelfAttention(nn.Module):
    """Fused q, k, v in this order, heads split inside each; q and k rotated."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, positions: RotaryTable) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(positions.rotate(q), positions.rotate(k), v)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Queries of one view, keys and values of the other, each rotated by its own grid."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(width, width)
        self.projk = nn.Linear(width, width)
        self.projv = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor, x_positions: RotaryTable, y_positions: RotaryTable) -> Tensor:
        """x: (B, T, C), y: (B, T', C) -> (B, T, C)."""
        q = x_positions.rotate(self._heads(self.projq(x)))
        k = y_positions.rotate(self._heads(self.projk(y)))
        mixed = F.scaled_dot_product_attention(q, k, self._heads(self.projv(y)))
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, heads, T, C / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Mlp(nn.Module):
    """Two layers with exact GELU."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class EncoderBlock(nn.Module):
    """x + SA(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio * width, width)

    def forward(self, x: Tensor, positions: RotaryTable) -> Tensor:
        x = x + self.attn(self.norm1(x), positions)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class DecoderBlock(nn.Module):
    """x + SA(LN(x)), then x + CA(LN(x), LN(y)), then x + MLP(LN(x)); y: the other view's tokens."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_y = nn.LayerNorm(width, eps=NORM_EPS)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_ratio * width, width)

    def forward(self, x: Tensor, y: Tensor, x_positions: RotaryTable, y_positions: RotaryTable) -> Tensor:
        """x: (B, T, C), y: (B, T', C) -> (B, T, C)."""
        x = x + self.attn(self.norm1(x), x_positions)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(y), x_positions, y_positions)
        return x + self.mlp(self.norm3(x))  # type: ignore[no-any-return]
