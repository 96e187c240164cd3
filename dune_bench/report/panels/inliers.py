"""The matches that a pose rests on, as lines between two views: right ones and wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import View
from dune_bench.geometry.cameras import project
from dune_bench.geometry.poses import invert, transform
from dune_bench.report.panels.canvas import Canvas
from dune_bench.report.panels.colours import PREDICTION, RGB, TRUTH, WHITE, blend
from dune_bench.report.panels.pairs import Side, place_colours, spread_out

if TYPE_CHECKING:
    from dune_bench.probes.pair_matches import PairMatches

Floats = NDArray[np.float64]
LINES = 40
"""More lines than this hide each other."""
SMALL = (3.5, 24, 0.6)
"""Inches below which a tile of two views gets fewer and thinner lines: so many, so wide (points)."""
FADED = 0.25
"""Share of white in the images under lines."""


@dataclass(frozen=True)
class Inliers:
    """matches: those of a pose.  right: bool (m,), whether the surface under the point of view 1 truly lies
    within `near` pixels of the point of view 2; None without truth."""

    matches: PairMatches
    right: NDArray[np.bool_] | None
    near: float | None

    def caption(self, most: int) -> str:
        """How many are drawn, and how many are right."""
        count = len(self.matches)
        some = f"{min(count, most)} of {count} inliers"
        if self.right is None or not count:
            return some
        return f"{some}, {100 * self.right.mean():.0f} % right"


def inliers_of(matches: PairMatches | None, views: tuple[View, View], near: float | None) -> Inliers | None:
    """near: pixels of view 2 within which a match is right, None without truth: the pose's own threshold."""
    if matches is None:
        return None
    if near is None:
        return Inliers(matches, None, None)
    errors = true_errors(views, matches.points1, matches.points2)
    return Inliers(matches, np.asarray(errors <= near), near)


def true_errors(views: tuple[View, View], points1: Floats, points2: Floats) -> Floats:
    """Pixels (n,) of view 2 between points2 (n, 2) and where the surface under points1 (n, 2) of view 1
    truly lies, seen or hidden; inf where view 1 has no depth, or the surface is behind camera 2."""
    # At run time the probes' modules are loaded anyway; importing this one must not load torch.
    from dune_bench.probes.correspondence_truth import surface_at

    T_2_1 = views[1].T_cam_world @ invert(views[0].T_cam_world)
    there = transform(T_2_1, surface_at(views[0], points1))
    places, _ = project(views[1].K, there)
    errors = np.linalg.norm(places - points2, axis=1)
    return np.where(np.isfinite(errors), errors, np.inf)


def draw_inliers(
    sheet: Canvas,
    place: tuple[int, int, float],
    caption: str,
    images: tuple[RGB, RGB],
    side: Side,
    inliers: Inliers | None,
) -> None:
    """Two images in a tile at `place` (row, column, width in inches), with at most LINES lines spread over
    view 1: blue for right matches and orange for wrong ones, by place without truth."""
    row, column, inches = place
    if inliers is None or not len(inliers.matches):
        side.draw(sheet, row, column, f"{caption}: no inliers", *images)
        return
    most, width = SMALL[1:] if inches < SMALL[0] else (LINES, 0.9)
    faded = [blend(image, WHITE, FADED) for image in images]
    axes = side.draw(sheet, row, column, f"{caption}: {inliers.caption(most)}", *faded)
    matches = inliers.matches
    chosen = spread_out(matches.points1, most)
    if inliers.right is None:
        colours: Any = place_colours(matches.points1[chosen]) / 255
    else:
        chosen = chosen[np.argsort(inliers.right[chosen], kind="stable")]  # right ones on top
        colours = [TRUTH if right else PREDICTION for right in inliers.right[chosen]]
    side.lines(axes, matches.points1[chosen], matches.points2[chosen], colours, width)


def legend(sheet: Canvas, row: int, inliers: Inliers | None) -> None:
    """What the lines' colours mean, under their row; nothing where they mean no more than a place."""
    if inliers is not None and inliers.near is not None:
        entries = {f"match within {inliers.near:g} px of the truth": TRUTH, "farther off": PREDICTION}
        sheet.legend(row, entries, 2)
