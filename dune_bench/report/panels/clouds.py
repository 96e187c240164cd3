"""Point clouds of views, and pictures of them from another place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.geometry.cameras import Camera, project
from dune_bench.geometry.poses import transform
from dune_bench.report.panels.colours import RGB, fit
from dune_bench.report.panels.raster import splat

Floats = NDArray[np.float64]
Size = tuple[int, int]
BACKGROUND = 246


@dataclass(frozen=True)
class Cloud:
    """points: float64 (h, w, 3), metres in some frame, one per pixel of a depth map; NaN where there is
    none.  colours: uint8 (h, w, 3)."""

    points: Floats
    colours: RGB

    @property
    def flat(self) -> tuple[Floats, RGB]:
        """(n, 3) points and their colours, all pixels."""
        return self.points.reshape(-1, 3), self.colours.reshape(-1, 3)

    def moved(self, T: Floats) -> Cloud:
        """In another frame: T (4, 4) maps its points there."""
        return Cloud(transform(T, self.points.reshape(-1, 3)).reshape(self.points.shape), self.colours)


def cloud_of(K: Floats, image: RGB, depth: NDArray[np.floating[Any]]) -> Cloud:
    """The points of a depth map in its camera's frame.  K: in pixels of `image`.  depth: (h, w) metres over
    the same field of view."""
    size = (image.shape[0], image.shape[1])
    shape = (depth.shape[0], depth.shape[1])
    return Cloud(Camera(K, size).resized(shape).unproject(depth), fit(image, shape))


def joined(clouds: list[Cloud]) -> tuple[Floats, RGB]:
    """All points (n, 3) of several clouds of one frame, and their colours."""
    parts = [cloud.flat for cloud in clouds]
    return np.concatenate([points for points, _ in parts]), np.concatenate([colours for _, colours in parts])


@dataclass(frozen=True)
class Eye:
    """A virtual camera.  T_eye_frame: (4, 4).  fov_deg: of the picture's height."""

    T_eye_frame: Floats
    fov_deg: float = 50.0

    def picture(self, points: Floats, colours: RGB, size: Size, side: int = 3) -> RGB:
        """What it sees of points (n, 3) of its frame: squares of `side` pixels, the nearest in front."""
        focal = 0.5 * size[0] / np.tan(np.radians(self.fov_deg) / 2)
        K = np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1.0]])
        seen = points[np.isfinite(points).all(1)]
        pixels, depth = project(K, transform(self.T_eye_frame, seen))
        which = splat(pixels, depth, size, side)
        picture = np.full((*size, 3), BACKGROUND, np.uint8)
        picture[which >= 0] = colours[np.isfinite(points).all(1)][which[which >= 0]]
        return picture


def look_at(eye: Floats, target: Floats, up: Floats) -> Floats:
    """T_eye_frame (4, 4) of a camera at `eye` that looks at `target`, upright."""
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, up)
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(ahead, right), ahead])
    T[:3, 3] = -T[:3, :3] @ eye
    return T
