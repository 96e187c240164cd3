"""Nearest neighbours of descriptors in both directions, in blocks, with sub-patch refinement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dune_bench.errors import TaskError


@dataclass(frozen=True)
class Matches:
    """Mutual nearest neighbours.  index1, index2: int64 (m,) rows of the two sets, index1 ascending;
    each row occurs at most once.  similarity: (m,) cosine."""

    index1: Tensor
    index2: Tensor
    similarity: Tensor


def reciprocal_matches(desc1: Tensor, desc2: Tensor, block_bytes: int = 2**25) -> Matches:
    """Exact mutual nearest neighbours by cosine.

    desc1: float (n1, C), desc2: float (n2, C).  One pass over blocks of rows of desc1 serves both
    directions, so memory is one block (`block_bytes`, or one row), never n1 × n2.  Of equal
    similarities the lowest index wins, in both directions.  A descriptor of norm 0 has no direction
    and no match.  Raises TaskError for descriptors that are not finite or of different widths.
    """
    first, live1 = _unit(desc1)
    second, live2 = _unit(desc2)
    if first.shape[1] != second.shape[1]:
        raise TaskError(f"descriptors of {first.shape[1]} and {second.shape[1]} channels do not match")
    n1, n2, device = len(first), len(second), first.device
    forward = torch.zeros(n1, dtype=torch.int64, device=device)
    score = torch.full((n1,), -torch.inf, dtype=first.dtype, device=device)
    backward = torch.zeros(n2, dtype=torch.int64, device=device)
    best = torch.full((n2,), -torch.inf, dtype=first.dtype, device=device)
    # A similarity, its flag and its index (`_first_max`) are alive at the same time.
    rows = max(1, block_bytes // max(1, n2 * (first.element_size() + 9)))
    for start in range(0, n1 if n2 else 0, rows):
        block = first[start : start + rows] @ second.T
        block.masked_fill_(~live2, -torch.inf)
        block.masked_fill_(~live1[start : start + rows, None], -torch.inf)
        score[start : start + rows], forward[start : start + rows] = _first_max(block, 1)
        value, index = _first_max(block, 0)
        better = value > best  # strictly: an earlier block keeps a tie
        best = torch.where(better, value, best)
        backward = torch.where(better, index + start, backward)
    if not n2:
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return Matches(empty, empty, score[:0])
    rank = torch.arange(n1, device=device)
    mutual = (backward[forward] == rank) & (score > -torch.inf)
    return Matches(rank[mutual], forward[mutual], score[mutual])


def refine(
    desc1: Tensor,
    desc2: Tensor,
    matches: Matches,
    grid2: tuple[int, int],
    method: Literal["quadratic", "softargmax"] = "quadratic",
    temperature: float = 0.05,
) -> Tensor:
    """Where in image 2, between the cell centres, the similarity to a match's descriptor peaks.

    desc1: (n1, C).  desc2: (h·w, C), row-major cells of `grid2` = (h, w).  Returns (m, 2) offsets
    (dx, dy) in cells from the centre of cell index2.  `quadratic`: vertex of the parabola through
    the similarities of the cell and its two neighbours, each axis by itself, within ±0.5; 0 where
    the cell is no maximum along that axis, or lies on the border of that axis.  `softargmax`:
    mean of the 3×3 offsets under softmax(similarity / temperature), over the cells that exist.
    Refine one side only: both sides would count the same offset twice.
    """
    height, width = grid2
    if height * width != len(desc2):
        raise TaskError(f"a grid of {height}×{width} cells cannot hold {len(desc2)} descriptors")
    first, second = normalize(desc1[matches.index1], dim=1), normalize(desc2, dim=1)
    row, column = matches.index2 // width, matches.index2 % width
    steps = torch.tensor([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], device=desc2.device)
    rows, columns = row[:, None] + steps[:, 0], column[:, None] + steps[:, 1]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    cells = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    near = torch.einsum("mc,mkc->mk", first, second[cells])
    if method == "softargmax":
        weight = torch.softmax((near / temperature).masked_fill(~inside, -torch.inf), 1)
        return weight @ steps.flip(1).to(near.dtype)
    dx = _vertex(near[:, 3], near[:, 4], near[:, 5], inside[:, 3] & inside[:, 5])
    dy = _vertex(near[:, 1], near[:, 4], near[:, 7], inside[:, 1] & inside[:, 7])
    return torch.stack([dx, dy], 1)


def cell_centres(grid: tuple[int, int], size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """(h·w, 2) centres (x, y), in pixels of an image of `size` (height, width), of the cells of a
    token grid (h, w) that covers it, row-major."""
    y = (torch.arange(grid[0], dtype=dtype) + 0.5) * (size[0] / grid[0])
    x = (torch.arange(grid[1], dtype=dtype) + 0.5) * (size[1] / grid[1])
    return torch.stack([x.repeat(grid[0]), y.repeat_interleave(grid[1])], 1)


def _unit(desc: Tensor) -> tuple[Tensor, Tensor]:
    """Descriptors of norm 1 and which of them have a direction."""
    if desc.ndim != 2 or not desc.is_floating_point():
        raise TaskError(f"descriptors must be float (n, C), not {desc.dtype} {tuple(desc.shape)}")
    if not bool(torch.isfinite(desc).all()):
        raise TaskError("descriptors are not finite")
    norm = torch.linalg.vector_norm(desc, dim=1)
    live = norm > 0
    return desc / torch.where(live, norm, 1.0)[:, None], live


def _first_max(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Maximum along `dim` and its lowest index; torch.max promises no order among equals."""
    best = values.amax(dim)
    length = values.shape[dim]
    index = torch.arange(length, device=values.device)
    index = index[None, :] if dim == 1 else index[:, None]
    hit = values == best.unsqueeze(dim)
    return best, torch.where(hit, index, length).amin(dim)


def _vertex(before: Tensor, here: Tensor, after: Tensor, whole: Tensor) -> Tensor:
    """Offset of the parabola's vertex through three values one cell apart; see `refine`."""
    curvature = before - 2 * here + after
    peak = whole & (curvature < 0) & (here >= before) & (here >= after)
    offset = 0.5 * (before - after) / torch.where(peak, curvature, -1.0)
    return torch.where(peak, offset, 0.0).clamp(-0.5, 0.5)
