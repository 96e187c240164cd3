"""Multi-HMR's transformer: people's queries look at each other and at the tokens of their image
(PROTOCOLS §4.2; §12, Multi-HMR head)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dune_bench.models.dropout import Dropout


class SelfAttention(nn.Module):
    """Multi-head attention among the people of one image; no bias in q, k, v."""

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """x: (I, S, width).  real: bool (I, S), at least one per image; the others are not looked at."""
        q, k, v = (_split(part, self.heads) for part in self.to_qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real[:, None, None, :])
        return cast(Tensor, self.to_out(_join(mixed)))


class CrossAttention(nn.Module):
    """Multi-head attention of the people of one image to its tokens; no bias in q, k, v."""

    def __init__(self, width: int, context_dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(context_dim, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: (I, S, width).  context: (I, N, context_dim)."""
        k, v = (_split(part, self.heads) for part in self.to_kv(context).chunk(2, -1))
        mixed = F.scaled_dot_product_attention(_split(self.to_q(x), self.heads), k, v)
        return cast(Tensor, self.to_out(_join(mixed)))


class Layer(nn.Module):
    """Pre-norm self-attention, cross-attention and MLP, all residual; the context is not normalised."""

    def __init__(
        self, width: int, context_dim: int, heads: int, head_dim: int, mlp: int, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = SelfAttention(width, heads, head_dim)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = CrossAttention(width, context_dim, heads, head_dim)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Linear(mlp, width))

    def forward(self, x: Tensor, real: Tensor, context: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attention(self.self_norm(x), real))
        x = x + self.dropout(self.cross_attention(self.cross_norm(x), context))
        return x + cast(Tensor, self.dropout(self.mlp(self.mlp_norm(x))))


class PeopleTransformer(nn.Module):
    """Queries of an image's people, embedded, through `depth` layers; no final norm."""

    def __init__(
        self,
        query_dim: int,
        context_dim: int,
        width: int,
        depth: int,
        heads: int,
        head_dim: int,
        mlp: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(query_dim, width)
        self.position = nn.Parameter(torch.zeros(1, 1, width))  # the same for everyone
        self.layers = nn.ModuleList(
            Layer(width, context_dim, heads, head_dim, mlp, dropout) for _ in range(depth)
        )

    def forward(self, queries: Tensor, real: Tensor, context: Tensor) -> Tensor:
        """(I, S, width) of queries (I, S, query_dim) and context (I, N, context_dim).

        real: bool (I, S), which of the S slots hold a person.
        """
        x = self.embed(queries) + self.position
        for layer in self.layers:
            x = layer(x, real, context)
        return cast(Tensor, x)


def _split(x: Tensor, heads: int) -> Tensor:
    """(I, T, heads · d) -> (I, heads, T, d)."""
    return x.reshape(*x.shape[:2], heads, x.shape[-1] // heads).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """(I, heads, T, d) -> (I, T, heads · d)."""
    return x.transpose(1, 2).flatten(2)
