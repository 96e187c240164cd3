"""The images of `analyze pca`: splits of datasets, folders of the user's own, single photographs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.images import decode_image
from dune_bench.data.samples import ImageRef
from dune_bench.errors import TaskError, UsageError
from dune_bench.run.data import Data, Split
from dune_bench.run.panel_photo import NEEDS, open_photographs

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
SHOWN = 4
"""Images of a domain that are drawn, and images on a sheet."""
GIVEN = "photographs"
T = TypeVar("T")


@dataclass(frozen=True)
class Domain:
    """Images that are analysed together.  shown: those that are drawn.  measured: has curves of its own."""

    name: str
    images: tuple[ImageRef, ...]
    shown: tuple[ImageRef, ...]
    measured: bool = True


def open_domains(
    data: Data,
    datasets: Sequence[str],
    split: str,
    folders: Sequence[tuple[str, Path]],
    photographs: Sequence[Path],
) -> list[Domain]:
    """One domain a dataset, one a folder; photographs, if there are any, are shown instead of theirs.

    Of each at most the request's limit of images is taken, evenly.  Raises UsageError for an unknown dataset
    or split, a name that stands twice, a folder without images, a file that is no image.
    """
    limit = data.request.limit
    found = [(f"{name}/{split}", _images(data, name, split)) for name in datasets]
    found += [(name, _folder(name, path, limit)) for name, path in folders]
    domains = [Domain(name, images, () if photographs else _evenly(images, SHOWN)) for name, images in found]
    if photographs:
        # The field of view concerns tasks on cameras only.
        images = open_photographs(photographs, fov_deg=60.0).images
        domains.append(Domain(GIVEN, images, images, measured=False))
    names = [domain.name for domain in domains]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"two sets of images are called {twice[0]!r}: give another NAME in --images NAME=DIR"
        )
    return domains


def _images(data: Data, name: str, split: str) -> tuple[ImageRef, ...]:
    """Of whatever kind of samples the dataset has."""
    errors = []
    for kind in NEEDS:
        try:
            found: Split = data.split(name, split, kind)
        except UsageError as error:
            errors.append(error)
        else:
            return found.images
    raise errors[0]


def _folder(name: str, path: Path, limit: int | None) -> tuple[ImageRef, ...]:
    try:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise UsageError(f"--images {name}={path}: cannot be read: {error.strerror}") from error
    if not files:
        raise UsageError(f"--images {name}={path}: no image in it ({', '.join(SUFFIXES)})")
    return tuple(_ref(file) for file in _evenly(files, limit or len(files)))


def _ref(path: Path) -> ImageRef:
    """Decoded once for its size, and again when it is needed: folders may be larger than memory."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        pixels = decode_image(content, str(path))
    except TaskError as error:
        raise UsageError(f"--images: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    return ImageRef(path.name, digest, (pixels.shape[0], pixels.shape[1]), functools.partial(_read, path))


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return decode_image(path.read_bytes(), str(path))
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from error


def _evenly(items: Sequence[T], count: int) -> tuple[T, ...]:
    count = min(count, len(items))
    return tuple(items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count))
