"""Panel of two-view reconstruction: clouds and cameras, true and predicted, and the error of each point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from dune_bench.data.samples import PairSample, View
from dune_bench.geometry.cameras import pixel_centres
from dune_bench.geometry.poses import invert, transform
from dune_bench.geometry.robust import Failure
from dune_bench.report.panels.cameras import (
    HEADROOM,
    Plan,
    draw_camera,
    draw_floor_plan,
    frame_plan,
    frustum,
    level_plan,
)
from dune_bench.report.panels.canvas import LEGEND_LINE, SCALE, Canvas, label, show, tile_size
from dune_bench.report.panels.clouds import Cloud, Eye, cloud_of, joined, look_at
from dune_bench.report.panels.colours import BAD, ERROR_MAP, PREDICTION, RGB, TRUTH, fit, rgb
from dune_bench.report.panels.export import cloud_ply, scene_glb
from dune_bench.report.panels.inliers import Inliers, draw_inliers, inliers_of, legend
from dune_bench.report.panels.pairs import Side
from dune_bench.report.panels.shown import Panel, Shown

if TYPE_CHECKING:
    from dune_bench.probes.pair_points import PointsAt
    from dune_bench.probes.recon3d import Prediction
    from dune_bench.probes.recon3d_protocol import Recon3dMatchDepth, Recon3dTwoView

Floats = NDArray[np.float64]
FRUSTUM = 0.35
WALLS = 0.9
"""Metres above camera 1 up to which the rendered clouds go: walls, but no ceiling."""
PIXELS = 900
"""Height of the rendered clouds, which are drawn smaller: smooth."""
SIDE = 240
"""Points of a side of a photograph's cloud."""


@dataclass(frozen=True)
class _Pair:
    """Clouds of both views in camera 1, and where camera 2 stands there (T_1_2); None: not known.
    by_pose: whether view 2's cloud is placed by T_1_2."""

    clouds: tuple[Cloud, Cloud | None]
    T_1_2: Floats | None
    by_pose: bool = True

    @property
    def known(self) -> list[Cloud]:
        return [cloud for cloud in self.clouds if cloud is not None]


@dataclass(frozen=True)
class _Views:
    """What is seen, and the matches that the estimated pose rests on, if there is one."""

    pair: PairSample
    images: tuple[RGB, RGB]
    inliers: Inliers | None


def draw(shown: Shown) -> Panel:
    """Above the views with the matches that the pose rests on, and both clouds from one place behind camera
    1; below the plans, and the distance of each predicted point from the true one.  Without truth, the
    prediction alone.

    Scenes, all in camera 1: `predicted.ply`, `true.ply`, and `scene.glb` with both and the cameras.
    """
    pair = cast(PairSample, shown.sample)
    prediction = cast("Prediction", shown.prediction)
    images = pair.view1.image.read(), pair.view2.image.read()
    truth = _true_pair(pair, images) if shown.truth else None
    found = _found_pair(pair, prediction, images, shown.truth)
    notes = (*shown.notes, f"{prediction.matches} matches")
    if truth is not None:
        notes = (*notes, f"covisible {100 * pair.covisible:.0f} %")
    if isinstance(prediction.pose, Failure):
        notes = (*notes, f"no pose: {prediction.pose.reason}")
    protocol = cast("Recon3dMatchDepth | Recon3dTwoView", shown.probe.protocol)
    near = protocol.pose.reprojection_px if shown.truth else None
    inliers = inliers_of(prediction.inliers, (pair.view1, pair.view2), near)
    png = _sheet(replace(shown, notes=notes), _Views(pair, images, inliers), truth, found)
    return Panel(png, _scenes(pair, truth, found))


def _true_pair(pair: PairSample, images: tuple[RGB, RGB]) -> _Pair:
    T_1_2 = pair.view1.T_cam_world @ invert(pair.view2.T_cam_world)
    first = cloud_of(pair.view1.K, images[0], pair.view1.depth)
    second = cloud_of(pair.view2.K, images[1], pair.view2.depth).moved(T_1_2)
    return _Pair((first, second), T_1_2)


def _found_pair(pair: PairSample, prediction: Prediction, images: tuple[RGB, RGB], truth: bool) -> _Pair:
    """The predicted points at the pixels of the true depth, or of a small photograph."""
    points = prediction.points_of(pair)
    first = _cloud_at(points[0], images[0], _cloud_size(pair.view1, truth))
    second = None if points[1] is None else _cloud_at(points[1], images[1], _cloud_size(pair.view2, truth))
    T_1_2 = None if isinstance(prediction.pose, Failure) else invert(prediction.pose.T_2_1)
    return _Pair((first, second), T_1_2, prediction.by_pose)


def _cloud_at(points: PointsAt, image: RGB, size: tuple[int, int]) -> Cloud:
    return Cloud(points(pixel_centres(size).reshape(-1, 2), size).reshape(*size, 3), fit(image, size))


def _cloud_size(view: View, truth: bool) -> tuple[int, int]:
    """The true depth's, so that points belong to each other; of a photograph, its shape made small."""
    if truth:
        return view.depth.shape[0], view.depth.shape[1]
    height, width = view.image.size
    shrink = min(1.0, SIDE / max(height, width))
    return max(2, round(height * shrink)), max(2, round(width * shrink))


def _sheet(shown: Shown, views: _Views, truth: _Pair | None, found: _Pair) -> bytes:
    pair = views.pair
    tile = tile_size(pair.view1.image.size, 3.2, 3.4)
    columns, below = (4, SCALE) if truth is not None else (2, LEGEND_LINE + 0.12)
    square = [tile[0]] * columns
    side = Side(pair.view1.image.size, pair.view2.image.size)
    top = [tile[1] / side.aspect, *square[2:]]
    between = LEGEND_LINE + 0.05 if truth is not None else 0.05
    sheet = Canvas(shown.heading, shown.subheading(), [top, square], [tile[1]] * 2, [between, below])
    draw_inliers(sheet, (0, 0, top[0]), "views 1 and 2", views.images, side, views.inliers)
    legend(sheet, 0, views.inliers)
    plan = level_plan([np.eye(3)] + ([] if truth is None or truth.T_1_2 is None else [truth.T_1_2[:3, :3]]))
    shape = (PIXELS, round(PIXELS * tile[0] / tile[1]))
    eye = _eye(plan, _below_ceiling(truth or found, plan)[0], shape[1] / shape[0])
    sides = [("prediction", found)] if truth is None else [("truth", truth), ("prediction", found)]
    for i, (name, clouds) in enumerate(sides):
        row, column = (0, 1 + i) if truth is not None else (1, 0)
        picture = eye.picture(*_below_ceiling(clouds, plan), shape, side=7)
        axes = sheet.picture(row, column, f"{name}: both clouds, from behind view 1", picture, shape)
        if len(clouds.known) == 1:
            label(axes, shape[1] / 2, 0.95 * shape[0], "view 2 has no pose")
        place = i if truth is not None else 1
        _plan(sheet, place, f"{name}, from above", clouds, truth, (pair, plan, tile))
    _legend(sheet, truth is not None)
    if truth is not None:
        _errors(sheet, pair, truth, found)
    return sheet.png()


def _below_ceiling(clouds: _Pair, plan: Plan) -> tuple[Floats, RGB]:
    points, colours = joined(clouds.known)
    with np.errstate(invalid="ignore"):
        kept = points @ plan.up < WALLS
    return points[kept], colours[kept]


def _eye(plan: Plan, points: Floats, aspect: float) -> Eye:
    """Behind and above camera 1, a little to its right, so that depth shows as depth; turned and zoomed
    so that nearly all points (n, 3) are in the picture.  aspect: its width by height."""
    points = points[np.isfinite(points).all(1)]
    target = np.median(points, axis=0) if len(points) else np.array([0, 0, 2.0])
    far = float(np.linalg.norm(target))
    place = far * (-0.45 * plan.ahead + 0.55 * plan.up + 0.35 * plan.right)
    half = 0.5
    for _ in range(2):  # the second time about the middle that the first one found
        T = look_at(place, target, plan.up)
        seen = transform(T, points)
        seen = seen[seen[:, 2] > 0.1 * far]
        if not len(seen):
            break
        low, high = np.percentile(seen[:, :2] / seen[:, 2:], (1, 99), axis=0)
        target = invert(T)[:3, :3] @ np.append((low + high) / 2, 1.0) * far + place
        half = float(max((high - low)[1], (high - low)[0] / aspect)) / 2
    return Eye(look_at(place, target, plan.up), 2 * float(np.degrees(np.arctan(1.1 * half))))


def _plan(
    sheet: Canvas,
    column: int,
    caption: str,
    clouds: _Pair,
    truth: _Pair | None,
    geometry: tuple[PairSample, Plan, tuple[float, float]],
) -> None:
    """A cloud with the cameras; both plans of a sheet show the same part of the room."""
    pair, plan, tile = geometry
    axes = sheet.tile(1, column, caption)
    points, colours = joined(clouds.known)
    shown, _ = joined((truth or clouds).known)
    first = frustum(pair.view1.K, pair.view1.image.size, np.eye(4), FRUSTUM)
    extent = [plan.flat(first)]
    finite = plan.flat(shown[np.isfinite(shown).all(1)])
    if len(finite):
        extent.append(np.percentile(finite, (2, 98), axis=0))
    if truth is not None and truth.T_1_2 is not None:
        extent.append(plan.flat(frustum(pair.view2.K, pair.view2.image.size, truth.T_1_2, FRUSTUM)))
    frame_plan(axes, np.concatenate(extent), tile)
    draw_floor_plan(axes, plan, points, colours, HEADROOM)
    draw_camera(axes, plan, first, "#333333", "1")
    if truth is not None and truth.T_1_2 is not None:
        second = frustum(pair.view2.K, pair.view2.image.size, truth.T_1_2, FRUSTUM)
        draw_camera(axes, plan, second, TRUTH, "2")
    if clouds is not truth and clouds.T_1_2 is not None:
        second = frustum(pair.view2.K, pair.view2.image.size, clouds.T_1_2, FRUSTUM)
        draw_camera(axes, plan, second, PREDICTION, "2" if truth is None else "", dashed=True)


def _legend(sheet: Canvas, truth: bool) -> None:
    estimated = Line2D([], [], color=PREDICTION, marker="o", markersize=4, fillstyle="none", linestyle="--")
    entries = {"camera 1": Line2D([], [], color="#333333", marker="o", markersize=4)}
    if truth:
        entries["camera 2, true"] = Line2D([], [], color=TRUTH, marker="o", markersize=4)
    entries["camera 2, estimated"] = estimated
    sheet.legend(1, entries, 3)


def _errors(sheet: Canvas, pair: PairSample, truth: _Pair, found: _Pair) -> None:
    """Distances of the points of each view, on one scale."""
    maps = [
        np.full(true.points.shape[:2], np.nan)
        if guess is None
        else np.linalg.norm(guess.points - true.points, axis=-1)
        for guess, true in zip(found.clouds, truth.known, strict=True)
    ]
    finite = np.concatenate([values[np.isfinite(values)] for values in maps])
    limit = max(0.05, float(np.percentile(finite, 95))) if finite.size else 0.05
    scale = ScalarMappable(Normalize(0, limit), colormaps[ERROR_MAP].with_extremes(bad=BAD))
    for i, (values, view) in enumerate(zip(maps, (pair.view1, pair.view2), strict=True)):
        size = view.image.size
        by_pose = ", by the estimated pose" if i and found.by_pose else ""
        axes = sheet.tile(1, 2 + i, f"error of view {i + 1}'s points{by_pose}")
        show(axes, scale.to_rgba(np.ma.masked_invalid(values))[..., :3], size)
        if not np.isfinite(values).any():
            reason = "no pose" if found.clouds[i] is None else "no valid depth"
            label(axes, size[1] / 2, size[0] / 2, reason)
    sheet.scale(1, (2, 3), scale, "distance of predicted from true point (m)", extend="max")


def _scenes(pair: PairSample, truth: _Pair | None, found: _Pair) -> dict[str, bytes]:
    clouds = {"predicted": joined(found.known)} | ({} if truth is None else {"true": joined(truth.known)})
    files = {f"{name}.ply": cloud_ply(*content) for name, content in clouds.items()}
    cameras = {"camera 1": (frustum(pair.view1.K, pair.view1.image.size, np.eye(4), FRUSTUM), rgb("#333333"))}
    for name, T, colour in (
        ("camera 2, true", None if truth is None else truth.T_1_2, TRUTH),
        ("camera 2, estimated", found.T_1_2, PREDICTION),
    ):
        if T is not None:
            cameras[name] = (frustum(pair.view2.K, pair.view2.image.size, T, FRUSTUM), rgb(colour))
    return files | {"scene.glb": scene_glb(clouds, {}, cameras)}
