"""Exact rays: depth and object of image points, and what hides a person or a key point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.minirooms.backend import mitsuba
from tools.minirooms.scene import BuiltScene

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class RayCaster:
    """Asks a scene what single rays meet.  Object -1 is nothing."""

    def __init__(self, built: BuiltScene) -> None:
        import drjit

        self._dr, self._mi, self.built = drjit, mitsuba(), built
        self._scene = built.scene
        # Shape ids are handed out per process, not per scene: map them by the scene's own shapes.
        ids = [self._shape_id(shape) for shape in self._scene.shapes()]
        names = [shape.id() for shape in self._scene.shapes()]
        self._table = np.full(max(ids) + 1, -1, np.int64)
        for identity, name in zip(ids, names, strict=True):
            self._table[identity] = built.shape_objects[int(name.removeprefix("shape"))]
        labels = [row.label for row in built.objects]
        self.object_labels = np.array([*labels, -1], np.int64)

    def _shape_id(self, shape: Any) -> int:
        pointer = self._mi.ShapePtr(shape)
        return int(np.array(self._dr.reinterpret_array(self._mi.UInt32, pointer))[0])

    def objects(self, K: F64, T_cam_world: F64, pixels: F64) -> tuple[F64, I64]:
        """z (N,) metres along the camera's axis and the object index (N,) of image points (N, 2)."""
        rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ np.linalg.inv(K).T
        lengths = np.linalg.norm(rays, axis=1)
        directions = (rays / lengths[:, None]) @ T_cam_world[:3, :3]
        origin = -T_cam_world[:3, :3].T @ T_cam_world[:3, 3]
        distance, index = self.shoot(np.broadcast_to(origin, directions.shape), directions)
        return distance / lengths, index

    def shoot(self, origins: F64, directions: F64) -> tuple[F64, I64]:
        """Distance (N,) and object index (N,) along unit directions (N, 3) from origins (N, 3)."""
        mi = self._mi
        ray = mi.Ray3f(
            mi.Point3f(*(mi.Float(np.ascontiguousarray(origins[:, k], np.float32)) for k in range(3))),
            mi.Vector3f(*(mi.Float(np.ascontiguousarray(directions[:, k], np.float32)) for k in range(3))),
        )
        hit = self._scene.ray_intersect_preliminary(ray, coherent=True)
        distance = np.array(hit.t, np.float64)
        identity = np.array(self._dr.reinterpret_array(mi.UInt32, hit.shape), np.int64)
        valid = np.isfinite(distance)
        index = np.where(valid, self._table[np.where(valid, identity, 0)], -1)
        return np.where(valid, distance, 0.0), index

    def labels(self, K: F64, T_cam_world: F64, pixels: F64) -> tuple[F64, I64]:
        """As `objects`, with the class label in place of the object."""
        z, index = self.objects(K, T_cam_world, pixels)
        return z, self.object_labels[index]
