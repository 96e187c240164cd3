"""Errors of one predicted body against the true one (PROTOCOLS §4.4): PVE, MPJPE, their aligned forms.

All bodies are in the camera frame, metres; errors are millimetres except for depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.geometry.procrustes import align

Floats = NDArray[np.float64]
ERRORS = ("pve_mm", "pa_pve_mm", "mpjpe_mm", "pa_mpjpe_mm", "depth_error_m")


@dataclass(frozen=True)
class Body:
    """A posed body in the camera frame, metres, float64.

    vertices: (V, 3).  joints: (J, 3) the points that MPJPE counts (COCO key points, say).
    pelvis: (3,), the root that root-aligned errors put at the origin.
    """

    vertices: Floats
    joints: Floats
    pelvis: Floats


def body_errors(predicted: Body, truth: Body) -> dict[str, float]:
    """All of ERRORS for a matched pair.

    `depth_error_m` is |z − ẑ| of the pelvis.  Raises TaskError for bodies of different topology, a body
    that is not finite, or a prediction without extent (it has no Procrustes alignment).
    """
    return {
        "pve_mm": root_aligned_mm(predicted.vertices, truth.vertices, predicted.pelvis, truth.pelvis),
        "pa_pve_mm": procrustes_aligned_mm(predicted.vertices, truth.vertices),
        "mpjpe_mm": root_aligned_mm(predicted.joints, truth.joints, predicted.pelvis, truth.pelvis),
        "pa_mpjpe_mm": procrustes_aligned_mm(predicted.joints, truth.joints),
        "depth_error_m": float(abs(predicted.pelvis[2] - truth.pelvis[2])),
    }


def root_aligned_mm(points: Floats, truth: Floats, root: Floats, true_root: Floats) -> float:
    """Mean distance after moving both roots to the origin, mm.  points, truth: (n, 3); roots: (3,)."""
    _check(points, truth)
    _check(root, true_root)
    offset = (points - root) - (truth - true_root)
    return 1000.0 * float(np.linalg.norm(offset, axis=-1).mean())


def procrustes_aligned_mm(points: Floats, truth: Floats) -> float:
    """Mean distance after the similarity that best maps `points` onto `truth`, mm; never a reflection."""
    _check(points, truth)
    similarity = align(points, truth, scale=True)
    if not np.isfinite(similarity.scale):
        raise TaskError("a body whose points lie on one line or point has no Procrustes alignment")
    return 1000.0 * float(np.linalg.norm(similarity.apply(points) - truth, axis=-1).mean())


def _check(points: Floats, truth: Floats) -> None:
    if points.shape != truth.shape or points.shape[-1] != 3 or not points.size:
        raise TaskError(f"bodies of shapes {points.shape} and {truth.shape} cannot be compared")
    for name, values in (("predicted", points), ("true", truth)):
        if not np.isfinite(values).all():
            raise TaskError(f"the {name} body holds NaN or infinite values")
