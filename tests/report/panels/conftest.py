"""Small scenes, and a look into what was drawn."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dune_bench.data.samples import ImageRef, PairSample, RelocScene, View
from dune_bench.probes.pair_matches import PairMatches
from dune_bench.probes.pair_poses import PoseConstants
from dune_bench.report.panels.canvas import Canvas
from dune_bench.report.panels.shown import Panel, Shown, drawer

NEAR = 4.0
CONSTANTS = PoseConstants(threshold_px=NEAR, min_inliers=6, max_iterations=100, min_iterations=10)
POSES = types.SimpleNamespace(protocol=types.SimpleNamespace(pose=CONSTANTS))
"""Stands for a probe that estimates poses: all that a panel asks of it."""
SIZE = (48, 64)
K = np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])


@dataclass(frozen=True)
class Drawn:
    """A panel with the figure it was made from."""

    panel: Panel
    sheet: Canvas

    @property
    def texts(self) -> list[str]:
        """Captions, notes and words on tiles."""
        figure = self.sheet.figure
        inside = [text.get_text() for axes in figure.axes for text in axes.texts]
        return [text.get_text() for text in figure.texts] + inside

    @property
    def legend(self) -> list[str]:
        return [text.get_text() for legend in self.sheet.figure.legends for text in legend.get_texts()]

    def tile(self, caption: str) -> Axes:
        """The axes under the caption that begins so."""
        figure = self.sheet.figure
        places = [t.get_position() for t in figure.texts if t.get_text().startswith(caption)]
        assert len(places) == 1, (caption, self.texts)
        left, base = places[0]
        boxes = [(axes, axes.get_position()) for axes in figure.axes]
        below = [(axes, box) for axes, box in boxes if abs(box.x0 - left) < 1e-6 and box.y1 < base]
        return max(below, key=lambda pair: pair[1].y1)[0]

    def pixels(self, caption: str) -> NDArray[Any]:
        """What the tile under a caption shows: (h, w, 3)."""
        (image,) = self.tile(caption).get_images()
        return np.asarray(image.get_array())


Draw = Callable[[str, Shown], Drawn]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Draws a probe's panel, up to its pixels: those take a second, and tests/cli makes some."""
    sheets: list[Canvas] = []

    def png(self: Canvas) -> bytes:
        sheets.append(self)
        return b""

    monkeypatch.setattr(Canvas, "png", png)

    def call(probe: str, shown: Shown) -> Drawn:
        return Drawn(drawer(probe)(shown), sheets.pop())

    return call


def image_ref(name: str = "view", size: tuple[int, int] = SIZE) -> ImageRef:
    pixels = np.random.default_rng(len(name)).integers(0, 256, (*size, 3), dtype=np.uint8)
    return ImageRef(name, name, size, functools.partial(np.copy, pixels))


def pose(yaw_deg: float = 0.0, centre: tuple[float, float, float] = (0, 0, 0)) -> NDArray[np.float64]:
    """T_cam_world of a camera at `centre`, turned about the vertical (y)."""
    a = np.radians(yaw_deg)
    T = np.eye(4)
    T[:3, :3] = [[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]]
    T[:3, 3] = -T[:3, :3] @ centre
    return T


def wall_view(name: str, T_cam_world: NDArray[np.float64], wall_m: float = 3.0) -> View:
    """A view of the plane z = `wall_m` of the world, with its exact depth."""
    rows, columns = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5, indexing="ij")
    rays = np.stack([columns, rows, np.ones(SIZE)], -1) @ np.linalg.inv(K).T
    T_world_cam = np.linalg.inv(T_cam_world)
    slope = rays @ T_world_cam[2, :3]
    depth = (wall_m - T_world_cam[2, 3]) / slope
    return View(name, "room", image_ref(name), depth.astype(np.float32), K, T_cam_world)


def wall_pair() -> PairSample:
    return PairSample("pair", "room", wall_view("one", pose()), wall_view("two", pose(5, (0.3, 0, 0))), 0.8)


def wall_scene(queries: int) -> RelocScene:
    views = [wall_view(f"query{i}", pose(4 * i, (0.1 * i, 0, 0.05 * i))) for i in range(1, queries + 1)]
    return RelocScene("scene", "room", wall_view("reference", pose()), tuple(views))


def wall_matches(view2: View, wrong: int, total: int = 50) -> PairMatches:
    """Matches of the first wall view and another one of the wall: the true places, `wrong` of them moved by
    twice NEAR to the right.  Written out by hand, as nothing of the panels is."""
    rng = np.random.default_rng(3)
    points1 = rng.uniform((20.0, 10.0), (44.0, 38.0), (total, 2))
    wall = np.concatenate([(points1 - K[:2, 2]) / 60.0, np.ones((total, 1))], 1) * 3.0
    there = wall @ view2.T_cam_world[:3, :3].T + view2.T_cam_world[:3, 3]
    points2 = there[:, :2] / there[:, 2:] * 60.0 + K[:2, 2]
    points2[:wrong, 0] += 2 * NEAR
    return PairMatches(points1, points2, np.ones(total))


def shown_of(sample: Any, prediction: Any, **changes: Any) -> Shown:
    return Shown(sample, prediction, changes.pop("probe", POSES), "my_encoder", "my/task/convex@1", **changes)
