"""Images at network size, decoded and resized ahead of the forward passes by background threads.

Threads are enough: Pillow releases the interpreter lock while it decodes and resamples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dune_bench.data.samples import ImageRef
from dune_bench.errors import TaskError
from dune_bench.registry.cards import InputPolicy

U8 = NDArray[np.uint8]

WORKERS = 2
AHEAD = 24
"""Images decoded but not yet forwarded: bounds memory."""


def network_size(image: ImageRef, policy: InputPolicy) -> tuple[int, int]:
    """(height, width) that an image has at the network's input."""
    return image.size if policy.resolution is None else (policy.resolution, policy.resolution)


def resize_image(pixels: U8, size: tuple[int, int]) -> U8:
    """The rule `keys.RESIZE_RULE`.  pixels: (H, W, 3); size: (height, width)."""
    if pixels.shape[:2] == size:
        return pixels
    resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)


def read_image(image: ImageRef, policy: InputPolicy) -> U8:
    """Pixels at network size.  Raises TaskError naming the image if the file is bad."""
    pixels = image.read()
    if pixels.dtype != np.uint8 or pixels.shape != (*image.size, 3):
        raise TaskError(
            f"image {image.id}: decoded to {pixels.dtype} {pixels.shape}, "
            f"its index says uint8 {(*image.size, 3)}"
        )
    return resize_image(pixels, network_size(image, policy))


def prefetched(images: Sequence[ImageRef], policy: InputPolicy) -> Generator[U8, None, None]:
    """`read_image` of each image, in order, at most `AHEAD` in advance."""
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="decode")
    waiting: deque[Future[U8]] = deque()
    queue = iter(images)
    try:
        for image in queue:
            waiting.append(pool.submit(read_image, image, policy))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def to_batch(pixels: Sequence[U8]) -> Tensor:
    """float32 (B, 3, H, W) in [0, 1]."""
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    return stacked.to(torch.float32).div_(255.0)
