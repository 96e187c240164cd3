"""Encoded image bytes -> uint8 RGB pixels, by one rule for every dataset.

The rule: EXIF orientation is applied; grey is replicated to three channels; 16-bit grey is divided
by 257 and rounded (65535 -> 255), never clipped; floating-point grey is refused; alpha is
composited on white, as a browser shows it on a page; palettes and CMYK are converted.  Dataset
loaders call `decode_image`, so that a bad file is the same clear line everywhere.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dune_bench.errors import TaskError

MAX_PIXELS = 89_478_485
"""Pillow's own limit, beyond which it warns of a decompression bomb; no camera here gives as many."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
_PNG_TEXTS = (b"eXIf", b"tEXt", b"iTXt", b"zTXt")
"""Chunks of a PNG that can hold an orientation."""
_BROKEN = (OSError, ValueError, SyntaxError, struct.error, IndexError, EOFError, MemoryError, OverflowError)
"""What Pillow's decoders raise on damaged files."""


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), RGB, C-contiguous.

    name: what the error says, such as `shard.zip: room/3.jpg`.  Raises TaskError for bytes that are
    no image, are damaged or cut off, have no pixels, or claim more than `MAX_PIXELS`.
    """
    with _opened(data, name) as image:
        image.load()
        pixels = _to_rgb(ImageOps.exif_transpose(image), name)
    if pixels.size == 0:
        raise TaskError(f"{name}: the image has no pixels (size {pixels.shape[1]}x{pixels.shape[0]})")
    return np.ascontiguousarray(pixels)


def read_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) that `decode_image` will give, without decoding its pixels.  Raises as it does."""
    with _opened(data, name) as image:
        width, height = image.size
        # Pillow decodes a PNG in search of an orientation that may stand behind the pixels, and says the
        # size of a TIFF as it will be turned.
        plain = image.format == "PNG" and not any(chunk in data for chunk in _PNG_TEXTS)
        known = plain or image.format == "TIFF"
        turned = not known and image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    return (width, height) if turned else (height, width)


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The image, its pixels not yet decoded; whatever Pillow raises in the block is a TaskError."""
    if not data:
        raise TaskError(f"{name}: the image file is empty: restore it")
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise TaskError(f"{name}: {width}x{height} pixels are more than {MAX_PIXELS}: not decoded")
            yield image
    except UnidentifiedImageError as error:
        raise TaskError(f"{name}: not an image that Pillow can read: restore the file") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TaskError(f"{name}: {error}: not decoded") from error
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TaskError(f"{name}: damaged image ({reason}): restore the file") from error


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        return _deep_grey(np.asarray(image).astype(np.int64), name)
    if image.mode == "F":
        raise TaskError(f"{name}: floating-point pixels have no defined brightness: convert to 8 or 16 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, layer)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _deep_grey(values: NDArray[np.int64], name: str) -> NDArray[np.uint8]:
    """16-bit grey to 8 bits, rounded; Pillow's own conversion would clip at 255."""
    if values.size and (int(values.min()) < 0 or int(values.max()) > 65535):
        raise TaskError(f"{name}: grey values beyond 16 bits: convert the image to 8 or 16 bits")
    grey = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)
