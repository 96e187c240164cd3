"""Forward passes of an encoder: with smaller batches when memory runs out, errors in one line, cost."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dune_bench.encoders.base import Encoder, Features
from dune_bench.errors import TaskError
from dune_bench.run.chunks import Layout

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_FOREIGN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""What a user's network may raise; all of it is that encoder's failure, not the run's."""
AUTO_BATCH = {"cpu": 8, "cuda": 32}


@dataclass
class Forwarder:
    """Runs `encode` in batches of at most `batch_size`, which halves when memory runs out.

    warn: told of every halving.  batch_ms: milliseconds per image of each batch.
    """

    encoder: Encoder
    batch_size: int
    warn: Callable[[str], None]
    batch_ms: list[float] = field(default_factory=list)

    def __call__(self, images: Tensor, views: Sequence[str]) -> dict[str, Features]:
        """Features of one batch (CPU float32), whatever the batch size.

        images: (B, 3, H, W).  Raises TaskError if the encoder fails, also with a single image.
        """
        parts: list[dict[str, Features]] = []
        start = 0
        while start < len(images):
            batch = images[start : start + self.batch_size]
            began = time.perf_counter()
            try:
                parts.append(self._encode(batch, views))
            except RuntimeError as error:
                self._shrink(error, len(batch))
                continue
            self.batch_ms.append(1000 * (time.perf_counter() - began) / len(batch))
            start += len(batch)
        return parts[0] if len(parts) == 1 else {view: _joined([p[view] for p in parts]) for view in views}

    @property
    def latency_ms(self) -> float | None:
        """Median over the batches, or None if none ran."""
        return statistics.median(self.batch_ms) if self.batch_ms else None

    def _encode(self, batch: Tensor, views: Sequence[str]) -> dict[str, Features]:
        try:
            found = self.encoder.encode(batch, views)
            return {view: _on_cpu(features) for view, features in found.items()}
        except _FOREIGN as error:
            if is_out_of_memory(error):
                raise
            raise encoder_failure(self.encoder, batch, error) from error

    def _shrink(self, error: RuntimeError, tried: int) -> None:
        if tried == 1:
            raise TaskError(
                f"encoder {self.encoder.id}: out of memory with a single image on {self.encoder.device}: "
                "use --resolution, --dtype bf16 or another --device"
            ) from error
        self.batch_size = tried // 2
        self.warn(f"encoder {self.encoder.id}: out of memory, going on with batches of {self.batch_size}")
        if self.encoder.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def encoder_failure(encoder: Encoder, batch: Tensor, error: Exception) -> TaskError:
    """One line: what, and in which file and line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    reason = (str(error).strip().splitlines() or [""])[0]
    return TaskError(
        f"encoder {encoder.id} failed on a batch {tuple(batch.shape)}: {type(error).__name__}: {reason} "
        f"(at {frame.filename}:{frame.lineno})"
    )


def batch_size_for(encoder: Encoder, asked: int | Literal["auto"]) -> int:
    """Images per forward to begin with."""
    return AUTO_BATCH.get(encoder.device.type, 8) if asked == "auto" else asked


@dataclass(frozen=True)
class ForwardCost:
    """Of one image.  flops: a multiply-add counts as two; matrix products and convolutions only.
    None for a network that is no torch module, whose work cannot be seen."""

    parameters: int | None
    flops: float | None


def measure(encoder: Encoder, size: tuple[int, int], view: str) -> tuple[ForwardCost, Layout]:
    """What an image of `size` (height, width) costs, and what its features look like in a view,
    from one forward of a grey image.  Raises TaskError if the encoder fails."""
    grey = torch.full((1, 3, *size), 0.5)
    counter = None if encoder.module is None else FlopCounterMode(display=False)
    try:
        # The fused attention kernels are not in torch's tables; the plain products are.
        with sdpa_kernel(SDPBackend.MATH), counter or nullcontext():
            features = encoder.encode(grey, [view])[view]
    except _FOREIGN as error:
        raise encoder_failure(encoder, grey, error) from error
    layout = _layout(features, size)
    if encoder.module is None or counter is None:
        return ForwardCost(None, None), layout
    parameters = sum(parameter.numel() for parameter in encoder.module.parameters())
    return ForwardCost(parameters, float(counter.get_total_flops())), layout


def _layout(features: Features, size: tuple[int, int]) -> Layout:
    _, dim, h, w = features.patch.shape
    return Layout(dim, (h, w), size, features.padding, features.cls is not None)


def _on_cpu(features: Features) -> Features:
    cls = None if features.cls is None else features.cls.cpu()
    return Features(features.patch.cpu(), cls, features.padding)


def _joined(parts: Sequence[Features]) -> Features:
    cls = [part.cls for part in parts if part.cls is not None]
    return Features(
        torch.cat([part.patch for part in parts]), torch.cat(cls) if cls else None, parts[0].padding
    )
