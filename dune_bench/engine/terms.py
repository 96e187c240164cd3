"""What a loss function hands to the engine: sums and counts, never means.

A mean over one process's samples cannot be averaged over processes when their counts differ (a pair of
images without overlap has no correspondence to count). With sums and counts the engine divides by the
count of the whole global batch, so that two processes, or two accumulated micro-batches, take exactly
the step of one process with all the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LossTerm:
    """One named part of a loss on one micro-batch: its value over a batch is weight · Σ total / Σ count.

    Attributes:
        total: scalar, the summed loss, with its graph.
        count: what `total` is a sum over (pixels, matches, people); a number or a scalar tensor without
            a graph; never negative. Where it is 0, `total` is 0 too: a term that counts nothing in
            the whole global batch takes no part in the step and is logged as absent, not as 0.
        weight: factor of the term in the loss.
    """

    total: Tensor
    count: Tensor | float
    weight: float = 1.0
