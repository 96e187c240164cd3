"""How much of a person a view shows, and which key points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.minirooms.backend import mitsuba
from tools.minirooms.cameras import Camera, project
from tools.minirooms.rays import RayCaster
from tools.minirooms.scene import Figure

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
OWN_BODY_M = 0.14
"""A joint lies inside the body: its own surface may be this far in front of it."""
_FRAME = 1.0
"""Silhouettes are counted up to this many image sizes beyond each edge."""
_MOST_RAYS = 250_000


class Silhouette:
    """One person alone in the world."""

    def __init__(self, figure: Figure) -> None:
        mi = mitsuba()
        self._vertices = figure.vertices
        mesh = mi.Mesh("alone", len(figure.vertices), len(figure.faces))
        parameters = mi.traverse(mesh)
        parameters["vertex_positions"] = mi.Float(figure.vertices.astype(np.float32).ravel())
        parameters["faces"] = mi.UInt32(figure.faces.astype(np.uint32).ravel())
        parameters.update()
        self._scene: Any = mi.load_dict({"type": "scene", "alone": mesh})

    def pixels(self, camera: Camera, size: int) -> float:
        """Silhouette pixels if nothing hid the person, also outside the image as far as one image
        size beyond each edge."""
        where, z = project(camera.K, camera.T_cam_world, self._vertices)
        edge = _FRAME * size
        low, high = np.array([-edge, -edge]), np.array([size + edge, size + edge])
        if (z > 0.05).all():
            low = np.maximum(low, np.floor(where.min(0)))
            high = np.minimum(high, np.ceil(where.max(0)))
        elif not (z > 0.05).any():
            return 0.0
        if (high <= low).any():
            return 0.0
        stride = max(1, int(np.ceil(np.sqrt(float(np.prod(high - low)) / _MOST_RAYS))))
        x = np.arange(low[0] + 0.5, high[0], stride)
        y = np.arange(low[1] + 0.5, high[1], stride)
        points = np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1)
        return float(self._hits(camera, points)) * stride**2

    def _hits(self, camera: Camera, pixels: F64) -> int:
        mi = mitsuba()
        rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ np.linalg.inv(camera.K).T
        directions = (rays / np.linalg.norm(rays, axis=1, keepdims=True)) @ camera.T_cam_world[:3, :3]
        origin = camera.centre
        ray = mi.Ray3f(
            mi.Point3f(*(float(c) for c in origin)),
            mi.Vector3f(*(mi.Float(np.ascontiguousarray(directions[:, k], np.float32)) for k in range(3))),
        )
        return int(np.array(self._scene.ray_test(ray)).sum())


def keypoints_visible(
    caster: RayCaster, camera: Camera, objects: I64, person: int, keypoints: F64, size: int
) -> NDArray[np.bool_]:
    """(J,) whether each key point (J, 3) in the world is in the image, its pixel shows the person, and
    nothing but the own body within 14 cm is in front of it.  objects: (size, size)."""
    where, z = project(camera.K, camera.T_cam_world, keypoints)
    inside = (z > 0.05) & (where >= 0).all(axis=1) & (where < size).all(axis=1)
    visible = np.zeros(len(keypoints), bool)
    if inside.any():
        column, row = np.floor(where[inside]).astype(int).T
        surface, owner = caster.objects(camera.K, camera.T_cam_world, where[inside])
        own = (objects[row, column] == person) & (owner == person)
        visible[inside] = own & (surface > z[inside] - OWN_BODY_M)
    return visible
