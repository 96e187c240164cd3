"""Map-free relocalisation metrics: the strict form, and scoring of a submission in either form.

`mapfree-compat` is in its own module.  `strict` mends its quirks (PROTOCOLS §9, row 4): frames are
found by their whole path; a missing file counts each *evaluated* frame once; a virtual point that the
estimate does not see before it costs the image's diagonal; each frame has its own K and size; a frame
without an answer counts in the medians as well, at a fixed penalty that caps every answer's error, so
that abstaining never beats answering.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import project
from dune_bench.geometry.poses import geodesic_deg, invert, pose, rotation_from_quaternion, transform
from dune_bench.metrics.mapfree_compat import SceneErrors, aggregate, scene_errors, virtual_points
from dune_bench.metrics.mapfree_format import Answer, Issues, Key, Mode, parse_poses, read_submission
from dune_bench.metrics.mapfree_scenes import SceneTruth, evaluated_frames, read_scenes
from dune_bench.metrics.weighted import weighted_mean

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FAILURE_TRANS_M, FAILURE_ROT_DEG = 10.0, 180.0
"""What a frame without an answer counts in the medians, and the most an answer can: further than any
query from its reference, and the largest rotation.  For VCRE it is the image's diagonal."""

POSE_THRESHOLDS = {"25cm_5deg": (0.25, 5.0), "50cm_10deg": (0.5, 10.0)}
VCRE_PX, VCRE_DIAGONALS = 90.0, 0.1


@dataclass(frozen=True)
class FrameErrors:
    """Errors of n evaluated frames, one row each.

    trans_m, rot_deg, vcre_px, diagonal_px: float64 (n,); errors of an unanswered frame are the
    penalties.  confidence: float64 (n,), NaN if unanswered.  answered: bool (n,).  scene: int64 (n,).
    """

    trans_m: Floats
    rot_deg: Floats
    vcre_px: Floats
    diagonal_px: Floats
    confidence: Floats
    answered: Bools
    scene: NDArray[np.int64]

    @staticmethod
    def stack(parts: Iterable[FrameErrors]) -> FrameErrors:
        """The rows of several, in order."""
        rows = list(parts)
        joined = {f.name: np.concatenate([getattr(p, f.name) for p in rows]) for f in fields(FrameErrors)}
        return FrameErrors(**joined)


def vcre_px(T_est_ref: Floats, T_true_ref: Floats, K: Floats, size: tuple[int, int]) -> float:
    """Virtual correspondence reprojection error of one frame, pixels (Arnold et al. 2022), strict.

    T_est_ref, T_true_ref: (4, 4) reference (world) → camera, estimated and true.  The mean over 196
    points before the true camera of the distance between their pixels in the two cameras, clamped
    into the image; a point at or behind the estimated camera counts the image's diagonal.
    """
    points = virtual_points()[:3].T
    limits = (float(size[1]), float(size[0]))
    true = np.clip(project(K, points)[0], 0, limits)
    with np.errstate(over="ignore", invalid="ignore"):
        estimated = np.clip(project(K, transform(T_est_ref @ invert(T_true_ref), points))[0], 0, limits)
    distance = np.linalg.norm(true - estimated, axis=1)
    return float(np.where(np.isfinite(distance), distance, np.hypot(*size)).mean())


def frame_errors(
    T_est_ref: Floats | None,
    T_true_ref: Floats,
    K: Floats,
    size: tuple[int, int],
    confidence: float = 0.0,
    scene: int = 0,
) -> FrameErrors:
    """One row.  T_est_ref: (4, 4), None or not finite: no answer.  size: (height, width) of the image
    that K is of.  Raises TaskError for an answer whose confidence is NaN: it has no rank."""
    answered = T_est_ref is not None and bool(np.isfinite(T_est_ref).all())
    if answered and np.isnan(confidence):
        raise TaskError("the confidence of an answer is NaN")
    diagonal = float(np.hypot(*size))
    trans, rot, vcre = FAILURE_TRANS_M, FAILURE_ROT_DEG, diagonal
    if T_est_ref is not None and answered:
        with np.errstate(over="ignore", invalid="ignore"):
            apart = np.linalg.norm(invert(T_est_ref)[:3, 3] - invert(T_true_ref)[:3, 3])
        trans = float(np.fmin(apart, FAILURE_TRANS_M))
        rot = float(geodesic_deg(T_est_ref[:3, :3], T_true_ref[:3, :3]))
        vcre = vcre_px(T_est_ref, T_true_ref, K, size)
    return FrameErrors(
        np.array([trans]),
        np.array([rot]),
        np.array([vcre]),
        np.array([diagonal]),
        np.array([confidence if answered else np.nan]),
        np.array([answered]),
        np.array([scene]),
    )


def reduce_frames(errors: FrameErrors, weights: Floats) -> dict[str, Floats]:
    """Strict metrics under R weightings of the frames.

    weights: (R, n) multiplicities, the same for the frames of a scene (the cluster).  Returns (R,)
    arrays, NaN where no frame has weight: `precision@T`, `precision_vcre@T` and `answered` in percent
    of all frames; `auc@T`, `auc_vcre@T` in [0, 1], the area of precision over the fraction of frames
    answered, most confident first, ties together; `median_*`, weighted means over scenes of their
    medians.  Raises TaskError for weights that differ within a scene.
    """
    hits = {
        f"@{name}": errors.answered & (errors.trans_m < metres) & (errors.rot_deg < degrees)
        for name, (metres, degrees) in POSE_THRESHOLDS.items()
    }
    hits[f"_vcre@{VCRE_PX:g}px"] = errors.answered & (errors.vcre_px < VCRE_PX)
    limit = VCRE_DIAGONALS * errors.diagonal_px
    hits[f"_vcre@{VCRE_DIAGONALS:g}diag"] = errors.answered & (errors.vcre_px < limit)
    metrics = {"answered": 100.0 * weighted_mean(errors.answered, weights)}
    for name, hit in hits.items():
        metrics[f"precision{name}"] = 100.0 * weighted_mean(hit, weights)
        metrics[f"auc{name}"] = average_precision(errors.confidence, hit, errors.answered, weights)
    for name in ("trans_m", "rot_deg", "vcre_px"):
        metrics[f"median_{name}"] = _mean_scene_median(getattr(errors, name), errors.scene, weights)
    return metrics


def average_precision(confidence: Floats, hits: Bools, answered: Bools, weights: Floats) -> Floats:
    """(R,) weighted area of precision over the fraction of all frames answered.

    confidence: (n,), read where answered.  Σ over distinct confidences c, falling, of (weight of the
    frames of confidence c / weight of all frames) · precision among the frames of confidence ≥ c.
    Constant confidence gives the precision; unanswered frames add nothing.
    """
    rows = np.flatnonzero(answered)
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    total = weights.sum(1)
    nothing = np.where(total > 0, 0.0, np.nan)
    if len(rows) == 0:
        return nothing
    ranked = confidence[rows]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    seen = np.cumsum(weights[:, rows], 1)[:, last]
    right = np.cumsum(weights[:, rows] * hits[rows], 1)[:, last]
    precision = np.divide(right, seen, out=np.zeros_like(right), where=seen > 0)
    area = (np.diff(seen, axis=1, prepend=0.0) * precision).sum(1)
    return np.asarray(np.divide(area, total, out=nothing, where=total > 0))


def _mean_scene_median(values: Floats, scene: NDArray[np.int64], weights: Floats) -> Floats:
    names, first, index = np.unique(scene, return_index=True, return_inverse=True)
    of_scene = weights[:, first]
    if not (weights == of_scene[:, index]).all():
        raise TaskError("frames of one scene have different weights: resample whole scenes")
    medians = np.array([np.median(values[scene == name]) for name in names])
    return weighted_mean(medians, of_scene)


@dataclass(frozen=True)
class RelocScore:
    """metrics: by id.  issues: what was wrong with the submission.  frames: strict rows, with
    `scenes` the names that `FrameErrors.scene` numbers; compat: errors per scene instead."""

    mode: Mode
    metrics: dict[str, float]
    issues: Issues
    scenes: tuple[str, ...]
    frames: FrameErrors | None = None
    per_scene: dict[str, SceneErrors] | None = None


def score_reloc(submission: Path, data_dir: Path, mode: Mode = "strict", every: int = 5) -> RelocScore:
    """Scores a submission zip against the truth of a directory of scenes.

    every: of the queries, in file order, each how-many-th is evaluated; the official five is the
    only one that `mapfree-compat` knows.  Raises UsageError for an archive that cannot be read,
    UnavailableError without truth, TaskError for damaged truth.
    """
    if mode == "mapfree-compat" and every != 5:
        raise TaskError("mapfree-compat evaluates every fifth frame")
    issues = Issues()
    files = read_submission(submission, issues)
    truths = read_scenes(data_dir, mode)
    names = tuple(truth.name for truth in truths)
    for extra in sorted(set(files) - set(names)):
        issues.add(f"pose_{extra}.txt", f"no scene {extra!r} here: not scored")
    parsed: dict[str, dict[Key, Answer]] = {}
    for name in names:
        file = f"pose_{name}.txt"
        if name in files:
            parsed[name] = parse_poses(files[name], file, mode, issues)
        else:
            issues.add(file, "missing: every frame of the scene counts as a failure")
    if mode == "mapfree-compat":
        per_scene = {truth.name: scene_errors(truth, parsed.get(truth.name)) for truth in truths}
        return RelocScore(mode, aggregate(list(per_scene.values())), issues, names, None, per_scene)
    rows = [
        row
        for i, truth in enumerate(truths)
        for row in _strict_rows(truth, parsed.get(truth.name, {}), i, every, issues)
    ]
    if not rows:
        raise TaskError(f"{data_dir}: no query poses; the truth of the test split is not public")
    frames = FrameErrors.stack(rows)
    metrics = reduce_frames(frames, np.ones((1, len(frames.scene))))
    return RelocScore(mode, {name: float(v[0]) for name, v in metrics.items()}, issues, names, frames)


def _strict_rows(
    truth: SceneTruth, answers: Mapping[Key, Answer], scene: int, every: int, issues: Issues
) -> list[FrameErrors]:
    for key in answers:
        if key not in truth.poses:
            issues.add(f"pose_{truth.name}.txt", f"no frame {str(key)[:60]!r} in the scene: not scored")
    rows = []
    for key in evaluated_frames(truth, "strict", every):
        camera = truth.cameras[key]
        estimate = _matrix(answers[key]) if key in answers else None
        true = _matrix(truth.poses[key])
        confidence = answers[key].confidence if key in answers else 0.0
        rows.append(frame_errors(estimate, true, camera.K.astype(np.float64), camera.size, confidence, scene))
    return rows


def _matrix(answer: Answer) -> Floats:
    """World-to-camera (4, 4)."""
    return pose(rotation_from_quaternion(np.array(answer.q)), np.array(answer.t))
