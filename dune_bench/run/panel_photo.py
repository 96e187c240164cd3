"""A user's photographs as samples without truth."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.images import decode_image
from dune_bench.data.samples import (
    DepthSample,
    HumanSample,
    ImageRef,
    PairSample,
    RelocScene,
    Sample,
    SegSample,
    View,
)
from dune_bench.errors import TaskError, UsageError
from dune_bench.metrics.confusion import IGNORE
from dune_bench.models.body_models import COCO_KEYPOINTS

LONGEST_SIDE = 1536
"""Larger photographs are shrunk to this side first: networks see far less, and a picture shows less."""
GROUP = "photograph"
DATASET, SPLIT = "own", "photographs"
"""Stand for a dataset and its split in messages."""
NEEDS = {SegSample: 1, DepthSample: 1, HumanSample: 1, PairSample: 2, RelocScene: 2}
"""Kind of sample -> the fewest images it takes."""


@dataclass(frozen=True)
class Photographs:
    """Decoded photographs and the camera assumed for them.

    images: handles, in the order given.  fov_deg: horizontal field of view, degrees; pixels are square
    and the principal point is the middle.
    """

    images: tuple[ImageRef, ...]
    fov_deg: float

    def samples(self, kind: type[Any]) -> Lazy[Any]:
        """Samples of one kind: one per photograph; pairs of the first with each other one; one scene,
        whose reference is the first.  Raises UsageError if that takes more photographs."""
        if kind not in NEEDS:
            raise UsageError(f"--image: photographs cannot be made into {kind.__name__}")
        if len(self.images) < NEEDS[kind]:
            raise UsageError(f"--image: this task needs {NEEDS[kind]} images: give --image twice")
        if kind is RelocScene:
            items = [self._item(self.images, kind)]
        elif kind is PairSample:
            items = [self._item((self.images[0], other), kind) for other in self.images[1:]]
        else:
            items = [self._item((image,), kind) for image in self.images]
        return Lazy(items)

    def _item(self, images: tuple[ImageRef, ...], kind: type[Any]) -> LazyItem[Any]:
        name = "-".join(image.id for image in images)
        return LazyItem(name, GROUP, images, functools.partial(self._make, kind, name, images))

    def _make(self, kind: type[Any], name: str, images: Sequence[ImageRef]) -> Sample:
        first, size = images[0], images[0].size
        if kind is SegSample:
            return SegSample(name, GROUP, first, np.full(size, IGNORE, np.uint8))
        if kind is DepthSample:
            return DepthSample(name, GROUP, first, _no_depth(size), self.K(size))
        if kind is HumanSample:
            return HumanSample(name, GROUP, first, self.K(size), (), COCO_KEYPOINTS)
        views = [self._view(image) for image in images]
        if kind is PairSample:
            return PairSample(name, GROUP, views[0], views[1], float("nan"))
        return RelocScene(name, GROUP, views[0], tuple(views[1:]))

    def _view(self, image: ImageRef) -> View:
        # The pose is not known either; nothing without truth may read it.
        unknown = np.full((4, 4), np.nan)
        return View(image.id, GROUP, image, _no_depth(image.size), self.K(image.size), unknown)

    def K(self, size: tuple[int, int]) -> NDArray[np.float64]:  # noqa: N802 - the camera's own name
        """float64 (3, 3) in pixels of an image of `size` (height, width)."""
        focal = 0.5 * size[1] / np.tan(np.radians(self.fov_deg) / 2)
        return np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1.0]])


def _no_depth(size: tuple[int, int]) -> NDArray[np.float32]:
    return np.full(size, np.nan, np.float32)


def open_photographs(paths: Sequence[Path], fov_deg: float) -> Photographs:
    """Reads image files of any kind that Pillow can.

    Raises UsageError for a file that is not there or no image, or a field of view outside (1, 170).
    """
    if not 1 < fov_deg < 170:
        raise UsageError(f"--fov {fov_deg:g}: degrees between 1 and 170")
    names: dict[str, int] = {}
    images = []
    for path in paths:
        names[path.name] = names.get(path.name, 0) + 1
        count = names[path.name]
        images.append(_open(path, path.name if count == 1 else f"{path.name} ({count})"))
    return Photographs(tuple(images), fov_deg)


def _open(path: Path, name: str) -> ImageRef:
    try:
        pixels = _shrunk(decode_image(path.read_bytes(), str(path)))
    except OSError as error:
        raise UsageError(f"--image {path}: cannot be read: {error.strerror}") from error
    except TaskError as error:
        raise UsageError(f"--image {error}") from error
    size = (pixels.shape[0], pixels.shape[1])
    # Of the pixels, not the file: what is shown is turned and shrunk.
    digest = hashlib.sha256(repr(size).encode() + pixels.tobytes()).hexdigest()
    return ImageRef(name, digest, size, functools.partial(np.copy, pixels))


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    longest = max(pixels.shape[:2])
    if longest <= LONGEST_SIDE:
        return pixels
    height, width = (max(1, round(side * LONGEST_SIDE / longest)) for side in pixels.shape[:2])
    shrunk = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(shrunk, dtype=np.uint8)
