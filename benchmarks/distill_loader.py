"""Images a second of the distillation's data on one core: reading, decoding, augmenting.

    python benchmarks/distill_loader.py [--images 60] [--size 336] [--height 448] [--width 448]

JPEG files with the texture of photographs, read from a folder.  The last line, one core's rate, times the
number of loader processes is to stay above what the training consumes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dune_bench.distill.augment import Augmentation, augmented
from dune_bench.distill.data import DistillData
from dune_bench.distill.groups import DataGroup
from dune_bench.distill.sources import ImageFolder
from dune_bench.engine.data import Pick

BATCH = 10


def write_images(folder: Path, count: int, height: int, width: int) -> None:
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:04d}.jpg", quality=90)


def rate(work: Callable[[int], object], count: int, repeats: int = 3) -> float:
    """Calls a second: the best of some passes, because a busy machine only ever slows."""
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        for number in range(count):
            work(number)
        best = max(best, count / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--size", type=int, default=336, help="side of the augmented image, pixels")
    parser.add_argument("--height", type=int, default=448)
    parser.add_argument("--width", type=int, default=448)
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = Augmentation()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), args.images, args.height, args.width)
        source = ImageFolder(Path(folder))
        data = DistillData([DataGroup("all", (source,))], args.size, options)
        pixels = [source.read(number) for number in range(args.images)]
        print(f"{args.height} × {args.width} JPEG -> {args.size} px, one core, images/s:")
        print(f"  read and decode   {rate(source.read, args.images):6.1f}")
        one = rate(lambda n: augmented(pixels[n], args.size, options, n), args.images)
        print(f"  augment           {one:6.1f}")
        batches = args.images // BATCH
        picks = [[Pick(BATCH * b + i, BATCH * b + i) for i in range(BATCH)] for b in range(batches)]
        print(f"  batches of {BATCH}     {BATCH * rate(lambda b: data.batch(picks[b]), batches):6.1f}")


if __name__ == "__main__":
    main()
