"""What surrounds a person: means of the tokens in fixed windows around the head's token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dune_bench.models.human_slots import in_slots, slots_of

Window = tuple[float, float, float, float]
"""(left, top, right, bottom) from the token's centre, in parts of the grid's sides."""
SLIVER = 1e-3
"""Less of a window than this, in tokens, is nothing: the share of a token that rounding leaves."""


def window_means(tokens: Tensor, cells: Tensor, windows: Sequence[Window]) -> Tensor:
    """(P, W, C) means over the windows of P people.

    tokens: (B, rows, columns, C).  cells: int64 (P, 3), (image, row, column).  A token that a window cuts
    counts by its share; the part beyond the grid is left out; where nothing is left, the image's mean
    stands in.
    """
    rows, columns = tokens.shape[1:3]
    boxes = torch.tensor(windows, dtype=tokens.dtype, device=tokens.device)
    centre = cells[:, 1:].to(tokens.dtype) + 0.5
    down = _shares(centre[:, :1] + boxes[:, 1] * rows, centre[:, :1] + boxes[:, 3] * rows, rows)
    across = _shares(centre[:, 1:] + boxes[:, 0] * columns, centre[:, 1:] + boxes[:, 2] * columns, columns)
    empty = (down.sum(-1) <= SLIVER) | (across.sum(-1) <= SLIVER)
    down, across = (torch.where(empty[..., None], 1.0, x) for x in (down, across))
    down, across = (x / x.sum(-1, keepdim=True) for x in (down, across))
    share = (down[..., :, None] * across[..., None, :]).flatten(2)
    # One product per image, not per person: people of an image see the same tokens.
    image = cells[:, 0]
    slot = slots_of(image, len(tokens))[2]
    shares, real = in_slots(share.flatten(1), len(tokens), image, slot)
    means = shares.reshape(len(tokens), -1, rows * columns) @ tokens.flatten(1, 2)
    return means.reshape(*real.shape, len(windows), -1)[image, slot]


def _shares(start: Tensor, stop: Tensor, size: int) -> Tensor:
    """(P, W, size): how much of each token [i, i + 1) lies within [start, stop), both (P, W)."""
    edges = torch.arange(size, dtype=start.dtype, device=start.device)
    inside = torch.minimum(stop[..., None], edges + 1) - torch.maximum(start[..., None], edges)
    return inside.clamp_min(0.0)
