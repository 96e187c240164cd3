"""Correspondences that descriptors are trained on: cells of two output maps that see the same surface,
and random cells as negatives (PROTOCOLS §3.3).

Cells are row-major indices of a map of size (height, width) that covers its view's image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import PairSample, View
from dune_bench.errors import UsageError
from dune_bench.geometry.cameras import pixel_centres, scale_points
from dune_bench.probes.correspondence_truth import pair_truth

Size = tuple[int, int]
Cells = NDArray[np.int64]
NOWHERE = -1


@dataclass(frozen=True)
class Correspondences:
    """cells1, cells2: int64 (n, 2), cells (x, y) of the maps of view 1 and view 2.  matched: bool (n,),
    the two cells see the same surface; the other rows, which come last, are negatives."""

    cells1: Cells
    cells2: Cells
    matched: NDArray[np.bool_]


def cells_seen(view1: View, view2: View, sizes: tuple[Size, Size], occlusion_m: float) -> Cells:
    """For each cell of view 1's map (n1,) the cell of view 2's map that sees the surface at its centre.

    NOWHERE if none does: there the surface of view 2 is not within `occlusion_m` metres (`pair_truth`).
    Raises TaskError for a camera that does not fit its image.
    """
    pair = PairSample(f"{view1.id} → {view2.id}", view1.group, view1, view2, math.nan)
    centres = scale_points(pixel_centres(sizes[0]).reshape(-1, 2), sizes[0], view1.image.size)
    truth = pair_truth(pair, centres, occlusion_m)
    height, width = sizes[1]
    places = scale_points(truth.places2[truth.asked], view2.image.size, sizes[1])
    column, row = np.minimum(np.floor(places).astype(np.int64), (width - 1, height - 1)).T
    seen = np.full(len(centres), NOWHERE)
    seen[truth.asked] = row * width + column
    return seen


def reciprocal(seen12: Cells, seen21: Cells) -> tuple[Cells, Cells]:
    """Cells of map 1 and of map 2, (m,) each, that see each other; from `cells_seen` both ways.  Each
    cell occurs at most once."""
    index1 = np.flatnonzero(seen12 != NOWHERE)
    index2 = seen12[index1]
    mutual = seen21[index2] == index1
    return index1[mutual], index2[mutual]


def draw(
    index1: Cells,
    index2: Cells,
    sizes: tuple[Size, Size],
    count: int,
    rng: np.random.Generator,
    negative_share: float,
) -> Correspondences:
    """`count` correspondences, of which at most count · (1 − negative_share) are true.

    index1, index2: the true ones (m,), drawn without replacement.  Cells that none of the drawn uses
    fill up the rest, so that no negative hides the true end of another row.  Raises UsageError if a map
    has fewer than `count` cells.
    """
    smallest = min(height * width for height, width in sizes)
    if count > smallest:
        raise UsageError(f"{count} correspondences from a map of {smallest} cells: ask for fewer")
    kept = min(len(index1), count - round(count * negative_share))
    chosen = rng.choice(len(index1), kept, replace=False)
    ends = []
    for (height, width), true in zip(sizes, (index1[chosen], index2[chosen]), strict=True):
        free = np.setdiff1d(np.arange(height * width), true)
        cells = np.concatenate([true, rng.choice(free, count - kept, replace=False)])
        ends.append(np.stack([cells % width, cells // width], 1))
    return Correspondences(ends[0], ends[1], np.arange(count) < kept)
