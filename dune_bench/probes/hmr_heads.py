"""Where heads are on the token grid: targets of the detector, peaks of its map, and its threshold.

Tokens are (row, column).  A head belongs to the token whose cell holds it.  Two heads in one token: the
nearer one owns it, the other cannot be learned nor found (it stays in the truth, as a miss).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_people import Bools, Floats, People
from dune_bench.probes.solvers_logistic import Proportions

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Heads:
    """Heads of one image on the grid, nearest first.

    at: (n, 2) token coordinates (x, y); token (r, c) spans [c, c + 1) × [r, r + 1).  counts: (n,) must
    be found.  owns: (n,) is the nearest head in its token and in the image.
    """

    at: Floats
    counts: Bools
    owns: Bools

    @property
    def tokens(self) -> Tokens:
        """(n, 2); meaningless for a head outside the image."""
        return np.floor(self.at[:, ::-1]).astype(np.int64)


def token_coordinates(pixels: Floats, grid: TokenGrid) -> Floats:
    """Network pixels (n, 2) (x, y) -> token coordinates (n, 2) (x, y)."""
    return np.asarray((pixels + grid.padding[:2]) * tokens_per_pixel(grid))


def network_pixels(at: Floats, grid: TokenGrid) -> Floats:
    """The inverse of `token_coordinates`."""
    return np.asarray(at / tokens_per_pixel(grid) - grid.padding[:2])


def token_centres(tokens: Tokens) -> Floats:
    """(n, 2) (row, column) -> token coordinates (n, 2) (x, y) of the tokens' centres."""
    return np.asarray(tokens[:, ::-1] + 0.5, np.float64)


def tokens_per_pixel(grid: TokenGrid) -> Floats:
    """(2,) tokens per network pixel along x and y."""
    left, top, right, bottom = grid.padding
    height, width = grid.image_size
    return np.array([grid.grid[1] / (width + left + right), grid.grid[0] / (height + top + bottom)])


def heads_of(people: People, size: tuple[int, int], grid: TokenGrid) -> Heads:
    """Heads of an image's people.  size: (height, width) of the image that `people.pixels` are of."""
    scale = np.array([grid.image_size[1] / size[1], grid.image_size[0] / size[0]])
    at = token_coordinates(people.pixels * scale, grid)
    inside = np.asarray(((people.pixels >= 0) & (people.pixels < (size[1], size[0]))).all(-1))
    owns = np.zeros(len(at), bool)
    taken: set[tuple[int, int]] = set()
    for i, (row, column) in enumerate(np.floor(at[:, ::-1]).astype(np.int64).tolist()):
        owns[i] = inside[i] and (row, column) not in taken
        if inside[i]:
            taken.add((row, column))
    return Heads(at, people.counts, owns)


def detection_targets(heads: Sequence[Heads], grid: TokenGrid) -> Proportions:
    """Class proportions of all tokens of all images: class 1 where a head that counts is.

    The 8 neighbours of any head's token, and the token of a head that does not count, weigh nothing: what
    they should say is open.  All others weigh 1.  Raises TaskError if nobody counts.
    """
    height, width = grid.grid
    counts = np.zeros((2, len(heads), height, width), dtype=np.uint16)
    counts[0] = 1
    for image, found in enumerate(heads):
        inside = ((found.tokens >= 0) & (found.tokens < (height, width))).all(-1)
        for row, column in found.tokens[inside]:
            counts[0, image, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0
        for row, column in found.tokens[found.owns & found.counts]:
            counts[1, image, row, column] = 1
    if not counts[1].any():
        raise TaskError("nothing to fit on: no image shows a person who must be found")
    return Proportions(counts.reshape(2, -1), np.ones(len(heads) * grid.tokens, dtype=np.uint16))


def peaks(score: NDArray[np.floating], threshold: float) -> tuple[Tokens, Floats]:
    """Tokens (n, 2) that reach the threshold and are the largest of their 3 × 3 neighbours, best first,
    and their scores (n,).  score: (h, w), finite.  Of equal neighbours the first in reading order wins."""
    height, width = score.shape
    padded = np.full((height + 2, width + 2), -np.inf)
    padded[1:-1, 1:-1] = score
    best = score >= threshold
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if (dy, dx) != (0, 0):
                other = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
                best &= score > other if (dy, dx) < (0, 0) else score >= other
    tokens = np.argwhere(best)
    scores = np.asarray(score[best], np.float64)
    order = np.argsort(-scores, kind="stable")
    return tokens[order], scores[order]


@dataclass(frozen=True)
class Hits:
    """Peaks of one image against its heads.  scores: (n,), best first.  hit: (n,) index of the head found
    that counts, −1 for none.  spared: (n,) lies on a head that does not count."""

    scores: Floats
    hit: NDArray[np.int64]
    spared: Bools


def find_heads(tokens: Tokens, scores: Floats, heads: Heads, reach: float) -> Hits:
    """Who a peak has found: in order of score, the nearest free head that counts within `reach` tokens
    of the peak's centre; else a head that does not count."""
    hit = np.full(len(tokens), -1, dtype=np.int64)
    spared = np.zeros(len(tokens), bool)
    distance = np.linalg.norm(tokens[:, None, ::-1] + 0.5 - heads.at[None], axis=-1)
    for i, row in enumerate(distance):
        free = heads.counts & ~np.isin(np.arange(len(row)), hit) & (row <= reach)
        if free.any():
            hit[i] = np.where(free, row, np.inf).argmin()
        else:
            spared[i] = bool((~heads.counts & (row <= reach)).any())
    return Hits(scores, hit, spared)


def best_threshold(found: Sequence[Hits], people: int) -> tuple[float, float]:
    """The score from which on F1 over all images is largest, and that F1 in [0, 1].

    people: how many count in all, at least one.  The threshold lies midway to the next lower score.  Of
    equal F1 the highest threshold; so a detector that finds nobody (F1 0) gets its best score.  Raises
    TaskError without a single peak.
    """
    scores = np.concatenate([f.scores[~f.spared] for f in found])
    right = np.concatenate([f.hit[~f.spared] >= 0 for f in found])
    if not len(scores):
        raise TaskError("the head detector has no peak at all: too few images to choose a threshold on")
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(scores) + 1) + people)
    # Equal scores stand or fall together.
    f1[:-1][scores[:-1] == scores[1:]] = -1.0
    best = int(np.argmax(f1))
    below = scores[best + 1] if best + 1 < len(scores) and f1[best] > 0 else scores[best]
    return float((scores[best] + below) / 2), float(f1[best])
