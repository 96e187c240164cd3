"""Extraction against the bare forward passes of the same images: the ratio is to stay <= 1.15.

    python benchmarks/extraction.py [--encoder random_vits14] [--images 96] [--resolution 336]

Both in one process, same dtype, threads and batches, in turns chunk by chunk, so that a busy machine
slows both.  Extraction decodes JPEGs, resizes, forwards, checks, hashes and syncs to disk.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dune_bench.data.images import decode_image
from dune_bench.data.samples import ImageRef
from dune_bench.encoders.base import Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.registry.cards import InputPolicy
from dune_bench.registry.lookup import load_registry
from dune_bench.run.cache import FeatureCache
from dune_bench.run.extract import Extractor, ImageSet
from dune_bench.run.features import CHUNK_IMAGES
from dune_bench.run.inputs import read_image, to_batch
from dune_bench.run.ui import SilentUI


def make_image(index: int, side: int = 448) -> ImageRef:
    """A JPEG with the texture of a photograph, about 60 kB."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    data = buffer.getvalue()
    read = functools.partial(decode_image, data, str(index))
    return ImageRef(str(index), hashlib.sha256(data).hexdigest(), (side, side), read)


def normalised(encoder: Encoder, pixels: list[NDArray[np.uint8]]) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (encoder.mean, encoder.std))
    return (to_batch(pixels) - mean) / std


def bare(encoder: Encoder, x: torch.Tensor, view: str, batch: int) -> None:
    """Nothing but the network, on inputs that are ready."""
    with torch.inference_mode():
        for start in range(0, len(x), batch):
            encoder._forward(x[start : start + batch], [view])


class Clock:
    """Sums wall and processor seconds of what it is given to do."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __call__(self, work: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="random_vits14")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--resolution", type=int, default=336)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    encoder = load_encoder(load_registry().encoder(options.encoder))
    policy, view = InputPolicy(resolution=options.resolution), encoder.default_view
    images = [make_image(i) for i in range(options.images)]
    direct, extraction = Clock(), Clock()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        extractor = Extractor(encoder, FeatureCache(Path(folder), print), SilentUI(), options.batch)
        extractor.run(ImageSet("warm-up", (make_image(10**6),), (view,), policy))  # warm-up
        for start in range(0, len(images), CHUNK_IMAGES):
            chunk = tuple(images[start : start + CHUNK_IMAGES])
            x = normalised(encoder, [read_image(image, policy) for image in chunk])
            direct(functools.partial(bare, encoder, x, view, options.batch))
            extraction(functools.partial(extractor.run, ImageSet("chunk", chunk, (view,), policy)))
    n = len(images) / 1000
    print(
        f"{options.encoder} at {options.resolution} px, {len(images)} images, batch {options.batch}, "
        f"{torch.get_num_threads()} threads: bare {direct.wall / n:.1f} ms, extraction "
        f"{extraction.wall / n:.1f} ms an image, ratio {extraction.wall / direct.wall:.3f} (<= 1.15); "
        f"of processor time {extraction.cpu / direct.cpu:.3f}"
    )


if __name__ == "__main__":
    main()
