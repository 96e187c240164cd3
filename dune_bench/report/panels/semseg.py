"""Panel of semantic segmentation: image, truth, prediction, and where they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from dune_bench.data.samples import SegSample
from dune_bench.metrics.confusion import IGNORE, ClassTotals, confusion
from dune_bench.report.panels.canvas import LEGEND_LINE, Canvas, label, tile_size
from dune_bench.report.panels.colours import GREY, RGB, WRONG, blend, fit, grey, palette
from dune_bench.report.panels.shown import Panel, Shown

if TYPE_CHECKING:
    from dune_bench.probes.semseg import SegPrediction

Labels = NDArray[np.uint8]
NAMED_SHARE = 0.03
"""A class that covers this share of the picture has its name written on it."""
_BORDER = 0.55
_LETTER = 0.027
"""Width of a letter as a share of a tile, about."""


def draw(shown: Shown) -> Panel:
    """Four tiles and a legend with each class's IoU in this image; without truth two tiles."""
    sample = cast(SegSample, shown.sample)
    prediction = cast("SegPrediction", shown.prediction)
    image = sample.image.read()
    size = sample.labels.shape[0], sample.labels.shape[1]
    names = shown.classes or tuple(str(k) for k in range(len(prediction.logits)))
    found = prediction.labels(size)
    names_of = _legend(names, sample.labels if shown.truth else None, found)
    tile = tile_size(sample.image.size)
    tiles = 4 if shown.truth else 2
    columns = max(1, int(tiles * tile[0] / 1.45))
    lines = -(-len(names_of) // columns)
    sheet = Canvas(
        shown.heading,
        shown.subheading(),
        [[tile[0]] * tiles],
        [tile[1]],
        [0.10 + LEGEND_LINE * lines],
    )
    sheet.picture(0, 0, "image", image, sample.image.size)
    if shown.truth:
        _labels(sheet, 1, "truth", sample.labels, image, names)
        wrong = (found != sample.labels) & (sample.labels != IGNORE)
        share = wrong.sum() / max(1, int((sample.labels != IGNORE).sum()))
        caption = f"error: {100 * share:.1f} % of pixels are wrong (orange)"
        sheet.picture(0, 3, caption, _errors(image, wrong, sample.labels == IGNORE), sample.image.size)
    caption = "prediction (below: IoU of each class here)" if shown.truth else "prediction"
    _labels(sheet, 2 if shown.truth else 1, caption, found, image, names)
    sheet.legend(0, names_of, columns)
    return Panel(sheet.png())


def _labels(
    sheet: Canvas, column: int, caption: str, labels: Labels, image: RGB, names: tuple[str, ...]
) -> None:
    colours = np.vstack([palette(len(names)), np.full((256 - len(names), 3), GREY, np.uint8)])
    picture = blend(fit(grey(image), labels.shape), colours[labels], 0.8)
    picture[_borders(labels)] = (picture[_borders(labels)] * _BORDER).astype(np.uint8)
    axes = sheet.picture(0, column, caption, picture, (labels.shape[0], labels.shape[1]))
    _write_names(axes, labels, names)


def _write_names(axes: Axes, labels: Labels, names: tuple[str, ...]) -> None:
    """Each large class's name, in the middle of its widest region."""
    for k in np.unique(labels):
        region = labels == k
        if k >= len(names) or region.mean() < NAMED_SHARE:
            continue
        inner = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(int(inner.argmax()), inner.shape)
        half = min(0.5, _LETTER * len(names[k]) / 2) * labels.shape[1]
        middle = float(np.clip(x + 0.5, half, labels.shape[1] - half))
        label(axes, middle, float(y) + 0.5, names[k], size=8.5)


def _borders(labels: Labels) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour has another label."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def _errors(image: RGB, wrong: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> RGB:
    picture = fit(grey(image, 110), wrong.shape)
    picture[wrong] = blend(picture[wrong], np.array(WRONG, np.uint8), 0.85)
    rows, columns = np.nonzero(ignored)
    striped = (rows + columns) // 4 % 2 == 0
    picture[rows[striped], columns[striped]] = GREY
    return picture


def _legend(names: tuple[str, ...], truth: Labels | None, found: Labels) -> dict[str, RGB]:
    """Classes of this picture with their colours; with truth, also their IoU in it."""
    colours = palette(len(names))
    present = np.union1d(np.unique(found), [] if truth is None else np.unique(truth)).astype(int)
    present = present[present < len(names)]
    entries: dict[str, RGB]
    if truth is None:
        entries = {names[k]: colours[k] for k in present}
    else:
        counts = confusion(truth, found, len(names))
        iou = 100 * ClassTotals.of(counts[None]).iou(np.ones((1, 1)))[0]
        # A class found only on ignored pixels has no IoU.
        entries = {
            names[k] + (f"  {iou[k]:.0f} %" if np.isfinite(iou[k]) else ""): colours[k] for k in present
        }
    if truth is not None and (truth == IGNORE).any():
        entries["ignored"] = np.array(GREY, np.uint8)
    return entries
