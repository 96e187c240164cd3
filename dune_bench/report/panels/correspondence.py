"""Panel of correspondence: lines between two views coloured by error, and where every point went."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.ticker import FixedLocator, StrMethodFormatter
from numpy.typing import NDArray

from dune_bench.data.samples import PairSample
from dune_bench.report.panels.canvas import LEGEND_LINE, Canvas, label, tile_size
from dune_bench.report.panels.colours import PREDICTION, RGB, TRUTH, WHITE, blend, grey
from dune_bench.report.panels.pairs import Side, place_colours, spread_out
from dune_bench.report.panels.shown import Panel, Shown

if TYPE_CHECKING:
    from dune_bench.probes.correspondence import CorrespondenceNN, Correspondences

Floats = NDArray[np.float64]
LINES = 48
"""More lines than this hide each other."""
BETWEEN = "#56b4e9"
LONGEST = 100.0
"""Pixels at which the curve of errors ends."""


@dataclass(frozen=True)
class Answers:
    """Points (n, 2) of view 1, where view 2 truly shows them (NaN: unknown) and where they were sought."""

    points1: Floats
    truth: Floats
    found: Floats

    @property
    def errors(self) -> Floats:
        """Pixels (n,); inf where there is no answer."""
        error = np.linalg.norm(self.found - self.truth, axis=1)
        return np.where(np.isfinite(self.found).all(1), error, np.inf)

    def at(self, index: NDArray[np.int64]) -> Answers:
        return Answers(self.points1[index], self.truth[index], self.found[index])


def draw(shown: Shown) -> Panel:
    """Lines and the curve of errors above; below the points in view 1, in truth and as predicted, a
    point of one colour in each.  Without truth, lines and points only."""
    pair = cast(PairSample, shown.sample)
    answers = _answers(shown, pair)
    images = pair.view1.image.read(), pair.view2.image.read()
    sizes = pair.view1.image.size, pair.view2.image.size
    side = Side(*sizes)
    tiles = [tile_size(size) for size in (sizes[0], sizes[1], sizes[1])]
    if not shown.truth:
        tiles = tiles[:2]
    wide = side.width / side.height * tiles[0][1]
    rest = max(2.6, sum(tile[0] for tile in tiles) - wide) if shown.truth else None
    low, high = _thresholds(shown)
    shown = (
        shown
        if not shown.truth
        else replace(shown, notes=(*shown.notes, f"covisible {100 * pair.covisible:.0f} %"))
    )
    sheet = Canvas(
        shown.heading,
        shown.subheading(),
        [[wide, rest] if rest is not None else [wide], [tile[0] for tile in tiles]],
        [tiles[0][1], max(tile[1] for tile in tiles)],
        [LEGEND_LINE + 0.12 if shown.truth else 0.05, 0.0],
    )
    _lines(sheet, side, images, answers, shown.truth, (low, high))
    if rest is not None:
        _curve(sheet, answers, (low, high))
    colours = place_colours(answers.points1)
    count = f"{len(answers.points1)} points asked"
    _dots(sheet, 0, f"view 1: {count}, coloured by place", images[0], answers.points1, colours)
    if shown.truth:
        _dots(sheet, 1, "truth: the same points in view 2", images[1], answers.truth, colours)
    _dots(sheet, len(tiles) - 1, "prediction: where they were found", images[1], answers.found, colours)
    return Panel(sheet.png())


def _answers(shown: Shown, pair: PairSample) -> Answers:
    # At run time the probes' modules are loaded anyway; importing this one must not load torch.
    from dune_bench.probes.correspondence_truth import lattice, pair_truth

    protocol = cast("CorrespondenceNN", shown.probe.protocol)
    found = cast("Correspondences", shown.prediction).places2
    points1 = lattice(pair.view1.image.size, protocol.lattice)
    if not shown.truth:
        return Answers(points1, np.full_like(points1, np.nan), found)
    truth = pair_truth(pair, points1, protocol.occlusion_cm / 100.0)
    return Answers(points1, truth.places2, found).at(np.flatnonzero(truth.asked))


def _thresholds(shown: Shown) -> tuple[float, float]:
    """The protocol's smallest and largest distance of a hit, pixels."""
    thresholds = cast("CorrespondenceNN", shown.probe.protocol).thresholds_px
    return thresholds[0], thresholds[-1]


def _lines(
    sheet: Canvas,
    side: Side,
    images: tuple[RGB, RGB],
    answers: Answers,
    truth: bool,
    near: tuple[float, float],
) -> None:
    known = answers.at(np.flatnonzero(np.isfinite(answers.found).all(1)))
    some = known.at(spread_out(known.points1, LINES))
    what = "answers" if truth else "nearest neighbours, unchecked"
    caption = f"{len(some.points1)} of {len(answers.points1)} {what}"
    axes = side.draw(sheet, 0, 0, caption, *(blend(image, WHITE, 0.4) for image in images))
    if not len(some.points1):
        label(axes, side.width / 2, side.height / 2, "no answer")
        return
    if not truth:
        side.lines(axes, some.points1, some.found, place_colours(some.points1) / 255)
        return
    order = np.argsort(-some.errors, kind="stable")  # good ones on top
    some = some.at(order)
    side.lines(axes, some.points1, some.found, [_colour(error, near) for error in some.errors])
    counts = _shares(answers.errors, near)
    names = (f"≤ {near[0]:g} px", f"{near[0]:g}–{near[1]:g} px", f"> {near[1]:g} px")
    entries = {
        f"{name}  {share:.0f} %": colour
        for name, share, colour in zip(names, counts, (TRUTH, BETWEEN, PREDICTION), strict=True)
    }
    sheet.legend(0, entries, 3)


def _colour(error: float, near: tuple[float, float]) -> str:
    return TRUTH if error <= near[0] else BETWEEN if error <= near[1] else PREDICTION


def _shares(errors: Floats, near: tuple[float, float]) -> tuple[float, float, float]:
    """Percent of points within the first threshold, between the two, beyond."""
    total = max(len(errors), 1)
    first, second = ((errors <= limit).sum() for limit in near)
    return 100 * first / total, 100 * (second - first) / total, 100 * (len(errors) - second) / total


def _curve(sheet: Canvas, answers: Answers, near: tuple[float, float]) -> None:
    """Share of the points within each distance."""
    axes = sheet.tile(0, 1, "")
    # Its own labels need room that tiles of pictures do not.
    box = axes.get_position()
    axes.set_position(
        (box.x0 + 0.16 * box.width, box.y0 + 0.13 * box.height, 0.80 * box.width, 0.80 * box.height)
    )
    errors = np.sort(answers.errors)
    share = 100 * np.arange(1, len(errors) + 1) / max(len(errors), 1)
    axes.set_title("error: points within a distance", fontsize=9, loc="left")
    axes.step(np.concatenate([[0.1], errors]), np.concatenate([[0], share]), where="post", color="#333333")
    for limit, colour in zip(near, (TRUTH, BETWEEN), strict=True):
        axes.axvline(limit, color=colour, linewidth=1.5, linestyle="--")
    axes.set_xscale("log")
    axes.set(xlim=(1, LONGEST), ylim=(0, 100))
    axes.xaxis.set_major_locator(FixedLocator([1, 2, 5, 10, 20, 50, 100]))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.tick_params(labelsize=8)
    axes.set_xlabel("pixels of view 2", fontsize=9, labelpad=1)
    axes.set_ylabel("% of the points", fontsize=9, labelpad=1)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#999999")


def _dots(sheet: Canvas, column: int, caption: str, image: RGB, points: Floats, colours: RGB) -> None:
    axes = sheet.picture(1, column, caption, grey(image, 120), (image.shape[0], image.shape[1]))
    axes.scatter(points[:, 0], points[:, 1], s=15, c=colours / 255, linewidths=0.4, edgecolors="#222222")
