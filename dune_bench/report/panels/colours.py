"""Colours of pictures: told apart also with red-green blindness, even in lightness where they scale."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]

TRUTH, PREDICTION = "#0072b2", "#d55e00"
"""Blue for what is, orange for what is predicted, in every panel (Okabe and Ito's set)."""
WRONG = (213, 94, 0)
GREY = (190, 190, 190)
WHITE = np.full(3, 255, np.uint8)
BAD = (GREY[0] / 255, GREY[1] / 255, GREY[2] / 255)
"""Grey of pixels without a value, as matplotlib has colours."""
DEPTH_MAP, SIGNED_MAP, ERROR_MAP = "viridis_r", "PuOr_r", "magma"

# Greedy farthest points in OKLab, seen with normal vision, protanopia and deuteranopia at once; any
# two differ by 0.10 at least in all three.  Near-greys are left to photographs and ignored pixels.
_PALETTE = (
    *("#0070af", "#df9f00", "#009f70", "#cf6000", "#cf809f", "#50afef", "#efdf40", "#701020"),
    *("#60ffff", "#10209f", "#5000ff", "#af0060", "#9fcf9f", "#8f70ff", "#af3000", "#601060"),
    *("#afffaf", "#9fcfff", "#006070", "#4040bf"),
)
_GOLDEN = 0.618034


def palette(count: int) -> RGB:
    """uint8 (count, 3): colours of classes 0 … count−1.

    The first 20 are far apart for every kind of sight; beyond, hues by the golden ratio.
    """
    fixed = [tuple(bytes.fromhex(text[1:])) for text in _PALETTE[:count]]
    more = [
        tuple(round(255 * x) for x in colorsys.hls_to_rgb((i * _GOLDEN) % 1, (0.35, 0.5, 0.65)[i % 3], 0.6))
        for i in range(len(fixed), count)
    ]
    return np.array([*fixed, *more], dtype=np.uint8).reshape(count, 3)


def rgb(text: str) -> RGB:
    """uint8 (3,) of `#rrggbb`."""
    return np.frombuffer(bytes.fromhex(text[1:]), np.uint8)


def grey(image: RGB, darkest: int = 60) -> RGB:
    """A pale grey copy (H, W, 3), on which colours stand out: black becomes `darkest`."""
    luma = image @ np.array([0.299, 0.587, 0.114])
    pale = darkest + luma * ((255 - darkest) / 255)
    return np.repeat(pale.round().astype(np.uint8)[..., None], 3, axis=-1)


def blend(below: RGB, above: RGB, opacity: float) -> RGB:
    """`above` (…, 3) over `below`, 0 to 1 opaque."""
    mixed = below * (1 - opacity) + above * opacity
    return np.asarray(mixed.round(), dtype=np.uint8)


def fit(image: RGB, size: tuple[int, ...]) -> RGB:
    """The image at another size (height, width): the pixel under each new pixel's centre."""
    rows = ((np.arange(size[0]) + 0.5) * image.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * image.shape[1] / size[1]).astype(int)
    fitted: RGB = image[rows[:, None], columns]
    return fitted
