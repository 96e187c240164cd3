"""Point clouds and meshes as PLY and GLB files.

PLY keeps the camera's axes of the whole project (x right, y down, z forward, metres).  GLB has the axes
that its standard asks of viewers: y up, z backward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.report.panels.colours import RGB

if TYPE_CHECKING:
    from dune_bench.report.panels.meshes import Mesh

Floats = NDArray[np.float64]
_TO_GLTF = np.diag([1.0, -1.0, -1.0])
_THICK = 0.006
"""Half the width of a frustum's edges, metres."""
_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))


def cloud_ply(points: Floats, colours: RGB) -> bytes:
    """Binary PLY of the finite points (n, 3) with colours uint8 (n, 3)."""
    kept = np.isfinite(points).all(1)
    record = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices = np.zeros(int(kept.sum()), record)
    vertices["xyz"], vertices["rgb"] = points[kept], colours[kept]
    return _ply_header(len(vertices)) + vertices.tobytes()


def meshes_ply(meshes: Sequence[Mesh]) -> bytes:
    """Binary PLY of all meshes as one, coloured."""
    record = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    face = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
    vertices = np.zeros(sum(len(mesh.vertices) for mesh in meshes), record)
    faces = np.zeros(sum(len(mesh.faces) for mesh in meshes), face)
    v = f = 0
    for mesh in meshes:
        rows, triangles = slice(v, v + len(mesh.vertices)), slice(f, f + len(mesh.faces))
        vertices["xyz"][rows], vertices["rgb"][rows] = mesh.vertices, mesh.colour
        faces["count"][triangles], faces["corners"][triangles] = 3, mesh.faces + v
        v, f = rows.stop, triangles.stop
    return _ply_header(v, f) + vertices.tobytes() + faces.tobytes()


def _ply_header(vertices: int, faces: int | None = None) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {vertices}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    if faces is not None:
        lines += [f"element face {faces}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header", ""]).encode()


def scene_glb(
    clouds: Mapping[str, tuple[Floats, RGB]],
    meshes: Mapping[str, Mesh],
    cameras: Mapping[str, tuple[Floats, RGB]],
) -> bytes:
    """GLB with named parts.

    clouds: points (n, 3) and colours (n, 3); points that are not finite are left out.  cameras: the five
    corners (5, 3) of a frustum, its tip first, and a colour (3,).
    """
    import trimesh

    make: Any = trimesh  # its types are partial
    scene = make.Scene()
    for name, (points, colours) in clouds.items():
        kept = np.isfinite(points).all(1)
        if kept.any():
            cloud = make.PointCloud(points[kept] @ _TO_GLTF, colours[kept])
            scene.add_geometry(cloud, geom_name=name, node_name=name)
    for name, mesh in meshes.items():
        _add(scene, name, mesh.vertices, mesh.faces, mesh.colour)
    for name, (corners, colour) in cameras.items():
        _add(scene, name, *_wires(corners), colour)
    return bytes(scene.export(file_type="glb"))


def _add(scene: Any, name: str, vertices: Floats, faces: NDArray[np.int64], colour: RGB) -> None:
    import trimesh

    colours = np.tile(np.append(colour, 255).astype(np.uint8), (len(vertices), 1))
    mesh = trimesh.Trimesh(vertices @ _TO_GLTF, faces, vertex_colors=colours, process=False)
    scene.add_geometry(mesh, geom_name=name, node_name=name)


def _wires(corners: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """A frustum's edges as thin three-sided prisms: viewers draw lines too thin to see, or not at all."""
    vertices, faces = [], []
    for i, (a, b) in enumerate(_EDGES):
        along = corners[b] - corners[a]
        side = np.cross(along, np.eye(3)[np.argmin(np.abs(along))])
        side = side / np.linalg.norm(side)
        other = np.cross(along / np.linalg.norm(along), side)
        ring = [side, -0.5 * side + 0.866 * other, -0.5 * side - 0.866 * other]
        vertices += [corners[end] + _THICK * direction for end in (a, b) for direction in ring]
        quads = [(k, (k + 1) % 3, 3 + (k + 1) % 3, 3 + k) for k in range(3)]
        faces += [[6 * i + p, 6 * i + q, 6 * i + r] for p, q, r, _ in quads]
        faces += [[6 * i + p, 6 * i + r, 6 * i + s] for p, _, r, s in quads]
    return np.array(vertices), np.array(faces, np.int64)
