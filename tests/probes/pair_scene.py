"""Two views of a box-shaped room with a ball in it, ray-cast exactly; features that name the surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.samples import ImageRef, PairSample, View
from dune_bench.geometry.cameras import pixel_centres, rays, scale_intrinsics
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.pair_matches import token_centres

Floats = NDArray[np.float64]
LOW, HIGH = np.array([-2.0, -1.3, -2.5]), np.array([2.0, 1.3, 2.5])
SIZE, DEPTH_SIZE = (448, 448), (224, 224)
K = np.array([[360.0, 0, 224.0], [0, 360.0, 224.0], [0, 0, 1.0]])


@dataclass(frozen=True)
class Ball:
    centre: tuple[float, float, float] = (0.1, 0.2, 0.6)
    radius: float = 0.4


def cast(T_cam_world: Floats, points: Floats, ball: Ball | None, K: Floats = K) -> Floats:
    """z (n,) of the surface that the camera sees at pixel points (n, 2)."""
    T = np.linalg.inv(T_cam_world)
    origin, toward = T[:3, 3], rays(K, points) @ T[:3, :3].T
    wall = np.where(toward > 0, HIGH, LOW) - origin
    depth = np.divide(wall, toward, out=np.full(toward.shape, np.inf), where=toward != 0)
    nearest = depth.min(1)
    if ball is not None:
        offset = origin - np.array(ball.centre)
        a, b = (toward**2).sum(1), toward @ offset
        inside = b**2 - a * (offset @ offset - ball.radius**2)
        hit = (-b - np.sqrt(np.maximum(inside, 0))) / a
        nearest = np.where((inside > 0) & (hit > 0), np.minimum(hit, nearest), nearest)
    return np.asarray(nearest)


def camera(yaw_deg: float, at: tuple[float, float, float]) -> Floats:
    """T_cam_world of a camera at a place of the room, turned about the vertical axis."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", yaw_deg, degrees=True).as_matrix().T
    T[:3, 3] = -T[:3, :3] @ np.array(at)
    return T


def view(name: str, T: Floats, ball: Ball | None, exposure: tuple[float, float, float] = (1, 1, 1)) -> View:
    image = ImageRef(name, "0" * 64, SIZE, lambda: np.zeros((*SIZE, 3), np.uint8))
    K_depth = scale_intrinsics(K, SIZE, DEPTH_SIZE)
    depth = cast(T, pixel_centres(DEPTH_SIZE).reshape(-1, 2), ball, K_depth).reshape(DEPTH_SIZE)
    return View(name, "room", image, depth.astype(np.float32), K, T, exposure)


def room_pair(
    yaw_deg: float = 20.0, step_m: float = 0.5, ball: Ball | None = None, name: str = "p", group: str = "room"
) -> PairSample:
    """View 1 looks along the room; view 2 stands `step_m` to the side and is turned by `yaw_deg`."""
    first = view(f"{name}-1", camera(0.0, (0.0, 0.0, -2.0)), ball)
    second = view(f"{name}-2", camera(-yaw_deg, (step_m, 0.1, -1.8)), ball, (1.5, 1.0, 0.8))
    return PairSample(name, group, first, second, 0.5)


def world_points(view: View, points: Floats, ball: Ball | None) -> Floats:
    """(n, 3) places of the surface at pixel points of a view, cast anew: no depth map is read."""
    seen = rays(view.K, points) * cast(view.T_cam_world, points, ball)[:, None]
    T = np.linalg.inv(view.T_cam_world)
    return np.asarray(seen @ T[:3, :3].T + T[:3, 3])


def surface_code(view: View, grid: TokenGrid, ball: Ball | None, waves: int = 256) -> torch.Tensor:
    """float32 (C, h, w): random Fourier features of the world point at each token's centre; their
    cosine falls with the distance of the points, whatever the view."""
    rng = np.random.default_rng(5)
    frequency, phase = rng.normal(size=(3, waves)) * 2.5, rng.uniform(0, 2 * np.pi, waves)
    points = world_points(view, token_centres(grid, view.image.size), ball)
    code = np.cos(points @ frequency + phase).astype(np.float32)
    return torch.from_numpy(code.T.reshape(waves, *grid.grid))


def lazy_pairs(pairs: list[PairSample]) -> Lazy[PairSample]:
    return Lazy([LazyItem(p.id, p.group, (p.view1.image, p.view2.image), lambda p=p: p) for p in pairs])
