"""Per-frame errors and aggregate exactly as the official Map-free program answers them.

Formulas from PROTOCOLS §5.2 and §12.  Where a sum of products is at stake the golden values pin the
rounding as well: they come from a BLAS that fuses multiply and add, so `_dot` and `_inverse` do that
here whatever the processor.  What stays with the machine is NumPy's arcsin (last digit of a rotation
error) and the fused matrix products (any x86 since 2013).  Quirks kept on purpose, and mended in
`mapfree`: the sequence in a frame's path is ignored, a missing scene counts all its poses and not the
evaluated fifth, no test that a virtual point is before the camera, the scene's last image size for
all frames, medians over answered frames only, NaN where an answer overflows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dune_bench.metrics.mapfree_format import Answer, Key
from dune_bench.metrics.mapfree_scenes import FrameCamera, SceneTruth, evaluated_frames

Floats = NDArray[np.float64]
DEGREES_PER_HALF_SINE = 114.59155902616465
VCRE_PX, TRANSLATION_M, ROTATION_DEG = 90.0, 0.25, 5.0


@dataclass(frozen=True)
class SceneErrors:
    """Answered frames, in order: metres, degrees, pixels, confidence; and the count of failures.
    The lists are None if the submission has no file for the scene."""

    failures: int
    trans_err: list[float] | None = None
    rot_err: list[float] | None = None
    reproj_err: list[float] | None = None
    confidence: list[float] | None = None


def virtual_points() -> Floats:
    """(4, 196) homogeneous points before the camera, metres: 7 × 4 × 7 over x, y, z, 0.3 apart."""
    y, x, z = np.meshgrid(
        (np.arange(4) - 1.5) * 0.3, (np.arange(7) - 3) * 0.3, np.arange(7) * 0.3 + 1.8, indexing="ij"
    )
    return np.stack([x.ravel(), y.ravel(), z.ravel(), np.ones(196)])


def scene_errors(truth: SceneTruth, answers: Mapping[Key, Answer] | None) -> SceneErrors:
    """Errors of one scene.  answers: parsed `mapfree-compat`; None if the file is missing."""
    if answers is None:
        return SceneErrors(len(truth.poses))
    evaluated = evaluated_frames(truth, "mapfree-compat")
    answered = [key for key in evaluated if key in answers]
    size = list(truth.cameras.values())[-1].size
    rows = [_frame_errors(truth.poses[key], answers[key], truth.cameras[key], size) for key in answered]
    trans, rot, reproj = ([row[i] for row in rows] for i in range(3))
    confidence = [answers[key].confidence for key in answered]
    return SceneErrors(len(evaluated) - len(answered), trans, rot, reproj, confidence)


def aggregate(scenes: Sequence[SceneErrors]) -> dict[str, float]:
    """The official output, by its own keys; fractions, metres, degrees, pixels.  Without any
    answered frame precision and AUC are 0 and the medians NaN."""
    answered = [s for s in scenes if s.trans_err]
    failures = sum(s.failures for s in scenes)

    def pooled(name: str) -> Floats:
        return np.array([value for s in answered for value in getattr(s, name)])

    def mean_median(name: str) -> float:
        return float(np.mean([np.median(getattr(s, name)) for s in answered])) if answered else float("nan")

    trans, rot, reproj, confidence = map(pooled, ("trans_err", "rot_err", "reproj_err", "confidence"))
    frames = len(trans) + failures
    pose_hits = (trans < TRANSLATION_M) & (rot < ROTATION_DEG)
    vcre_hits = reproj < VCRE_PX
    return {
        "Average Median Translation Error": mean_median("trans_err"),
        "Average Median Rotation Error": mean_median("rot_err"),
        "Average Median Reprojection Error": mean_median("reproj_err"),
        "Precision @ Pose Error < (25.0cm, 5deg)": _ratio(pose_hits.sum(), frames),
        "AUC @ Pose Error < (25.0cm, 5deg)": average_precision(confidence, pose_hits, failures),
        "Precision @ VCRE < 90px": _ratio(vcre_hits.sum(), frames),
        "AUC @ VCRE < 90px": average_precision(confidence, vcre_hits, failures),
        "Estimates for % of frames": _ratio(len(trans), frames),
    }


def average_precision(confidence: Floats, hits: NDArray[np.bool_], failures: int) -> float:
    """Area under precision over the fraction of frames answered, most confident first.

    Frames of one confidence enter together, so a constant confidence gives the precision.  The
    fraction is float32 and the sum runs from all frames down, as in the official program.
    """
    if len(hits) == 0:
        return 0.0
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    count = np.arange(1, len(ranked) + 1, dtype=np.float32)[last]
    precision = (np.cumsum(hits[order])[last] / count)[::-1]
    recall = np.append((count / np.float32(len(hits) + failures))[::-1], np.float32(0))
    return float(np.abs(np.sum(np.diff(recall) * precision)))


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")


def _frame_errors(
    truth: Answer, answer: Answer, camera: FrameCamera, size: tuple[int, int]
) -> tuple[float, float, float]:
    # An answer of 1e300 m overflows to inf or NaN, which then is what the program would say.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        q_true, c_true = _camera_to_world(truth)
        q_est, c_est = _camera_to_world(answer)
        return (
            _norm(c_est - c_true),
            _rotation_error(q_true, q_est),
            _reprojection_error(_matrix(q_true, c_true), _matrix(q_est, c_est), camera.K, size),
        )


def _camera_to_world(pose: Answer) -> tuple[Floats, Floats]:
    """Conjugate unit quaternion, and camera centre −Rᵀt by quaternion products."""
    q = np.array(pose.q)
    q = _conjugate(q / _norm(q))
    return q, -_multiply(q, _multiply(np.array([0.0, *pose.t]), _conjugate(q)))[1:]


def _rotation_error(q_true: Floats, q_est: Floats) -> float:
    unit_true = q_true / np.sqrt((q_true * q_true).sum())
    unit_est = q_est / np.sqrt((q_est * q_est).sum())
    sine = _norm(_multiply(unit_true, _conjugate(unit_est))[1:])
    return float(DEGREES_PER_HALF_SINE * np.arcsin(min(sine, 1.0)))


def _reprojection_error(
    T_true: Floats, T_est: Floats, K: NDArray[np.float32], size: tuple[int, int]
) -> float:
    """Mean pixel distance of the virtual points, seen by truth and by the estimate, both clamped
    into the image.  T: camera-to-world."""
    points = virtual_points()
    moved = _inverse(T_est) @ T_true @ points
    limits = np.array([[size[1]], [size[0]]])
    pixels = []
    for camera_points in (points, moved):
        homogeneous = K.astype(np.float64) @ camera_points[:3]
        pixels.append(np.clip(homogeneous[:2] / homogeneous[2:], 0, limits))
    return float(np.mean(np.sqrt(((pixels[0] - pixels[1]) ** 2).sum(0))))


def _conjugate(q: Floats) -> Floats:
    return q * (1.0, -1.0, -1.0, -1.0)


def _multiply(a: Floats, b: Floats) -> Floats:
    """Hamilton product of two quaternions (4,)."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return np.array(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by + ay * bw + az * bx - ax * bz,
            aw * bz + az * bw + ax * by - ay * bx,
        ]
    )


def _matrix(q: Floats, centre: Floats) -> Floats:
    """Camera-to-world (4, 4)."""
    w, x, y, z = q
    double = 2.0 / (w * w + x * x + y * y + z * z)
    xs, ys, zs = x * double, y * double, z * double
    return np.array(
        [
            [1.0 - (y * ys + z * zs), x * ys - w * zs, x * zs + w * ys, centre[0]],
            [x * ys + w * zs, 1.0 - (x * xs + z * zs), y * zs - w * xs, centre[1]],
            [x * zs - w * ys, y * zs + w * xs, 1.0 - (x * xs + y * ys), centre[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def _fused(a: float, b: float, c: float) -> float:
    """a·b + c, rounded once; Python has it from 3.13 on."""
    try:
        return float(Fraction(a) * Fraction(b) + Fraction(c))
    except (OverflowError, ValueError):  # beyond the floats, or not finite
        return a * b + c


def _dot(a: Sequence[float], b: Sequence[float], start: float = 0.0) -> float:
    for x, y in zip(a, b, strict=True):
        start = _fused(x, y, start)
    return start


def _norm(vector: Floats) -> float:
    values = vector.tolist()
    return float(np.sqrt(_dot(values, values)))


def _inverse(T: Floats) -> Floats:
    """Inverse (4, 4) by LU with partial pivoting, in the order and rounding of LAPACK's gesv."""
    n = 4
    A = [[float(v) for v in row] for row in T]
    rows = list(range(n))
    for j in range(n):
        for i in range(n):
            known = min(i, j)
            A[i][j] -= _dot(A[i][:known], [A[k][j] for k in range(known)])
        pivot = max(range(j, n), key=lambda i: abs(A[i][j]))
        A[j], A[pivot], rows[j], rows[pivot] = A[pivot], A[j], rows[pivot], rows[j]
        reciprocal = 1.0 / A[j][j]
        for i in range(j + 1, n):
            A[i][j] *= reciprocal
    inverse = np.empty((n, n))
    for column in range(n):
        x = [float(row == column) for row in rows]
        for i in range(n):
            x[i] = _dot([-v for v in A[i][:i]], x[:i], x[i])
        for i in reversed(range(n)):
            after = range(n - 1, i, -1)
            x[i] = _dot([-A[i][k] for k in after], [x[k] for k in after], x[i]) * (1.0 / A[i][i])
        inverse[:, column] = x
    return inverse
