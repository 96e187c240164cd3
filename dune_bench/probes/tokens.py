"""What a learned head has to know of an encoder's tokens: their size, and their channels' spread."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.errors import TaskError
from dune_bench.probes.base import FeatureSource, ProbeContext


def token_pixels(features: FeatureSource) -> int:
    """Side of a token, pixels at network size.  Raises TaskError for tokens that are not square."""
    left, top, right, bottom = features.padding
    (height, width), (rows, columns) = features.image_size, features.grid
    padded = (height + top + bottom, width + left + right)
    if padded[0] % rows or padded[1] % columns or padded[0] // rows != padded[1] // columns:
        raise TaskError(f"a grid of {features.grid} tokens on {padded} pixels: tokens are not square")
    return padded[0] // rows


def token_statistics(features: FeatureSource, samples: Lazy[Any], ctx: ProbeContext) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of each channel over the tokens of the samples' images, summed in
    float64.  A channel that never moves has the deviation 1.  Raises TaskError naming an image whose tokens
    are not finite: behind the statistics all pairs would look alike."""
    ids = list(dict.fromkeys(image.id for i in range(len(samples)) for image in samples.images(i)))
    count, total, squares = 0, torch.zeros(features.dim).double(), torch.zeros(features.dim).double()
    for part, batch in features.batches(ids, ctx.chunk_bytes):
        finite = batch.patch.isfinite().flatten(1).all(1).tolist()
        if not all(finite):
            raise TaskError(f"image {ids[part][finite.index(False)]}: its features are not finite")
        tokens = batch.patch.permute(0, 2, 3, 1).reshape(-1, features.dim).double()
        count += len(tokens)
        total += tokens.sum(0)
        squares += tokens.square().sum(0)
    mean = total / count
    # Of numbers this large, a difference below the last digits is rounding, not spread.
    variance = squares / count - mean.square()
    moves = variance > 1e-12 * squares / count
    return mean.float(), torch.where(moves, variance, 1.0).sqrt().float()
