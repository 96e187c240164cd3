"""Small images for tests of the data: exact colours in PNG, one of its own for each number."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def colour(number: int) -> tuple[int, int, int]:
    return number % 256, (7 * number) % 256, 200


def picture(number: int, height: int = 10, width: int = 12) -> NDArray[np.uint8]:
    """One colour all over."""
    return np.broadcast_to(np.array(colour(number), np.uint8), (height, width, 3)).copy()


def textured(seed: int, height: int = 40, width: int = 56) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def fill(folder: Path, count: int, first: int = 0) -> Path:
    """`count` PNG files, 00.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:02d}.png").write_bytes(png(picture(first + number)))
    return folder


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path
