"""Matches between two views from the tokens of a frozen encoder: what `correspondence`, `recon3d` and
`reloc` share.

Descriptors are the tokens, compared by cosine at network size; points leave here in pixels of the
original images, so that no caller mixes the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from dune_bench.encoders.base import Features
from dune_bench.errors import TaskError
from dune_bench.geometry.matching import Matches, reciprocal_matches, refine
from dune_bench.geometry.sampling import sample_features
from dune_bench.probes.base import ProtocolConstants
from dune_bench.probes.grids import TokenGrid

Floats = NDArray[np.float64]
Size = tuple[int, int]


class MatchConstants(ProtocolConstants):
    """The part of a protocol about matching; docs/tasks/correspondence.md explains each.

    centre: `pair` subtracts the mean token of both images before the cosine, `none` does not.
    refine: how the place between the tokens of view 2 is found.  temperature: of `softargmax`.
    """

    centre: Literal["pair", "none"]
    refine: Literal["quadratic", "softargmax", "none"]
    temperature: float = Field(gt=0)


class UnmatchableError(TaskError):
    """The features of a pair cannot be compared: a failure of that sample, not of the task."""


@dataclass(frozen=True)
class PairMatches:
    """Reciprocal matches of a pair.  points1, points2: float64 (m, 2), pixels (x, y) of the ORIGINAL
    images, within them.  similarity: float64 (m,), cosine of the descriptors of the two tokens."""

    points1: Floats
    points2: Floats
    similarity: Floats

    def __len__(self) -> int:
        return len(self.similarity)

    def at(self, chosen: NDArray[np.bool_]) -> PairMatches:
        """Those of a mask (m,)."""
        return PairMatches(self.points1[chosen], self.points2[chosen], self.similarity[chosen])


def match_pair(
    first: Features,
    second: Features,
    grid1: TokenGrid,
    grid2: TokenGrid,
    size1: Size,
    size2: Size,
    constants: MatchConstants,
) -> PairMatches:
    """Reciprocal nearest neighbours among the tokens of two images.

    first, second: features of one image each (B = 1).  size1, size2: (height, width) of the original
    images.  points1 are token centres; points2 are refined between token centres.  Tokens centred
    in the padding have no match.  There may be none at all.  Raises UnmatchableError for features
    that are not finite, TaskError for features of other grids or widths.
    """
    desc1, desc2, inside1, inside2 = _pair(first, second, grid1, grid2, constants)
    matches = reciprocal_matches(desc1 * inside1[:, None], desc2 * inside2[:, None])
    return PairMatches(
        points1=token_centres(grid1, size1)[matches.index1.cpu().numpy()],
        points2=_places(desc1, desc2, matches, grid2, size2, constants),
        similarity=matches.similarity.cpu().numpy().astype(np.float64),
    )


def match_points(
    first: Features,
    second: Features,
    grid1: TokenGrid,
    grid2: TokenGrid,
    size1: Size,
    size2: Size,
    points1: Floats,
    constants: MatchConstants,
) -> tuple[Floats, Floats]:
    """The place in view 2 most like each asked point of view 1: one direction, every point answered.

    points1: float64 (m, 2), pixels (x, y) of the original view 1; their descriptors are interpolated
    bilinearly between tokens.  Returns points2 float64 (m, 2), pixels of the original view 2, and
    similarity float64 (m,).  A point whose descriptor has no direction has NaN in both.  Raises as
    `match_pair`.
    """
    desc1, desc2, _, inside2 = _pair(first, second, grid1, grid2, constants)
    height, width = grid1.grid
    maps = desc1.T.reshape(1, -1, height, width)
    at = torch.from_numpy(_to_padded(points1, grid1, size1)).to(desc1)
    asked = sample_features(maps, at[None], _padded(grid1))[0]
    matches = _nearest(asked, desc2, inside2)
    points2 = np.full((len(points1), 2), np.nan)
    similarity = np.full(len(points1), np.nan)
    rows = matches.index1.cpu().numpy()
    points2[rows] = _places(asked, desc2, matches, grid2, size2, constants)
    similarity[rows] = matches.similarity.cpu().numpy()
    return points2, similarity


def token_centres(grid: TokenGrid, size: Size) -> Floats:
    """(h·w, 2) token centres (x, y), row-major, in pixels of the original image of `size` (height,
    width); outside it for tokens centred in the padding."""
    rows, columns = np.meshgrid(np.arange(grid.grid[0]), np.arange(grid.grid[1]), indexing="ij")
    cells: Floats = np.stack([columns, rows], -1).reshape(-1, 2) + np.float64(0.5)
    return _to_original(cells, grid, size)


def _pair(
    first: Features, second: Features, grid1: TokenGrid, grid2: TokenGrid, constants: MatchConstants
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Descriptors (n, C) of both images, and which of the tokens are centred in the image (n,)."""
    desc1, desc2 = _tokens(first, grid1), _tokens(second, grid2)
    if desc1.shape[1] != desc2.shape[1]:
        raise TaskError(f"features of {desc1.shape[1]} and {desc2.shape[1]} channels do not match")
    inside1, inside2 = _in_image(grid1).to(desc1.device), _in_image(grid2).to(desc2.device)
    if constants.centre == "pair":
        # What all tokens share says nothing about where they are, but it flattens every cosine.
        mean = torch.cat([desc1[inside1], desc2[inside2]]).double().mean(0).to(desc1.dtype)
        desc1, desc2 = desc1 - mean, desc2 - mean
    return desc1, desc2, inside1, inside2


def _tokens(features: Features, grid: TokenGrid) -> Tensor:
    patch = features.patch
    if patch.shape[0] != 1 or tuple(patch.shape[2:]) != grid.grid:
        raise TaskError(f"matching takes one image of {grid.grid} tokens, not {tuple(patch.shape)}")
    if not bool(torch.isfinite(patch).all()):
        raise UnmatchableError("the features are not finite")
    return patch[0].flatten(1).T


def _nearest(desc1: Tensor, desc2: Tensor, inside2: Tensor, block_bytes: int = 2**25) -> Matches:
    """The token of view 2 with the highest cosine for each row of desc1 (of equal ones the lowest);
    rows without a direction, or without any token to go to, are left out."""
    first, second = normalize(desc1, dim=1), normalize(desc2, dim=1)
    live1 = torch.linalg.vector_norm(desc1, dim=1) > 0
    live2 = inside2 & (torch.linalg.vector_norm(desc2, dim=1) > 0)
    asked = torch.nonzero(live1 & live2.any())[:, 0]
    # The tokens that may be answered, in their order: argmax of equal values is then made lowest.
    allowed = torch.nonzero(live2)[:, 0]
    rows = max(1, block_bytes // max(1, 8 * len(allowed)))
    index, score = [asked[:0]], [first.new_zeros(0)]
    for start in range(0, len(asked), rows):
        block = first[asked[start : start + rows]] @ second[allowed].T
        best = block.amax(1)
        index.append(allowed[(block == best[:, None]).to(torch.uint8).argmax(1)])
        score.append(best)
    return Matches(asked, torch.cat(index), torch.cat(score))


def _places(
    desc1: Tensor, desc2: Tensor, matches: Matches, grid2: TokenGrid, size2: Size, constants: MatchConstants
) -> Floats:
    """Where the matches lie in the original view 2 (m, 2), refined, and within the image."""
    width = grid2.grid[1]
    cells = torch.stack([matches.index2 % width, matches.index2 // width], 1).double() + 0.5
    if constants.refine != "none":
        cells += refine(desc1, desc2, matches, grid2.grid, constants.refine, constants.temperature).double()
    points = _to_original(cells.cpu().numpy(), grid2, size2)
    return np.clip(points, 0.0, (size2[1], size2[0]))


def _padded(grid: TokenGrid) -> Size:
    left, top, right, bottom = grid.padding
    return grid.image_size[0] + top + bottom, grid.image_size[1] + left + right


def _to_original(cells: Floats, grid: TokenGrid, size: Size) -> Floats:
    """Token coordinates (n, 2) (x, y), token i spanning [i, i + 1), in pixels of the original image."""
    padded = _padded(grid)
    left, top = grid.padding[:2]
    network = cells * (padded[1] / grid.grid[1], padded[0] / grid.grid[0]) - (left, top)
    return np.asarray(network * (size[1] / grid.image_size[1], size[0] / grid.image_size[0]))


def _to_padded(points: Floats, grid: TokenGrid, size: Size) -> Floats:
    """Pixels (n, 2) of the original image in pixels of the padded image at network size."""
    left, top = grid.padding[:2]
    scale = (grid.image_size[1] / size[1], grid.image_size[0] / size[0])
    return np.asarray(points * scale + (left, top))


def _in_image(grid: TokenGrid) -> Tensor:
    """(h·w,) bool: tokens whose centre is in the image and not in its padding."""
    points = token_centres(grid, grid.image_size)
    height, width = grid.image_size
    return torch.from_numpy(((points >= 0) & (points <= (width, height))).all(1))
