"""Pinhole cameras: intrinsics of one image size, projection and its inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Size = tuple[int, int]


def check_intrinsics(K: Floats) -> None:
    """Raises TaskError unless K (..., 3, 3) is finite, upper triangular, with positive focal lengths
    and last row (0, 0, 1)."""
    if K.shape[-2:] != (3, 3):
        raise TaskError(f"intrinsics must be (..., 3, 3), not {K.shape}")
    if not np.isfinite(K).all():
        raise TaskError("intrinsics are not finite")
    if not ((K[..., 0, 0] > 0) & (K[..., 1, 1] > 0)).all():
        raise TaskError("intrinsics need positive focal lengths")
    if not ((K[..., 1, 0] == 0).all() and (K[..., 2, :] == (0.0, 0.0, 1.0)).all()):
        raise TaskError("intrinsics must be upper triangular with last row 0 0 1")


def scale_intrinsics(K: Floats, size: Size, new_size: Size) -> Floats:
    """Intrinsics of the same view at another size.

    K: (..., 3, 3) in pixels of an image of `size` (height, width).  With pixel centres at
    half-integers a resize is a pure scaling about the image's corner: no half-pixel terms.
    Raises TaskError for an empty size.
    """
    if min(*size, *new_size) <= 0:
        raise TaskError(f"cannot scale intrinsics from size {size} to {new_size}")
    factors = np.array([new_size[1] / size[1], new_size[0] / size[0], 1.0])
    return np.asarray(np.asarray(K, np.float64) * factors[:, None])


def scale_points(points: Floats, size: Size, new_size: Size) -> Floats:
    """Pixel points (..., 2) of an image of `size` in pixels of the same image at `new_size`."""
    if min(*size, *new_size) <= 0:
        raise TaskError(f"cannot scale points from size {size} to {new_size}")
    return np.asarray(points, np.float64) * (new_size[1] / size[1], new_size[0] / size[0])


@dataclass(frozen=True)
class Camera:
    """Intrinsics bound to the image size they are of, so that the two cannot drift apart.

    K: float64 (3, 3).  size: (height, width).  Raises TaskError if K is not of a pinhole camera or
    its principal point lies outside the image: the usual trace of intrinsics of another size.
    """

    K: Floats
    size: Size

    def __post_init__(self) -> None:
        check_intrinsics(self.K)
        if self.K.shape != (3, 3):
            raise TaskError(f"a camera has one K (3, 3), not {self.K.shape}")
        x, y = self.K[0, 2], self.K[1, 2]
        if not (0 <= x <= self.size[1] and 0 <= y <= self.size[0]):
            raise TaskError(
                f"principal point ({x:.1f}, {y:.1f}) outside an image of {self.size[0]}×{self.size[1]} "
                "(height × width): are the intrinsics of another size?"
            )

    def resized(self, size: Size) -> Camera:
        """The same view at another size."""
        return Camera(scale_intrinsics(self.K, self.size, size), size)

    def unproject(self, depth: NDArray[np.floating[Any]]) -> Floats:
        """Points (h, w, 3) of a depth map in pixels of this camera.  Raises TaskError if the map has
        another size: resize the camera first."""
        if depth.shape != self.size:
            raise TaskError(f"depth is {depth.shape}, the camera is of {self.size}: resize the camera")
        return unproject_depth(self.K, depth)

    def holds(self, points: Floats) -> Bools:
        """(...,) bool: which of the pixel points (..., 2) lie within the image."""
        return np.asarray(((points >= 0) & (points <= (self.size[1], self.size[0]))).all(-1))


def pixel_centres(size: Size) -> Floats:
    """(h, w, 2) pixel centres (x, y) of an image of `size`: half-integers."""
    y, x = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5, indexing="ij")
    return np.stack([x, y], -1)


def rays(K: Floats, points: Floats) -> Floats:
    """Directions (..., n, 3) with z = 1 through pixel points (..., n, 2)."""
    fx, fy, skew = K[..., 0, 0, None], K[..., 1, 1, None], K[..., 0, 1, None]
    y = (points[..., 1] - K[..., 1, 2, None]) / fy
    x = (points[..., 0] - K[..., 0, 2, None] - skew * y) / fx
    return np.stack([x, y, np.ones_like(x)], -1)


def project(K: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Pixels (..., n, 2) and depths (..., n) of camera points (..., n, 3), metres.

    K: (..., 3, 3).  A point at or behind the camera's plane has no pixel: NaN.
    """
    depth = points[..., 2]
    front = depth > 0
    safe = np.where(front, depth, 1.0)
    pixels = np.einsum("...ij,...nj->...ni", K, points / safe[..., None])[..., :2]
    return np.where(front[..., None], pixels, np.nan), np.asarray(depth)


def unproject(K: Floats, points: Floats, depth: Floats) -> Floats:
    """Camera points (..., n, 3) at pixel points (..., n, 2) with depth (..., n), metres; NaN where
    the depth is invalid (≤ 0 or not finite)."""
    depth = np.asarray(depth, np.float64)
    valid = np.isfinite(depth) & (depth > 0)
    return rays(K, points) * np.where(valid, depth, np.nan)[..., None]


def unproject_depth(K: Floats, depth: NDArray[np.floating[Any]]) -> Floats:
    """Camera points (..., h, w, 3) of depth maps (..., h, w), K (..., 3, 3) in the map's own pixels;
    NaN where the depth is invalid."""
    height, width = depth.shape[-2:]
    centres = pixel_centres((height, width)).reshape(-1, 2)
    flat = np.asarray(depth, np.float64).reshape(*depth.shape[:-2], height * width)
    return unproject(K, centres, flat).reshape(*depth.shape, 3)
