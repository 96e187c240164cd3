"""Cameras in a picture: their frusta, and a plan of the scene from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from dune_bench.geometry.cameras import rays
from dune_bench.geometry.poses import transform
from dune_bench.report.panels.canvas import label
from dune_bench.report.panels.colours import RGB

Floats = NDArray[np.float64]
HEADROOM = 0.45
"""Metres above the first camera from which on points are left out of a plan: ceilings hide rooms."""
_LEVEL = 0.02
"""How much the cameras' own vertical counts beside their horizontal axes."""
_POINTS = 20_000
_STEPS = (0.25, 0.5, 1, 2, 5, 10, 20)


def frustum(K: Floats, size: tuple[int, int], T_frame_cam: Floats, length: float) -> Floats:
    """Corners (5, 3) of a camera's frustum in a frame: its centre, then the image's corners (from the
    upper left, clockwise) at a depth of `length` metres."""
    height, width = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    points = np.concatenate([np.zeros((1, 3)), length * rays(K, corners)])
    return transform(T_frame_cam, points)


@dataclass(frozen=True)
class Plan:
    """A view against `up`.  right, ahead, up: unit vectors (3,) of a frame; `ahead` is the picture's up."""

    right: Floats
    ahead: Floats
    up: Floats

    def flat(self, points: Floats) -> Floats:
        """(n, 2) metres to the right and ahead."""
        return np.asarray(points @ np.stack([self.right, self.ahead], -1))


def level_plan(rotations: Sequence[Floats]) -> Plan:
    """The plan of a frame in which cameras stand upright.

    rotations: R_frame_cam (3, 3).  Photographers hold the horizon level: `up` is across all the cameras'
    x axes, as far as these say (two directions do), and else like the cameras' own.
    `ahead` is where the first camera looks.
    """
    x = np.stack([R[:, 0] for R in rotations])
    own = -np.stack([R[:, 1] for R in rotations]).mean(0)
    up = np.linalg.solve(x.T @ x + _LEVEL * np.eye(3), _LEVEL * own)
    return plan_along(up, rotations[0])


def plan_along(up: Floats, R_frame_cam: Floats) -> Plan:
    """The plan against a vector `up` (3,) of a frame, in which a camera's view is ahead."""
    up = up / np.linalg.norm(up)
    look = R_frame_cam[:, 2]
    ahead = look - (look @ up) * up
    if np.linalg.norm(ahead) < 1e-3:  # straight down: the image's up
        ahead = -R_frame_cam[:, 1] + (R_frame_cam[:, 1] @ up) * up
    ahead = ahead / np.linalg.norm(ahead)
    return Plan(np.cross(ahead, up), ahead, up)


def frame_plan(axes: Axes, points: Floats, tile: tuple[float, float], margin: float = 0.2) -> Floats:
    """Limits of a plan so that all points (n, 2) show, one scale both ways; draws a grid of metres.

    tile: its width and height.  Returns ((left, right), (near, far)).
    """
    low, high = points.min(0) - margin, points.max(0) + margin
    middle, half = (low + high) / 2, (high - low) / 2
    half = np.maximum(half, 0.4)
    half = np.maximum(half, (half[1] * tile[0] / tile[1], half[0] * tile[1] / tile[0]))
    box = np.stack([middle - half, middle + half], 1)
    step = next((step for step in _STEPS if half.max() < 4 * step), _STEPS[-1])
    for axis, line in ((0, axes.axvline), (1, axes.axhline)):
        for value in np.arange(np.ceil(box[axis, 0] / step) * step, box[axis, 1], step):
            line(value, color="#e4e4e4", linewidth=0.8, zorder=0)
    axes.set_xlim(*box[0])
    axes.set_ylim(*box[1])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#cccccc")
    label(axes, box[0, 1], box[1, 0], f"grid {step:g} m ", ha="right", va="bottom", size=8)
    return np.asarray(box)


def draw_camera(
    axes: Axes, plan: Plan, corners: Floats, colour: Any, name: str = "", dashed: bool = False
) -> None:
    """A frustum (5, 3) from above: its outline, with a dot at the camera."""
    flat = plan.flat(corners)
    left, right = (flat[1] + flat[4]) / 2, (flat[2] + flat[3]) / 2
    outline = np.stack([flat[0], left, right, flat[0]])
    style = (0, (3, 1.5)) if dashed else "-"
    axes.fill(outline[:, 0], outline[:, 1], color=colour, alpha=0.10 if dashed else 0.25, linewidth=0)
    axes.plot(outline[:, 0], outline[:, 1], color=colour, linewidth=1.5, linestyle=style)
    axes.plot(*flat[0], "o", color=colour, markersize=4, fillstyle="none" if dashed else "full")
    if name:  # a little towards the image from the middle: away from the dot
        x, y = 0.3 * flat[0] + 0.35 * (left + right)
        label(axes, float(x), float(y), name, size=8, clip_on=True)


def draw_floor_plan(axes: Axes, plan: Plan, points: Floats, colours: RGB, top: float) -> None:
    """Points (n, 3) in their colours, the higher ones in front; those above `top` along `up`, metres,
    are left out."""
    height = points @ plan.up
    with np.errstate(invalid="ignore"):
        kept = np.flatnonzero(height < top)
    kept = kept[:: max(1, len(kept) // _POINTS)]
    kept = kept[np.argsort(height[kept], kind="stable")]
    flat = plan.flat(points[kept])
    axes.scatter(flat[:, 0], flat[:, 1], s=5.0, c=colours[kept] / 255.0, linewidths=0, alpha=0.8, zorder=1)
