"""What the camera tells a head that finds people: rays of the tokens, and depth from apparent size.

K (B, 3, 3) is in pixels of the network's image, upper triangular; an image has `grid` = (rows, columns)
tokens of `patch` pixels.  `compat` reproduces the released Multi-HMR models (PROTOCOLS §4.2, §9 row 6),
which exchange x and y in the rays and multiply the *logarithm* of the depth by the focal length.
No matrix product is used, so that autocast leaves all of it in the precision of K.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FREQUENCIES = 16
HIGHEST_FREQUENCY = 32.0
RAY_CHANNELS = 3 + 2 * 3 * FREQUENCIES
"""Channels of `embed_rays`."""
REFERENCE_FOV_DEG = 60.0
COMPAT_TINY = 1e-10
COMPAT_FARTHEST_M = 50.0

Grid = tuple[int, int]


def token_rays(K: Tensor, grid: Grid, patch: int, compat: bool) -> Tensor:
    """(B, rows, columns, 3): K⁻¹ [x, y, 1] at the tokens' centres, not normalised.

    compat: [row, column, 1] takes the place of [x, y, 1].
    """
    y, x = ((torch.arange(n, device=K.device, dtype=K.dtype) + 0.5) * patch for n in grid)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    pixels = torch.stack([rows, columns] if compat else [columns, rows], -1)
    return back_project(pixels.expand(len(K), *grid, 2), K[:, None, None])


def embed_rays(rays: Tensor) -> Tensor:
    """(..., 3) -> (..., 99): [r, sin(π r ω), cos(π r ω)], ω = 16 values from 1 to 32; the sines of the
    first component come first, then those of the second and third."""
    omega = torch.linspace(1.0, HIGHEST_FREQUENCY, FREQUENCIES, device=rays.device, dtype=rays.dtype)
    # In this order: at 32 π, float32 shows the difference.
    phase = (math.pi * (rays[..., None] * omega)).flatten(-2)
    return torch.cat([rays, phase.sin(), phase.cos()], -1)


def back_project(pixels: Tensor, K: Tensor) -> Tensor:
    """(..., 3) K⁻¹ [x, y, 1] of pixels (..., 2); K (..., 3, 3) broadcasts against them."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
    inverse: Tensor = torch.linalg.inv(K)
    return (inverse * homogeneous[..., None, :]).sum(-1)


def project(points: Tensor, K: Tensor) -> Tensor:
    """(..., 2) pixels (x, y) of camera points (..., 3) with z > 0; K (..., 3, 3) broadcasts."""
    x, y = points[..., 0] / points[..., 2], points[..., 1] / points[..., 2]
    u = K[..., 0, 0] * x + K[..., 0, 1] * y + K[..., 0, 2]
    return torch.stack([u, K[..., 1, 1] * y + K[..., 1, 2]], -1)


def focal_ratio(K: Tensor, grid: Grid, patch: int, compat: bool) -> Tensor:
    """(B,) f/f_n: the focal length over that of a camera with 60° across the image's longer side.

    f is the geometric mean of both focal lengths; compat: the horizontal one.
    """
    focal = K[..., 0, 0] if compat else (K[..., 0, 0] * K[..., 1, 1]).sqrt()
    reference = max(grid) * patch / (2 * math.tan(math.radians(REFERENCE_FOV_DEG / 2)))
    return focal / reference


def depth_of(raw: Tensor, ratio: Tensor, compat: bool) -> Tensor:
    """Depth along z, metres, of what the head predicts and the camera's f/f_n (same shape).

    exp(raw) · f/f_n: of two people who look the same, the one seen with twice the focal length is twice
    as far away.  compat: exp(raw · f/f_n) − 1e-10, within 0 … 50 m.
    """
    if compat:
        return ((raw * ratio).exp() - COMPAT_TINY).clamp(0.0, COMPAT_FARTHEST_M)
    return raw.exp() * ratio


def raw_of(depth: Tensor, ratio: Tensor, compat: bool) -> Tensor:
    """The inverse of `depth_of`: what the head should predict for a depth > 0, metres."""
    if compat:
        return (depth + COMPAT_TINY).log() / ratio
    return (depth / ratio).log()


def viewing_frames(rays: Tensor) -> Tensor:
    """(..., 3, 3) from the viewing frame of rays (..., 3) with z > 0 to the camera frame.

    The viewing frame is the camera turned about its centre, first about its vertical and then about the
    new horizontal axis, until it looks along the ray; columns: its right, down and forward axes.
    """
    forward = rays / rays.norm(dim=-1, keepdim=True)
    right = torch.stack([forward[..., 2], torch.zeros_like(forward[..., 0]), -forward[..., 0]], -1)
    right = right / right.norm(dim=-1, keepdim=True)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], -1)


def from_viewing_frame(rotmat: Tensor, rays: Tensor) -> Tensor:
    """Rotations (P, R, 3, 3) whose first is relative to the viewing frame of rays (P, 3): relative to the
    camera.  The others are relative to their parents and stay."""
    first = (viewing_frames(rays)[..., None] * rotmat[:, 0, None]).sum(-2)
    return torch.cat([first[:, None], rotmat[:, 1:]], 1)
