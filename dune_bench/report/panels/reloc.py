"""Panel of relocalization: the reference, the queries with a virtual box in them, the matches that each pose
rests on, and all from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dune_bench.data.samples import RelocScene, View
from dune_bench.geometry.cameras import project
from dune_bench.geometry.poses import geodesic_deg, invert, transform
from dune_bench.report.panels.cameras import (
    HEADROOM,
    Plan,
    draw_camera,
    draw_floor_plan,
    frame_plan,
    frustum,
    level_plan,
)
from dune_bench.report.panels.canvas import GAP, LEGEND_LINE, Canvas, label, tile_size
from dune_bench.report.panels.clouds import cloud_of
from dune_bench.report.panels.colours import PREDICTION, RGB, TRUTH
from dune_bench.report.panels.inliers import Inliers, draw_inliers, inliers_of, legend
from dune_bench.report.panels.pairs import Side
from dune_bench.report.panels.shown import Panel, Shown

if TYPE_CHECKING:
    from dune_bench.probes.reloc import ScenePrediction
    from dune_bench.probes.reloc_answers import QueryPose
    from dune_bench.probes.reloc_match_depth import RelocMatchDepth
    from dune_bench.probes.reloc_two_view import RelocTwoView

Floats = NDArray[np.float64]
Tile = tuple[float, float]
MOST = 5
"""Queries shown of a scene, spread evenly."""
FRUSTUM = 0.45
_BOX_EDGES = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
_FAR = 4.0
"""Metres: an estimate farther than this from everything true does not widen the plan."""


@dataclass(frozen=True)
class _Query:
    """number: 1 is the first.  true, found: T_query_ref (4, 4), None where it is not known.  inliers: from
    the reference to the query, likewise."""

    number: int
    view: View
    true: Floats | None
    found: Floats | None
    answer: QueryPose
    inliers: Inliers | None


def draw(shown: Shown) -> Panel:
    """A row of images, one of matches where poses rest on any, and a plan.  In each query a box that stands
    at the reference's view is drawn where the true pose (blue) and the estimated one (orange) put it."""
    scene = cast(RelocScene, shown.sample)
    queries = _queries(shown, scene)
    sizes = [scene.reference.image.size, *(query.view.image.size for query in queries)]
    tiles = [tile_size(size, 2.45, 2.8) for size in sizes]
    row = [tile[0] for tile in tiles]
    wide = max((sum(row) + 0.1 * (len(row) - 2)) / 2, 4.0)
    plan = (wide, min(0.8 * wide, 5.2))
    sides = [Side(sizes[0], size) for size in sizes[1:]]
    lines = (sum(row) + GAP * len(row)) / len(sides) - GAP
    lined = next((query.inliers for query in queries if query.inliers is not None), None)
    widths, heights, below = [row], [max(tile[1] for tile in tiles)], [0.24]
    if lined is not None:
        widths.append([lines] * len(sides))
        heights.append(max(lines * side.aspect for side in sides))
        below.append(LEGEND_LINE + 0.05)
    widths.append([wide, wide] if shown.truth else [wide])
    heights.append(plan[1])
    below.append(LEGEND_LINE + 0.12)
    sheet = Canvas(shown.heading, shown.subheading(), widths, heights, below)
    image = scene.reference.image.read()
    sheet.picture(0, 0, "reference", image, sizes[0])
    box = _virtual_box(scene.reference) if shown.truth else None
    for column, query in enumerate(queries, 1):
        _query(sheet, column, query, box)
        if lined is not None:
            images = image, query.view.image.read()
            place = (1, column - 1, lines)
            draw_inliers(sheet, place, f"to query {query.number}", images, sides[column - 1], query.inliers)
    legend(sheet, 1, lined)
    _plans(sheet, (len(widths) - 1, plan), scene, queries, image, shown.truth)
    return Panel(sheet.png())


def _queries(shown: Shown, scene: RelocScene) -> list[_Query]:
    answers = cast("ScenePrediction", shown.prediction).queries
    count = len(scene.queries)
    chosen = sorted({round(i * (count - 1) / max(1, min(MOST, count) - 1)) for i in range(min(MOST, count))})
    to_reference = invert(scene.reference.T_cam_world) if shown.truth else None
    protocol = cast("RelocMatchDepth | RelocTwoView", shown.probe.protocol)
    near = protocol.pose.reprojection_px if shown.truth else None
    return [
        _Query(
            i + 1,
            scene.queries[i],
            None if to_reference is None else scene.queries[i].T_cam_world @ to_reference,
            answers[i].T_query_ref,
            answers[i],
            inliers_of(answers[i].inliers, (scene.reference, scene.queries[i]), near),
        )
        for i in chosen
    ]


def _query(sheet: Canvas, column: int, query: _Query, box: Floats | None) -> None:
    axes = sheet.picture(0, column, f"query {query.number}", query.view.image.read(), query.view.image.size)
    if box is not None and query.true is not None:
        _wires(axes, query.view, transform(query.true, box), TRUTH, 2.0)
    if query.found is None:
        reason = query.answer.outcome.name.replace("_", " ")
        height, width = query.view.image.size
        label(axes, width / 2, height * 0.94, f"no pose: {reason}")
        return
    if box is not None:
        _wires(axes, query.view, transform(query.found, box), PREDICTION, 1.4)
    text = f"{query.answer.confidence:.0f} of {query.answer.matches} inliers"
    if query.true is not None:
        turned = float(geodesic_deg(query.found[:3, :3], query.true[:3, :3]))
        moved = float(np.linalg.norm(invert(query.found)[:3, 3] - invert(query.true)[:3, 3]))
        text = f"off {moved:.2f} m, {turned:.1f}°; {text}"
    sheet.note(0, text, column)


def _virtual_box(reference: View) -> Floats:
    """Corners (8, 3) of a box in the reference's camera frame: in the middle of its view, at its median
    depth, a fifth of that wide."""
    valid = reference.depth[np.isfinite(reference.depth) & (reference.depth > 0)]
    distance = float(np.median(valid)) if valid.size else 2.0
    half = 0.1 * distance
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    return corners * half + (0, 0, distance)


def _wires(axes: Axes, view: View, corners: Floats, colour: str, width: float) -> None:
    """The box's edges in a view; edges that reach behind the camera are left out."""
    pixels, _ = project(view.K, corners)
    for a, b in _BOX_EDGES:
        if np.isfinite(pixels[[a, b]]).all():
            axes.plot(pixels[[a, b], 0], pixels[[a, b], 1], color=colour, linewidth=width, clip_on=True)


def _plans(
    sheet: Canvas,
    place: tuple[int, Tile],
    scene: RelocScene,
    queries: Sequence[_Query],
    image: RGB,
    truth: bool,
) -> None:
    """Frusta in the reference's frame: with its points seen from above, and the cameras enlarged.
    place: row of the tiles, and their size."""
    row, tile = place
    poses = [invert(query.true) for query in queries if query.true is not None]
    plan = level_plan([np.eye(3), *(T[:3, :3] for T in poses)])
    reference = scene.reference
    depth = reference.depth if truth else np.full((1, 1), np.nan)
    points, colours = cloud_of(reference.K, image, depth).flat
    frames = {query.number: _frusta(query) for query in queries}
    own = frustum(scene.reference.K, scene.reference.image.size, np.eye(4), FRUSTUM)
    some = "" if len(queries) == len(scene.queries) else f" ({len(queries)} of {len(scene.queries)} queries)"
    captions = [f"from above: the room below {HEADROOM:g} m over the reference", "the cameras"]
    for column, caption in enumerate(captions if truth else ["the cameras, from above"]):
        axes = sheet.tile(row, column, caption + some)
        frame_plan(
            axes,
            _extent(plan, own, points if truth and column == 0 else points[:0], list(frames.values())),
            tile,
        )
        draw_floor_plan(axes, plan, points, colours, HEADROOM)
        draw_camera(axes, plan, own, "#333333", "ref")
        for number, (true, found) in frames.items():
            _both(axes, plan, str(number), true, found)
    entries = {
        "reference": Line2D([], [], color="#333333", marker="o", markersize=4),
        "true pose": Line2D([], [], color=TRUTH, marker="o", markersize=4),
        "estimated pose": Line2D(
            [], [], color=PREDICTION, marker="o", markersize=4, fillstyle="none", linestyle="--"
        ),
    }
    sheet.legend(row, entries if truth else {k: v for k, v in entries.items() if k != "true pose"}, 3)


def _both(axes: Axes, plan: Plan, name: str, true: Floats | None, found: Floats | None) -> None:
    """A query's true and estimated camera, joined by a line."""
    if true is not None:
        draw_camera(axes, plan, true, TRUTH, name)
    if found is not None:
        draw_camera(axes, plan, found, PREDICTION, "" if true is not None else name, dashed=True)
    if true is not None and found is not None:
        ends = plan.flat(np.stack([true[0], found[0]]))
        axes.plot(ends[:, 0], ends[:, 1], color="#777777", linewidth=0.8, linestyle=":")


def _frusta(query: _Query) -> tuple[Floats | None, Floats | None]:
    size, K = query.view.image.size, query.view.K
    true = None if query.true is None else frustum(K, size, invert(query.true), FRUSTUM)
    found = None if query.found is None else frustum(K, size, invert(query.found), FRUSTUM)
    return true, found


def _extent(
    plan: Plan, own: Floats, points: Floats, frames: Sequence[tuple[Floats | None, Floats | None]]
) -> Floats:
    """Points (n, 2) that the plan has to show: all cameras but wild estimates, and most of the room."""
    known = [plan.flat(own), *(plan.flat(true) for true, _ in frames if true is not None)]
    finite = plan.flat(points[np.isfinite(points).all(1)])
    if len(finite):
        known.append(np.percentile(finite, (3, 97), axis=0))
    low, high = np.concatenate(known).min(0) - _FAR, np.concatenate(known).max(0) + _FAR
    estimates = [plan.flat(found) for _, found in frames if found is not None]
    near = [flat for flat in estimates if ((flat >= low) & (flat <= high)).all()]
    return np.concatenate([*known, *near])
