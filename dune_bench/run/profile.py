"""What an encoder costs: parameters, FLOPs, latency, throughput, memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.lookup import load_registry
from dune_bench.results.profile import BatchTiming, Profile, ProfileTimings
from dune_bench.run.forward import encoder_failure, is_out_of_memory, measure
from dune_bench.run.provenance import collect, peak_memory_bytes
from dune_bench.run.ui import PhaseProgress, RunUI, SilentUI

BATCH_SIZES = {"cpu": (1, 2, 4, 8), "cuda": (1, 2, 4, 8, 16, 32, 64)}
DEFAULT_RESOLUTION = 336
"""Pixels; the input of the tasks that ship with us."""
_FOREIGN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)


@dataclass(frozen=True)
class EncoderRequest:
    """An encoder to load and one view of it.  view None: its default.  The rest as in `RunRequest`."""

    encoder: str
    weights: str = "auto"
    resolution: int = DEFAULT_RESOLUTION
    view: str | None = None
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    offline: bool = False
    include: tuple[Path, ...] = ()

    def load(self) -> tuple[EncoderCard, Encoder, str]:
        """The card, the encoder on its device, and the view.  Raises UsageError (an unknown name or
        view), UnavailableError (weights are not here), TaskError (a damaged file)."""
        if self.resolution < 1:
            raise UsageError(f"--resolution {self.resolution}: at least 1 pixel")
        registry = load_registry(self.include)
        card = registry.encoder(self.encoder)
        encoder = load_encoder(
            card,
            weights=self.weights,
            device=self.device,
            dtype=self.dtype,
            offline=self.offline,
            registry=registry,
        )
        view = self.view or encoder.default_view
        encoder.check_view(view)
        return card, encoder, view


def make_profile(
    request: EncoderRequest,
    batch_sizes: Sequence[int] | None = None,
    repeats: int = 20,
    ui: RunUI | None = None,
) -> Profile:
    """Measures an encoder on grey images of `resolution` x `resolution` pixels.

    batch_sizes: None for the device's default; batch 1 is always measured.  repeats: forwards at batch
    1; a batch of n gets repeats/n, but at least 3.  Latencies are of the whole of `Encoder.encode`:
    from pixels in memory to checked features.  Where memory runs out the larger sizes are left out.
    Raises UsageError, UnavailableError, TaskError.
    """
    ui = ui or SilentUI()
    _, encoder, view = request.load()
    sizes = _sizes(batch_sizes or BATCH_SIZES.get(encoder.device.type, BATCH_SIZES["cpu"]), repeats)
    cost, layout = measure(encoder, (request.resolution, request.resolution), view)
    with ui.phase(f"{encoder.id}: forwards", "forwards") as progress:
        timings = _timings(encoder, view, request.resolution, sizes, progress)
    return Profile(
        encoder=encoder.id,
        weights=encoder.weights,
        digest=encoder.weights_digest,
        adapter=encoder.adapter,
        view=view,
        resolution=request.resolution,
        dtype=encoder.dtype,
        parameters=cost.parameters,
        flops=cost.flops,
        tokens=layout.grid,
        dim=layout.dim,
        timings=timings,
        provenance=collect(str(encoder.device), torch.get_num_threads()),
    )


def _sizes(batch_sizes: Sequence[int], repeats: int) -> dict[int, int]:
    """Forwards for each batch size, from 1 up."""
    if repeats < 3:
        raise UsageError(f"--repeats {repeats}: at least 3, a percentile of fewer says nothing")
    if min(batch_sizes) < 1:
        raise UsageError(f"--batch-sizes {min(batch_sizes)}: at least 1")
    return {size: max(3, repeats // size) for size in sorted({1, *batch_sizes})}


def _timings(
    encoder: Encoder, view: str, resolution: int, sizes: dict[int, int], progress: PhaseProgress
) -> ProfileTimings:
    total = sum(sizes.values())
    batches: list[BatchTiming] = []
    memory = 0
    for size, forwards in sizes.items():
        images = torch.full((size, 3, resolution, resolution), 0.5)
        if encoder.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(encoder.device)
        try:
            _forward_ms(encoder, view, images)  # warms caches and kernels up
            seen: list[float] = []
            for _ in range(forwards):
                seen.append(_forward_ms(encoder, view, images))
                progress.update(sum(b.forwards for b in batches) + len(seen), total, f"batch {size}")
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise TaskError(
                    f"encoder {encoder.id}: out of memory with a single image on {encoder.device}: "
                    "use --resolution, --dtype bf16 or another --device"
                ) from error
            return ProfileTimings(batches=tuple(batches), peak_memory_bytes=memory, out_of_memory_at=size)
        p50, p95 = np.percentile(seen, [50, 95])
        batches.append(
            BatchTiming(
                batch_size=size,
                forwards=forwards,
                p50_ms=float(p50),
                p95_ms=float(p95),
                images_per_s=1000 * size / float(p50),
            )
        )
        memory = memory or _peak(encoder.device)
    return ProfileTimings(batches=tuple(batches), peak_memory_bytes=memory)


def _forward_ms(encoder: Encoder, view: str, images: torch.Tensor) -> float:
    began = time.perf_counter()
    try:
        encoder.encode(images, [view])
    except _FOREIGN as error:
        if is_out_of_memory(error):
            raise
        raise encoder_failure(encoder, images, error) from error
    if encoder.device.type == "cuda":
        torch.cuda.synchronize(encoder.device)
    return 1000 * (time.perf_counter() - began)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()
