"""Measures of one room's ground truth, from the packed files alone."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, sobel

from dune_bench.data.minirooms.depth_codec import decode_depth
from tools.minirooms.cameras import pixel_grid, project, unproject
from tools.minirooms.classes import INDEX

F64 = NDArray[np.float64]
_SKIRTING_M = 0.15
_NORMAL_STEP = 12


@dataclass(frozen=True)
class ViewData:
    """One decoded view.  image: (S, S, 3) uint8; objects: (S, S) uint8; depth: (S/2, S/2) metres,
    (0, 0) where the shard has none."""

    record: dict[str, Any]
    image: NDArray[np.uint8]
    objects: NDArray[np.uint8]
    depth: NDArray[np.float32]

    @property
    def intrinsics(self) -> F64:
        """K (3, 3)."""
        return np.array(self.record["K"])

    @property
    def pose(self) -> F64:
        """T_cam_world (4, 4)."""
        return np.array(self.record["T_cam_world"])

    @property
    def size(self) -> int:
        """Pixels a side."""
        return int(self.image.shape[0])

    def points(self) -> F64:
        """World points (h, w, 3) of the depth grid."""
        h, w = self.depth.shape
        flat = unproject(
            self.intrinsics, self.pose, pixel_grid(self.size, h), self.depth.ravel().astype(np.float64)
        )
        return flat.reshape(h, w, 3)

    def coarse_objects(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The object at each depth pixel, and whether its four image pixels agree on it."""
        h, w = self.depth.shape
        block = self.objects.reshape(h, 2, w, 2).transpose(0, 2, 1, 3).reshape(h, w, 4)
        return block[..., 0], (block == block[..., :1]).all(axis=2)


def read_view(archive: zipfile.ZipFile, room: str, record: dict[str, Any]) -> ViewData:
    """Decodes a view of a shard."""
    base = f"{room}/{record['id']}"
    with Image.open(io.BytesIO(archive.read(f"{base}.jpg"))) as picture:
        image = np.asarray(picture.convert("RGB"))
    with Image.open(io.BytesIO(archive.read(f"{base}.objects.png"))) as picture:
        objects = np.asarray(picture)
    depth = f"{base}.depth"
    if depth not in archive.NameToInfo:
        return ViewData(record, image, objects, np.zeros((0, 0), np.float32))
    return ViewData(record, image, objects, decode_depth(archive.read(depth)))


def reprojection_errors(a: ViewData, b: ViewData) -> F64:
    """Pixels (N,) in view A between each covisible point of A and the surface that view B has at its
    projection (B's inverse depth interpolated between four neighbours of one object)."""
    owner_a, pure_a = a.coarse_objects()
    owner_b, pure_b = b.coarse_objects()
    points = a.points().reshape(-1, 3)
    where, z = project(b.intrinsics, b.pose, points)
    side = b.depth.shape[0]
    grid = where * side / b.size - 0.5
    inside = (z > 0.1) & (grid >= 0).all(axis=1) & (grid < side - 1.001).all(axis=1) & pure_a.ravel()
    index = np.nonzero(inside)[0]
    column, row = np.floor(grid[index]).astype(int).T
    fx, fy = (grid[index] - np.floor(grid[index])).T
    inverse = np.zeros(len(index))
    same = np.ones(len(index), bool)
    near, far = np.full(len(index), np.inf), np.zeros(len(index))
    for dy, dx, weight in (
        (0, 0, (1 - fx) * (1 - fy)),
        (0, 1, fx * (1 - fy)),
        (1, 0, (1 - fx) * fy),
        (1, 1, fx * fy),
    ):
        value = b.depth[row + dy, column + dx].astype(np.float64)
        inverse += weight / value
        near, far = np.minimum(near, value), np.maximum(far, value)
        same &= (owner_b[row + dy, column + dx] == owner_a.ravel()[index]) & pure_b[row + dy, column + dx]
    seen = 1 / inverse
    # Covisible: one object, no step in depth between the neighbours, and the same depth within 1 %.
    keep = same & (far - near < 0.02 * near) & (np.abs(seen - z[index]) < 0.01 * z[index])
    surface = unproject(b.intrinsics, b.pose, where[index][keep], seen[keep])
    back, _ = project(a.intrinsics, a.pose, surface)
    return np.asarray(np.linalg.norm(back - pixel_grid(a.size, a.depth.shape[0])[index][keep], axis=1))


def wall_flatness(view: ViewData, objects: list[dict[str, Any]]) -> tuple[F64, F64]:
    """Distances (mm) of wall points to their wall's fitted plane, and angles (degrees) between
    normals measured over 12 depth pixels and that plane's."""
    owner, pure = view.coarse_objects()
    points = view.points()
    residuals, angles = [], []
    for row in objects:
        if row["class"] != INDEX["wall"]:
            continue
        mask = (owner == row["index"]) & pure & (points[..., 2] > _SKIRTING_M)
        if mask.sum() < 400:
            continue
        cloud = points[mask]
        centre, normal = _plane(cloud)
        residuals.append(1000 * np.abs((cloud - centre) @ normal))
        k = _NORMAL_STEP
        full = mask[:-k, :-k] & mask[k:, :-k] & mask[:-k, k:]
        if full.any():
            cross = np.cross(points[k:, :-k] - points[:-k, :-k], points[:-k, k:] - points[:-k, :-k])[full]
            cosine = np.abs(cross @ normal) / np.linalg.norm(cross, axis=1)
            angles.append(np.degrees(np.arccos(np.minimum(cosine, 1))))
    return _joined(residuals), _joined(angles)


def _plane(cloud: F64) -> tuple[F64, F64]:
    """A point and the unit normal of the plane of points (N, 3).  Where a thin thing hides between four
    image pixels that all show the wall, the depth is the thing's: the fit leaves such points out."""
    kept = cloud
    for limit in (0.1, 0.005):
        centre = np.asarray(kept.mean(axis=0))
        normal = np.linalg.svd(kept - centre, full_matrices=False)[2][2]
        kept = cloud[np.abs((cloud - centre) @ normal) < limit]
    centre = np.asarray(kept.mean(axis=0))
    return centre, np.asarray(np.linalg.svd(kept - centre, full_matrices=False)[2][2])


def _joined(pieces: list[F64]) -> F64:
    return np.concatenate(pieces) if pieces else np.zeros(0)


def keypoints_on_mask(view: ViewData, room: dict[str, Any]) -> tuple[int, int]:
    """(visible key points whose pixel shows their person, visible key points)."""
    index = {row["model"]: row["index"] for row in room["objects"] if row["class"] == INDEX["person"]}
    points = {person["id"]: np.array(person["keypoints_world"]) for person in room["people"]}
    hits = total = 0
    for facts in view.record["people"]:
        visible = np.array(facts["keypoint_visible"], bool)
        where, _ = project(view.intrinsics, view.pose, points[facts["person"]][visible])
        column, row = np.floor(where).astype(int).T if len(where) else np.zeros((2, 0), int)
        hits += int((view.objects[row, column] == index[facts["person"]]).sum())
        total += int(visible.sum())
    return hits, total


def edge_offset(view: ViewData, reach: int = 4) -> tuple[int, int]:
    """The shift (x, y) in pixels of the object edges at which the image's gradient under them is
    strongest; (0, 0) if labels and picture agree."""
    grey = gaussian_filter(view.image.mean(axis=2), 0.7)
    gradient = np.hypot(sobel(grey, 0), sobel(grey, 1))
    gradient = np.minimum(gradient, np.quantile(gradient, 0.97))
    edges = np.zeros(view.objects.shape)
    horizontal = view.objects[:, 1:] != view.objects[:, :-1]
    vertical = view.objects[1:] != view.objects[:-1]
    edges[:, 1:] += horizontal
    edges[:, :-1] += horizontal
    edges[1:] += vertical
    edges[:-1] += vertical
    core = slice(reach, -reach)
    return max(
        ((dx, dy) for dx in range(-reach, reach + 1) for dy in range(-reach, reach + 1)),
        key=lambda s: float((np.roll(edges, (s[1], s[0]), (0, 1)) * gradient)[core, core].sum()),
    )
