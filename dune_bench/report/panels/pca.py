"""Features as colours: the first three principal components of images' tokens as red, green, blue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.metrics.representation import Components
from dune_bench.report.panels.canvas import Canvas, tile_size
from dune_bench.report.panels.colours import RGB
from dune_bench.report.plot_style import clean

DEVIATIONS = 2.0
"""A component's darkest and brightest lie so many standard deviations from its mean."""
_TILE, _NARROWEST = 2.3, 4.6
"""Inches: the longer side of a picture, and a sheet that holds a caption."""


@dataclass(frozen=True)
class ColourRow:
    """One view of one encoder.  pictures: one for each image of the sheet, of any size."""

    caption: str
    pictures: Sequence[RGB]


def as_colours(tokens: NDArray[np.floating], components: Components) -> RGB:
    """tokens: (h, w, C).  Returns (h, w, 3); a component that does not vary, or is not there, is grey."""
    scores = np.zeros((*tokens.shape[:2], 3))
    count = min(3, tokens.shape[2])
    scores[..., :count] = components.scores(tokens, count)
    shares = np.clip(0.5 + scores / (2 * DEVIATIONS), 0.0, 1.0)
    return np.asarray(np.round(255 * shares), dtype=np.uint8)


def draw(heading: str, fitted_to: str, images: Sequence[tuple[str, RGB]], rows: Sequence[ColourRow]) -> bytes:
    """A PNG: images with their names, below them their features row by row.

    fitted_to: what the components were fitted to.
    """
    tiles = [tile_size((image.shape[0], image.shape[1]), _TILE, _TILE) for _, image in images]
    widths = [max(width, _NARROWEST / len(images)) for width, _ in tiles]
    height, count = max(height for _, height in tiles), 1 + len(rows)
    about = f"{fitted_to}  ·  first three as red, green, blue  ·  ±{DEVIATIONS:g} standard deviations"
    sheet = Canvas(clean(heading), about, [widths] * count, [height] * count, [0.0] * count)

    def place(row: int, column: int, caption: str, picture: RGB) -> None:
        size = images[column][1].shape
        axes = sheet.picture(row, column, caption, picture, (size[0], size[1]))
        axes.set_aspect("equal", anchor="NW")

    for column, (name, image) in enumerate(images):
        place(0, column, _short(name, widths[column]), image)
        for number, row in enumerate(rows, start=1):
            place(number, column, "" if column else clean(row.caption), row.pictures[column])
    return sheet.png()


def _short(name: str, width: float) -> str:
    """The end of a name that is too long for its tile: paths differ there."""
    most = int(15 * width)
    return name if len(name) <= most else f"…{name[1 - most :]}"
