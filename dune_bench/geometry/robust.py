"""Robust camera pose from matches with outliers, by PoseLib's LO-RANSAC: one function a problem.

A sample without a solution is a `Failure` with its reason, not an exception and not a guess: the
caller counts it.  The same arguments give the same answer: the sampler is seeded per call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import poselib
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, Size, check_intrinsics, rays, scale_points
from dune_bench.geometry.poses import direction_deg, pose

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
LINE_TOLERANCE = 1e-4
"""Points whose second principal spread is below this share of the first lie on a line."""


@dataclass(frozen=True)
class Failure:
    """Why a sample has no pose."""

    reason: str


@dataclass(frozen=True)
class AbsolutePose:
    """T_cam_world: float64 (4, 4).  inliers: (n,) bool over the matches given."""

    T_cam_world: Floats
    inliers: Bools


@dataclass(frozen=True)
class RelativePose:
    """R, direction: rotation (3, 3) and unit translation (3,) of T_2_1, points of camera 1 to
    camera 2; the length of the translation cannot be seen.  direction is NaN if the matches show
    no parallax (pure rotation).  inliers: (n,) bool over the matches given."""

    R: Floats
    direction: Floats
    inliers: Bools


@dataclass(frozen=True)
class RansacOptions:
    """threshold_px: largest residual of an inlier, in pixels of the points given (reprojection, or
    Sampson distance to the epipolar line).  A confidence of 1 − `miss` ends the search early."""

    threshold_px: float = 5.0
    min_inliers: int = 6
    max_iterations: int = 10_000
    min_iterations: int = 100
    miss: float = 1e-4
    seed: int = 0

    def as_poselib(self, residual: str) -> dict[str, Any]:
        return {
            residual: self.threshold_px,
            "max_iterations": self.max_iterations,
            "min_iterations": self.min_iterations,
            "success_prob": 1.0 - self.miss,
            "seed": self.seed,
        }


DEFAULTS = RansacOptions()


def absolute_pose(
    points3d: Floats, points2d: Floats, K: Floats, options: RansacOptions = DEFAULTS
) -> AbsolutePose | Failure:
    """Camera pose from points in the world and their pixels (PnP: P3P, LO-RANSAC, refinement).

    points3d: (n, 3) metres, world.  points2d: (n, 2) pixels of the image that K (3, 3) is of.
    Matches that are not finite are left out.  Failure: fewer than four matches, too few inliers, or
    inliers on one line in space, about which the camera may turn.  Raises TaskError for shapes that
    do not belong together, or a K that is no pinhole camera's.
    """
    _check_matches(points3d, points2d, 3)
    used = np.asarray(np.isfinite(points3d).all(-1) & np.isfinite(points2d).all(-1))
    if used.sum() < 4:
        return Failure(f"{used.sum()} matches: a pose needs 4")
    world = points3d[used]
    # About the median, so that a scene far from the world's origin loses no digits.
    centre = np.median(world, axis=0)
    found, info = poselib.estimate_absolute_pose(
        points2d[used], world - centre, _camera(K), options.as_poselib("max_reproj_error")
    )
    good = np.asarray(info["inliers"], bool)
    if good.sum() < max(options.min_inliers, 4):
        return Failure(f"{good.sum()} inliers of {used.sum()} matches: {max(options.min_inliers, 4)} needed")
    if _on_a_line(world[good]):
        return Failure("the inliers lie on one line in space")
    R, t = np.asarray(found.R, np.float64), np.asarray(found.t, np.float64)
    T = pose(R, t - R @ centre)
    if not np.isfinite(T).all():
        return Failure("the solver found no finite pose")
    return AbsolutePose(T, _spread(good, used))


def localize(
    points3d: Floats, points2d: Floats, size: Size, camera: Camera, options: RansacOptions = DEFAULTS
) -> AbsolutePose | Failure:
    """`absolute_pose` from pixels at another size than the camera's: the one way from matches at
    network size to a pose.

    points2d: (n, 2) pixels of the query at `size` (height, width), in which the network saw it.
    camera: of the original image; options.threshold_px is in its pixels.  Raises TaskError for points
    outside `size`: they are of another one.
    """
    finite = np.isfinite(points2d).all(-1)
    if not ((points2d[finite] >= 0) & (points2d[finite] <= (size[1], size[0]))).all():
        raise TaskError(f"points outside an image of {size[0]}×{size[1]} (height × width)")
    return absolute_pose(points3d, scale_points(points2d, size, camera.size), camera.K, options)


def essential_pose(
    points1: Floats, points2: Floats, K1: Floats, K2: Floats, options: RansacOptions = DEFAULTS
) -> RelativePose | Failure:
    """Relative pose from pixel matches (essential matrix: 5-point, LO-RANSAC, refinement, cheirality).

    points1, points2: (n, 2) pixels of the images that K1, K2 (3, 3) are of.  Matches that are not
    finite are left out.  Failure: fewer than five matches, or too few inliers.  Raises TaskError
    for shapes that do not belong together, or a K that is no pinhole camera's.
    """
    _check_matches(points1, points2, 2)
    used = np.asarray(np.isfinite(points1).all(-1) & np.isfinite(points2).all(-1))
    if used.sum() < 5:
        return Failure(f"{used.sum()} matches: an essential matrix needs 5")
    found, info = poselib.estimate_relative_pose(
        points1[used], points2[used], _camera(K1), _camera(K2), options.as_poselib("max_epipolar_error")
    )
    good = np.asarray(info["inliers"], bool)
    if good.sum() < max(options.min_inliers, 5):
        return Failure(f"{good.sum()} inliers of {used.sum()} matches: {max(options.min_inliers, 5)} needed")
    R, t = np.asarray(found.R, np.float64), np.asarray(found.t, np.float64)
    length = np.linalg.norm(t)
    if not (np.isfinite(R).all() and np.isfinite(length) and length > 0):
        return Failure("the solver found no finite pose")
    turned = rays(K1, points1[used][good]) @ R.T
    parallax = direction_deg(turned, rays(K2, points2[used][good]))
    # What one pixel of residual subtends: below that, any direction explains the matches.
    visible = np.degrees(options.threshold_px / min(K1[0, 0], K1[1, 1], K2[0, 0], K2[1, 1]))
    direction = t / length if np.median(parallax) > visible else np.full(3, np.nan)
    return RelativePose(R, direction, _spread(good, used))


def translation_length(
    R: Floats, direction: Floats, points1: Floats, points2: Floats, tolerance_m: float = 0.1
) -> tuple[float, int] | Failure:
    """Length of the translation of T_2_1 that most matches lifted by metric depth agree on.

    R (3, 3), direction (3,): of `essential_pose`.  points1, points2: (n, 3) metres, the matches in
    camera 1 and camera 2; non-finite ones do not vote.  Each match votes s = direction · (x2 − R x1);
    the winner is the vote with most others closer than `tolerance_m` (PROTOCOLS §5.3).  Returns
    (metres, votes); the first of equals in ascending order wins.
    """
    votes = np.sort(((points2 - points1 @ R.T) * direction).sum(-1))
    votes = votes[np.isfinite(votes)]
    if votes.size == 0:
        return Failure("no match with metric depth in both views, or no direction")
    near = np.searchsorted(votes, votes + tolerance_m, "left")
    near -= np.searchsorted(votes, votes - tolerance_m, "right")
    best = int(np.argmax(near))
    return float(votes[best]), int(near[best])


def _check_matches(first: Floats, second: Floats, width: int) -> None:
    if first.ndim != 2 or first.shape[1] != width or second.shape != (len(first), 2):
        raise TaskError(f"matches of shapes {first.shape} and {second.shape} do not belong together")


def _camera(K: Floats) -> dict[str, Any]:
    check_intrinsics(K)
    if K.shape != (3, 3) or K[0, 1] != 0:
        raise TaskError("the pose solvers take one K (3, 3) without skew")
    params = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    size = {"width": int(2 * K[0, 2]) + 1, "height": int(2 * K[1, 2]) + 1}  # asked for, not used
    return {"model": "PINHOLE", "params": [float(p) for p in params], **size}


def _on_a_line(points: Floats) -> bool:
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
    return bool(spread[1] <= LINE_TOLERANCE * spread[0])


def _spread(good: Bools, used: Bools) -> Bools:
    """Flags over the used matches, as flags over all."""
    inliers = np.zeros(len(used), bool)
    inliers[np.flatnonzero(used)[good]] = True
    return inliers
