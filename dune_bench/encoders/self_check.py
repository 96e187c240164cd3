"""Does an encoder keep its promises?  Quick checks on synthetic images, for `doctor`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dune_bench.encoders.base import Encoder
from dune_bench.errors import BenchError

BATCH_TOLERANCE_STD = 1e-3


def self_check(encoder: Encoder) -> list[str]:
    """What is wrong with an encoder in its default view, one line each; empty if nothing is.

    Runs at 8 by 8, 12 by 16 and 16 by 16 patches: shapes and finiteness (the contract's own checks),
    features that depend on the image and not on its batch, and a position table that is resampled to
    the image and not cut off.
    """
    patch, view = encoder.patch_size, encoder.default_view
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((2, 3, 12 * patch, 16 * patch), generator=generator)
    try:
        both = encoder.encode(noise, [view])[view].patch
        alone = encoder.encode(noise[:1], [view])[view].patch
        problems = _table_problems(encoder)
    except BenchError as error:
        return [str(error)]
    except (RuntimeError, ValueError, AssertionError) as error:
        # What a network says to a size that it does not take is its own business.
        return [f"does not take every size: {type(error).__name__}: {' '.join(str(error).split())[:160]}"]
    scale = float(both.std())
    if float((both[0] - both[1]).abs().max()) <= 1e-6 * max(scale, 1e-12):
        problems.append("features do not depend on the image")
    elif float((both[0] - alone[0]).abs().max()) > BATCH_TOLERANCE_STD * scale:
        problems.append("features of an image depend on its batch: is a norm in training mode?")
    return problems


def _flat_features(encoder: Encoder, side: int) -> Tensor:
    """Features (C, side, side) of an image of the mean colour: all that differs is the place."""
    view = "layer:1" if encoder.depth else encoder.default_view
    pixels = side * encoder.patch_size
    image = torch.tensor(encoder.mean).view(1, 3, 1, 1).expand(1, 3, pixels, pixels).contiguous()
    return encoder.encode(image, [view])[view].patch[0].cpu()


def _has_position_table(encoder: Encoder) -> bool:
    """Rotary embeddings go by absolute coordinates in some models, and are no table."""
    if encoder.module is None or any("rope" in name for name, _ in encoder.module.named_modules()):
        return False
    return any(name.endswith("pos_embed") for name, _ in encoder.module.named_parameters())


def _table_problems(encoder: Encoder) -> list[str]:
    """Compares the first block's features of a flat image at two sizes: of the same place relative to
    the image, and of the same row and column."""
    if not _has_position_table(encoder):
        return []
    small, large = (_flat_features(encoder, side) for side in (8, 16))
    if float(small.std(dim=(1, 2)).mean()) <= 1e-4 * float(small.std()):
        return ["the position table has no effect on the features"]
    resampled = F.adaptive_avg_pool2d(large[None], (8, 8))[0]
    if _likeness(small, large[:, :8, :8]) > max(0.25, _likeness(small, resampled)):
        return ["the position table looks cut off at other sizes, not resampled (as ibot#18)"]
    return []


def _likeness(a: Tensor, b: Tensor) -> float:
    """Cosine of two maps (C, h, w), each centred over its places."""
    a, b = (x - x.mean(dim=(1, 2), keepdim=True) for x in (a, b))
    return float(F.cosine_similarity(a.flatten(), b.flatten(), dim=0))
