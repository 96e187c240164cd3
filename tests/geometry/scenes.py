"""Small synthetic scenes: points before two cameras, with everything known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float64]
SIZE = (720, 540)
K = np.array([[590.0, 0, 270.0], [0, 595.0, 360.0], [0, 0, 1.0]])


def random_pose(rng: np.random.Generator, angle_deg: float, distance: float) -> Floats:
    """T_2_1: rotation by `angle_deg` about a random axis, translation of length `distance`."""
    axis, direction = rng.normal(size=(2, 3))
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(np.radians(angle_deg) * axis / np.linalg.norm(axis)).as_matrix()
    T[:3, 3] = distance * direction / np.linalg.norm(direction)
    return T


@dataclass
class TwoViews:
    """world = camera 1.  points (n, 3); pixels1, pixels2 (n, 2) at SIZE; T_2_1."""

    points: Floats
    pixels1: Floats
    pixels2: Floats
    T_2_1: Floats

    @property
    def in_camera2(self) -> Floats:
        return self.points @ self.T_2_1[:3, :3].T + self.T_2_1[:3, 3]


def two_views(seed: int, n: int = 200, angle_deg: float = 12.0, distance: float = 0.5) -> TwoViews:
    rng = np.random.default_rng(seed)
    points = np.stack([rng.uniform(-1, 1, n), rng.uniform(-1.3, 1.3, n), rng.uniform(2.5, 5, n)], 1)
    T = random_pose(rng, angle_deg, distance)
    moved = points @ T[:3, :3].T + T[:3, 3]
    one, two = points @ K.T, moved @ K.T
    return TwoViews(points, one[:, :2] / one[:, 2:], two[:, :2] / two[:, 2:], T)
