"""Matches between two views from the dense descriptors of a two-view decoder (PROTOCOLS §3.7).

All against all is 4·10¹⁰ products for maps of 512 × 384; so the search starts from a coarse grid of view 1
and walks to the nearest neighbour there and back until it returns to where it stood.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Size
from dune_bench.probes.base import ProtocolConstants
from dune_bench.probes.pair_matches import PairMatches, UnmatchableError
from dune_bench.probes.two_view_maps import PairMaps

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Descriptors = NDArray[np.float32]
BLOCK_BYTES = 2**25
UNKNOWN = -1


class DescriptorMatchConstants(ProtocolConstants):
    """The part of a protocol about matching descriptors.

    seed_stride: cells of view 1 between two starts of the search; 1 finds every reciprocal match.
    border_px: matches nearer than this to an edge of either original image are dropped.
    max_matches: of more, as many are kept, evenly spaced in the order of view 1's cells.
    """

    seed_stride: int = Field(ge=1)
    border_px: float = Field(ge=0)
    max_matches: int = Field(ge=1)


def descriptor_matches(
    maps: PairMaps, size1: Size, size2: Size, constants: DescriptorMatchConstants
) -> PairMatches:
    """Reciprocal nearest neighbours among the cells of two views, by the product of descriptors.

    size1, size2: (height, width) of the original images, whose pixels the points are in: centres of
    cells, in the order of view 1's.  There may be none at all.  Raises UnmatchableError for
    descriptors that are not finite, TaskError for ones of different widths.
    """
    desc1, desc2 = (
        view.descriptors.reshape(-1, view.descriptors.shape[2]) for view in (maps.view1, maps.view2)
    )
    if desc1.shape[1] != desc2.shape[1]:
        raise TaskError(f"descriptors of {desc1.shape[1]} and {desc2.shape[1]} channels do not match")
    if not (np.isfinite(desc1).all() and np.isfinite(desc2).all()):
        raise UnmatchableError("the descriptors are not finite")
    index1, index2 = reciprocal_from(maps.view1.every(constants.seed_stride), desc1, desc2)
    points1, points2 = maps.view1.centres(size1)[index1], maps.view2.centres(size2)[index2]
    kept = np.flatnonzero(
        _within(points1, size1, constants.border_px) & _within(points2, size2, constants.border_px)
    )
    if len(kept) > constants.max_matches:
        kept = kept[np.linspace(0, len(kept) - 1, constants.max_matches).round().astype(np.int64)]
    similarity = (desc1[index1[kept]].astype(np.float64) * desc2[index2[kept]]).sum(1)
    return PairMatches(points1[kept], points2[kept], similarity)


def reciprocal_from(seeds: Indices, desc1: Descriptors, desc2: Descriptors) -> tuple[Indices, Indices]:
    """Reciprocal nearest neighbours met on the way from `seeds`, rows of desc1.

    desc1: (n1, d), desc2: (n2, d).  From each seed: to the row of desc2 with the largest product, from
    there to that of desc1, and on, until the way closes.  Of equal products the lowest index wins.
    No row is asked twice: a way that meets another one ends there, so that the search ends whatever
    the rounding, and a seed at every row asks for exactly all reciprocal pairs.  Returns the pairs
    (m,), (m,) in ascending order of the first; each row occurs once.
    """
    forward, backward = np.full(len(desc1), UNKNOWN, np.int64), np.full(len(desc2), UNKNOWN, np.int64)
    asked = np.unique(seeds)
    while len(asked):
        forward[asked] = nearest(desc1[asked], desc2)
        reached = np.unique(forward[asked])
        fresh = reached[backward[reached] == UNKNOWN]
        backward[fresh] = nearest(desc2[fresh], desc1)
        returned = np.unique(backward[reached])
        asked = returned[forward[returned] == UNKNOWN]
    visited = np.flatnonzero(forward != UNKNOWN)
    closed = visited[backward[forward[visited]] == visited]
    return closed, forward[closed]


def nearest(queries: Descriptors, table: Descriptors) -> Indices:
    """The row of `table` (n, d) with the largest product for each row of `queries` (m, d), the lowest
    among equals; in blocks, so that never m × n products stand in memory."""
    found = np.empty(len(queries), np.int64)
    rows = max(1, BLOCK_BYTES // (len(table) * table.itemsize))
    for start in range(0, len(queries), rows):
        found[start : start + rows] = (queries[start : start + rows] @ table.T).argmax(1)
    return found


def _within(points: Floats, size: Size, border_px: float) -> NDArray[np.bool_]:
    limits = (size[1] - border_px, size[0] - border_px)
    return np.asarray(((points >= border_px) & (points <= limits)).all(1))
