"""Time of both convex fits for a ViT-S (384-d) on 420 images at 336 px (24 × 24 tokens), 14 classes.

    python benchmarks/probes_speed.py [--images 420] [--dim 384]

Synthetic features in a memory-mapped file, with a decaying spectrum, rooms that differ and labels
that the features tell imperfectly, so that the solvers have as much to do as on real ones.  Prints
seconds, the peak memory that the fits add, and the ratio to the budget of 90 s on 2 cores.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.samples import DepthSample, ImageRef, SegSample
from dune_bench.encoders.base import Features
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.depth import DepthConvex, DepthProbe
from dune_bench.probes.semseg import SemsegConvex, SemsegProbe
from dune_bench.registry.cards import TaskCard, load_card

BUDGET_S = 90.0
CLASSES, GRID, VIEWS = 14, 24, 6
TASKS = Path(__file__).parents[1] / "tasks"


class MappedFeatures(FeatureSource):
    """Features (n, h, w, C) in a file, as the feature cache has them."""

    grid, image_size, padding = (GRID, GRID), (336, 336), (0, 0, 0, 0)

    def __init__(self, array: np.memmap) -> None:
        self.array = array
        self.dim = array.shape[-1]

    def batches(self, image_ids: Sequence[str], max_bytes: int) -> Iterator[tuple[slice, Features]]:
        step = max(1, max_bytes // (self.array[0].nbytes))
        for start in range(0, len(image_ids), step):
            part = slice(start, min(start + step, len(image_ids)))
            # Images stand in the file in the order of the samples.
            yield part, Features(torch.from_numpy(self.array[part]).permute(0, 3, 1, 2), None)


def synthesise(path: Path, images: int, dim: int) -> tuple[MappedFeatures, np.ndarray]:
    """Writes the features; returns them with the class of each patch, (n, h, w)."""
    rng = np.random.default_rng(0)
    array = np.memmap(path, np.float32, "w+", shape=(images, GRID, GRID, dim))
    spectrum = np.arange(1, dim + 1) ** -0.7
    mix = np.linalg.qr(rng.normal(size=(dim, dim)))[0] * spectrum[:, None]
    centres = rng.normal(size=(CLASSES, dim))
    labels = rng.integers(0, CLASSES, (images, 6, 6)).repeat(4, 1).repeat(4, 2)
    for i in range(images):
        if i % VIEWS == 0:
            room = rng.normal(size=(CLASSES, dim))
        x = (centres + room)[labels[i]] + 2.0 * rng.normal(size=(GRID, GRID, dim))
        array[i] = x @ mix * 3.0 + 5.0
    return MappedFeatures(array), labels


def samples_of(labels: np.ndarray) -> tuple[Lazy[SegSample], Lazy[DepthSample]]:
    """Labels at 448 px with noise at the borders, depth at 224 px."""
    rng = np.random.default_rng(1)
    depth_of_class = rng.uniform(1.0, 8.0, CLASSES).astype(np.float32)

    def upscale(i: int, size: int) -> np.ndarray:
        rows = np.clip(np.arange(size) * GRID / size + rng.normal(size=size) * 0.3, 0, GRID - 1).astype(int)
        return labels[i][rows][:, rows]

    def seg(i: int) -> SegSample:
        return SegSample(str(i), str(i // VIEWS), ref(i), upscale(i, 448).astype(np.uint8))

    def depth(i: int) -> DepthSample:
        return DepthSample(str(i), str(i // VIEWS), ref(i), depth_of_class[upscale(i, 224)], np.eye(3))

    def ref(i: int) -> ImageRef:
        return ImageRef(str(i), "", (448, 448), lambda: np.zeros((448, 448, 3), np.uint8))

    n = range(len(labels))
    return (
        Lazy([LazyItem(str(i), str(i // VIEWS), (ref(i),), lambda i=i: seg(i)) for i in n]),
        Lazy([LazyItem(str(i), str(i // VIEWS), (ref(i),), lambda i=i: depth(i)) for i in n]),
    )


def fit(name: str, features: MappedFeatures, samples: Lazy, ctx: ProbeContext) -> tuple[Head, float]:
    constants = load_card(TASKS / f"{name}_minirooms.yaml", TaskCard).protocol
    probe = (
        SemsegProbe(SemsegConvex.model_validate(constants))
        if name == "semseg"
        else DepthProbe(DepthConvex.model_validate(constants))
    )
    start = time.perf_counter()
    head = probe.fit(features, samples, {}, ctx)
    return head, time.perf_counter() - start


def anonymous_memory() -> int:
    """Private memory of this process in bytes (files that are mapped do not count)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=420)
    parser.add_argument("--dim", type=int, default=384)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        features, labels = synthesise(Path(folder) / "features", options.images, options.dim)
        seg, depth = samples_of(labels)
        ctx = ProbeContext(classes=tuple(str(k) for k in range(CLASSES)))
        before = anonymous_memory()
        head, seg_s = fit("semseg", features, seg, ctx)
        ridge, depth_s = fit("depth", features, depth, ctx)
        after = anonymous_memory()
    print(f"{options.images} images, {labels.size} patches, {options.dim} channels, {CLASSES} classes")
    print(f"semseg {seg_s:6.1f} s  {head.choices}")
    print(f"depth  {depth_s:6.1f} s  {ridge.choices}")
    print(
        f"private memory kept by the fits {(after - before) / 2**20:.0f} MiB, "
        f"peak resident {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB"
    )
    total = seg_s + depth_s
    print(
        f"together {total:.1f} s = {total / BUDGET_S:.2f} of the budget ({torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
