"""Mesh helpers for people: finer meshes, and how deep a limb passes through the body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]


def vertex_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """(V, 3) outward unit normals, weighted by area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], face)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20))


def depth_inside(points: Array, surface: Array, normals: Array, neighbours: int = 4) -> Array:
    """(P,) metres that each point lies beneath the surface, by its nearest surface points; <= 0 outside.

    A point counts as inside only if most of its nearest surface points have it behind them, so that
    folds and thin parts do not raise false alarms.
    """
    _, index = cKDTree(surface).query(points, k=neighbours)
    signed = np.einsum("pkd,pkd->pk", surface[index] - points[:, None], normals[index])
    return np.asarray(np.median(signed, axis=1), dtype=np.float64)


def clash_depth(
    vertices: Array,
    faces: NDArray[np.int64],
    limb: NDArray[np.bool_],
    rest: NDArray[np.bool_],
    stride: int = 3,
) -> float:
    """Deepest penetration in metres of a limb's vertices (every `stride`-th) into the rest's."""
    normals = vertex_normals(vertices, faces)
    depth = depth_inside(vertices[limb][::stride], vertices[rest], normals[rest])
    return float(depth.max(initial=0.0))


def subdivide(faces: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cuts every triangle in four: (edges (E, 2) whose midpoints follow the `count` vertices, new faces)."""
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges, where = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True)
    ab, bc, ca = (where.reshape(-1)[k * len(faces) : (k + 1) * len(faces)] + count for k in range(3))
    a, b, c = faces.T
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return edges, np.concatenate([np.stack(p, axis=1) for p in parts])
