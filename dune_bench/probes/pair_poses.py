"""From matches of two views and metric depth to a metric relative pose.

Everything is in pixels of the original images: the matches, the cameras, the thresholds.  A pair
without a pose is a `Failure` with its reason; the caller counts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, scale_points, unproject
from dune_bench.geometry.poses import invert
from dune_bench.geometry.robust import AbsolutePose, Failure, RansacOptions, absolute_pose
from dune_bench.geometry.sampling import sample_map
from dune_bench.probes.base import ProtocolConstants
from dune_bench.probes.pair_matches import PairMatches

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class PoseConstants(ProtocolConstants):
    """The part of a protocol about poses; nested under `pose:` in a card.

    threshold_px: largest residual of an inlier, in pixels of the original image.
    """

    threshold_px: float = Field(gt=0)
    min_inliers: int = Field(ge=4)
    max_iterations: int = Field(ge=1)
    min_iterations: int = Field(ge=1)

    @property
    def reprojection_px(self) -> float:
        """How far a point may project from its pixel and still agree."""
        return self.threshold_px

    def options(self) -> RansacOptions:
        """The solver's options; its seed is fixed."""
        return RansacOptions(
            threshold_px=self.threshold_px,
            min_inliers=self.min_inliers,
            max_iterations=self.max_iterations,
            min_iterations=self.min_iterations,
        )


@dataclass(frozen=True)
class PairPose:
    """T_2_1: float64 (4, 4), points of camera 1 to camera 2, metres.  inliers: (m,) bool over the
    matches given."""

    T_2_1: Floats
    inliers: Bools


def lift(points: Floats, depth: NDArray[np.floating[Any]], camera: Camera) -> Floats:
    """Camera points (m, 3), metres, at pixel points (m, 2) of the original image.

    depth: (h, w) metres along z of the camera's whole field of view, at any size of the image's shape.
    camera: of the original image.  NaN where the depth at a point is invalid, or a neighbour that the
    interpolation needs is: depth is never blended with a hole.  Raises TaskError for points outside
    the camera's image (they are of another size) and for a depth map of another shape.
    """
    finite = np.isfinite(points).all(-1)
    if not camera.holds(points[finite]).all():
        raise TaskError(
            f"points outside an image of {camera.size[0]}×{camera.size[1]} (height × width): "
            "are they in pixels of another size?"
        )
    height, width = depth.shape
    if height * camera.size[1] != width * camera.size[0]:
        raise TaskError(f"depth of {height}×{width} is not of an image of {camera.size[0]}×{camera.size[1]}")
    known = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)
    return unproject(camera.K, points, sample_map(known, scale_points(points, camera.size, (height, width))))


def pose_by_pnp(
    points3d: Floats, points2d: Floats, camera: Camera, options: RansacOptions
) -> AbsolutePose | Failure:
    """Pose of a camera from points (m, 3) of another frame and their pixels (m, 2) in its image.

    Points that are not finite are left out.  T_cam_world maps that frame to the camera.  Raises
    TaskError for pixels outside the camera's image: they are of another size.
    """
    finite = np.isfinite(points2d).all(-1)
    if not camera.holds(points2d[finite]).all():
        raise TaskError(
            f"points outside an image of {camera.size[0]}×{camera.size[1]} (height × width): "
            "are they in pixels of another size?"
        )
    return absolute_pose(points3d, points2d, camera.K, options)


def relative_pose(
    matches: PairMatches,
    depths: tuple[Floats, Floats],
    cameras: tuple[Camera, Camera],
    constants: PoseConstants,
) -> PairPose | Failure:
    """Metric relative pose by PnP from both sides: the one with more inliers, 1 to 2 among equals.

    matches, cameras: of the original images.  depths: metres (h, w) of each view, at any size of its
    image's shape.  View 1's points are seen by camera 2, and view 2's by camera 1; which of the two
    depth maps the matches agree with better is not known beforehand.  Raises TaskError as `lift`.
    """
    options = constants.options()
    poses: list[PairPose] = []
    points = lift(matches.points1, depths[0], cameras[0])
    forward = pose_by_pnp(points, matches.points2, cameras[1], options)
    if not isinstance(forward, Failure):
        poses.append(PairPose(forward.T_cam_world, forward.inliers))
    points = lift(matches.points2, depths[1], cameras[1])
    backward = pose_by_pnp(points, matches.points1, cameras[0], options)
    if not isinstance(backward, Failure):
        poses.append(PairPose(invert(backward.T_cam_world), backward.inliers))
    elif not poses:
        return backward
    return max(poses, key=lambda found: int(found.inliers.sum()))  # the first among equals
