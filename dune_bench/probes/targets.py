"""What a patch should say: class counts and mean log-depth of the label pixels in its cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.errors import TaskError
from dune_bench.metrics.confusion import IGNORE
from dune_bench.metrics.depth import valid_depth
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.solvers_logistic import Proportions

MOST_PIXELS = np.iinfo(np.uint16).max


def class_counts(
    labels: NDArray[np.uint8], grid: TokenGrid, classes: int, name: str
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Labelled pixels of each class in each patch's cell, and all pixels of the cell.

    labels: (H, W), 0 … classes − 1 or 255.  Returns uint16 (classes, tokens) and (tokens,).
    Raises TaskError naming the sample for another label.
    """
    wrong = labels[(labels >= classes) & (labels != IGNORE)]
    if wrong.size:
        raise TaskError(f"sample {name} has label {wrong.max()}, but there are {classes} classes")
    cells = grid.cells((labels.shape[0], labels.shape[1]))
    flat = labels.ravel().astype(np.int64)
    # One spare row takes the ignored pixels.
    rows = np.where(flat == IGNORE, classes, flat)
    counts = np.bincount(rows * grid.tokens + cells, minlength=(classes + 1) * grid.tokens)
    counts = counts.reshape(classes + 1, grid.tokens)
    pixels = counts.sum(0)
    if pixels.max() > MOST_PIXELS:
        raise TaskError(f"sample {name} has more than {MOST_PIXELS} label pixels per patch")
    return counts[:classes].astype(np.uint16), pixels.astype(np.uint16)


def proportions(samples: Lazy[Any], grid: TokenGrid, classes: int) -> Proportions:
    """Class proportions of the patches of all segmentation samples, in the samples' order."""
    total = len(samples) * grid.tokens
    counts = np.zeros((classes, total), dtype=np.uint16)
    pixels = np.zeros(total, dtype=np.uint16)
    for i, sample in enumerate(samples):
        rows = slice(i * grid.tokens, (i + 1) * grid.tokens)
        counts[:, rows], pixels[rows] = class_counts(sample.labels, grid, classes, sample.id)
    return Proportions(counts, pixels)


def log_depths(samples: Lazy[Any], grid: TokenGrid, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Mean log-depth (log metres) of the valid pixels of each patch, and their share of its pixels.

    low, high: valid range in metres.  Returns float64 (n,) each; a patch without a valid pixel has
    weight 0 (and a target that does not matter).
    """
    means = np.zeros(len(samples) * grid.tokens)
    weights = np.zeros(len(samples) * grid.tokens)
    for i, sample in enumerate(samples):
        rows = slice(i * grid.tokens, (i + 1) * grid.tokens)
        cells = grid.cells(sample.depth.shape)
        depth = sample.depth.ravel().astype(np.float64)
        valid = valid_depth(depth, low, high)
        counts = np.bincount(cells[valid], minlength=grid.tokens)
        sums = np.bincount(cells[valid], weights=np.log(depth[valid]), minlength=grid.tokens)
        pixels = np.bincount(cells, minlength=grid.tokens)
        means[rows] = sums / np.maximum(counts, 1)
        weights[rows] = counts / np.maximum(pixels, 1)
    return torch.from_numpy(means), torch.from_numpy(weights)
