"""What the linear heads share: their λ grid, and their values on the token grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from dune_bench.errors import TaskError
from dune_bench.probes.base import FeatureSource, Head, ProbeContext


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("write the λ grid in ascending order, each value once")
    return values


Lambdas = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1), AfterValidator(_ascending)
]
"""A grid of penalties per unit of weight, ascending."""


def linear_maps(
    features: FeatureSource, image_ids: Sequence[str], head: Head, ctx: ProbeContext
) -> Iterator[NDArray[np.float32]]:
    """weight (x − mean) + bias of each image's tokens, float32 (K, h, w) each.

    One product per image, so that the numbers do not depend on how images are batched.
    Raises TaskError naming an image whose values are not finite, or if the head is of other features.
    """
    weight, mean, bias = (head.tensors[name].to(ctx.device) for name in ("weight", "mean", "bias"))
    if weight.shape[1] != features.dim:
        raise TaskError(f"the head takes {weight.shape[1]} channels, the features have {features.dim}")
    for images, batch in features.batches(image_ids, ctx.chunk_bytes):
        for name, patch in zip(image_ids[images], batch.patch, strict=True):
            x = patch.permute(1, 2, 0).reshape(-1, features.dim).to(ctx.device, weight.dtype)
            values = ((x - mean) @ weight.T + bias).T.reshape(len(weight), *features.grid)
            if not bool(values.isfinite().all()):
                raise TaskError(f"image {name}: the prediction is not finite (features NaN or infinite?)")
            yield values.cpu().float().numpy()
