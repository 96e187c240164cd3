"""Colours, marks and text of the static plots: told apart without colour, and by people who see few."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from matplotlib import get_data_path
from matplotlib.font_manager import get_font

from dune_bench.report.format import one_line

DPI = 150
QUIET = "#57606a"
GRID = "#d8dee4"
MISSING = "□"
"""Stands for a character that the plots' font lacks."""


@dataclass(frozen=True)
class Style:
    """How an encoder is drawn wherever it appears."""

    colour: str
    marker: str
    dashes: str | tuple[int, tuple[int, ...]]


_BRAND = re.compile(r" [\[(]")
_STYLES = (
    Style("#0072b2", "o", "-"),
    Style("#c44e00", "s", (0, (6, 2))),
    Style("#00805a", "^", (0, (2, 2))),
    Style("#a8467f", "D", (0, (6, 2, 1, 2))),
    Style("#5c4b9b", "X", (0, (4, 1))),
    Style("#444b52", "P", (0, (8, 3))),
)
PLAIN = Style("#8b949e", ".", "-")
MOST_STYLED = len(_STYLES)


def styles(encoders: list[str]) -> dict[str, Style]:
    """A style for each of the first encoders (identities); the others share the plain one."""
    return dict(zip(encoders, _STYLES, strict=False))


@cache
def _drawable(character: str) -> bool:
    font = get_font(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"))
    return bool(font.get_char_index(ord(character)))


def clean(text: str, most: int = 60) -> str:
    """Any text as one line that the plots' font can draw, at most `most` characters long.

    A brand (`[random weights]`, `(weights 1234567)`) outlives the name that it stands behind.
    """
    text = "".join(c if _drawable(c) else MISSING for c in one_line(text))
    if len(text) <= most:
        return text
    text = text.replace(" [random weights]", " [random]")
    start = _BRAND.search(text)
    brand = text[start.start() :] if start and len(text) - start.start() <= most - 4 else ""
    return text if len(text) <= most else text[: most - 1 - len(brand)] + "…" + brand
