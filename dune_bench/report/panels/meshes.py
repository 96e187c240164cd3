"""Shaded pictures of triangle meshes: over an image, and from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.geometry.cameras import project, scale_intrinsics
from dune_bench.report.panels.colours import RGB
from dune_bench.report.panels.raster import Hits, cast

Floats = NDArray[np.float64]
Size = tuple[int, int]
SAMPLES = 2
"""Rays per pixel and axis: smooth outlines."""
_AMBIENT, _DIFFUSE, _RIM = 0.38, 0.62, 0.25


@dataclass(frozen=True)
class Mesh:
    """vertices: float64 (V, 3) metres in the camera frame.  faces: int64 (F, 3), counter-clockwise seen
    from outside.  colour: uint8 (3,)."""

    vertices: Floats
    faces: NDArray[np.int64]
    colour: RGB


def over_image(meshes: Sequence[Mesh], K: Floats, image: RGB, opacity: float = 0.9) -> RGB:
    """The image (H, W, 3) with the meshes drawn on it, the nearest in front.  K: in its pixels."""
    size = (image.shape[0], image.shape[1])
    fine = (size[0] * SAMPLES, size[1] * SAMPLES)
    if not meshes:
        return image
    joined = _joined(meshes)
    pixels, depth = project(scale_intrinsics(K, size, fine), joined.vertices)
    hits = cast(pixels[joined.faces], depth[joined.faces], fine)
    towards = -joined.vertices / np.maximum(np.linalg.norm(joined.vertices, axis=1, keepdims=True), 1e-9)
    layer, cover = _shaded(joined, hits, towards)
    cover = cover * opacity
    mixed = image * (1 - cover[..., None]) + layer * cover[..., None]
    return np.asarray(mixed.round(), dtype=np.uint8)


def from_above(
    meshes: Sequence[Mesh], right: Floats, ahead: Floats, box: Floats, size: Size
) -> tuple[RGB, Floats]:
    """A parallel view of meshes against `up`, on white: colours uint8 (H, W, 3), cover (H, W) in [0, 1].

    right, ahead: unit vectors (3,) of the camera frame that become the picture's right and up.
    box: ((left, right), (near, far)), metres along them.
    """
    blank = np.full((*size, 3), 255, np.uint8)
    if not meshes:
        return blank, np.zeros(size)
    joined = _joined(meshes)
    fine = (size[0] * SAMPLES, size[1] * SAMPLES)
    up = np.cross(right, ahead)
    plane = joined.vertices @ np.stack([right, ahead, up], 1)
    x = (plane[:, 0] - box[0, 0]) / (box[0, 1] - box[0, 0]) * fine[1]
    y = (box[1, 1] - plane[:, 1]) / (box[1, 1] - box[1, 0]) * fine[0]
    hits = cast(np.stack([x, y], -1)[joined.faces], -plane[joined.faces, 2], fine, parallel=True)
    layer, cover = _shaded(joined, hits, np.broadcast_to(up, joined.vertices.shape))
    mixed = blank * (1 - cover[..., None]) + layer * cover[..., None]
    return np.asarray(mixed.round(), dtype=np.uint8), cover


@dataclass(frozen=True)
class _Joined:
    vertices: Floats
    faces: NDArray[np.int64]
    colours: Floats
    normals: Floats


def _joined(meshes: Sequence[Mesh]) -> _Joined:
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return _Joined(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]),
        np.concatenate([np.tile(np.asarray(m.colour, float), (len(m.vertices), 1)) for m in meshes]),
        np.concatenate([vertex_normals(mesh.vertices, mesh.faces) for mesh in meshes]),
    )


def vertex_normals(vertices: Floats, faces: NDArray[np.int64]) -> Floats:
    """Unit normals (V, 3), outward: the mean of the adjoining faces' by area; 0 for a free vertex."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    index = faces.reshape(-1)
    summed = np.stack(
        [np.bincount(index, np.repeat(normal[:, k], 3), minlength=len(vertices)) for k in range(3)], -1
    )
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.asarray(np.divide(summed, length, out=np.zeros_like(summed), where=length > 0))


def _shaded(joined: _Joined, hits: Hits, towards: Floats) -> tuple[Floats, Floats]:
    """Colours (h, w, 3) of the hits and how much of each pixel they cover (h, w), averaged over the rays.

    towards: (V, 3) unit vectors from the vertices to the viewer.  Light comes from the viewer, a little
    from above; grazing surfaces darken, so that limbs stand out from the trunk.
    """
    mask = hits.mask
    corner = joined.faces[hits.triangle[mask]]
    weights = hits.weights[mask][..., None]

    def at_hits(values: Floats) -> Floats:
        return np.asarray((values[corner] * weights).sum(1))

    normal, view = at_hits(joined.normals), at_hits(towards)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    light = view + np.array([-0.25, -0.45, 0.0])
    light /= np.maximum(np.linalg.norm(light, axis=1, keepdims=True), 1e-9)
    facing = np.clip((normal * view).sum(1), 0, 1)
    shade = _AMBIENT + _DIFFUSE * np.clip((normal * light).sum(1), 0, 1) - _RIM * (1 - facing) ** 3
    colour = at_hits(joined.colours) * np.clip(shade, 0.1, 1.0)[:, None]
    sums = np.zeros((*mask.shape, 3))
    sums[mask] = colour
    height, width = mask.shape[0] // SAMPLES, mask.shape[1] // SAMPLES
    cover = mask.reshape(height, SAMPLES, width, SAMPLES).mean((1, 3))
    total = sums.reshape(height, SAMPLES, width, SAMPLES, 3).mean((1, 3))
    return np.divide(total, cover[..., None], out=np.zeros_like(total), where=cover[..., None] > 0), cover
