"""From the point maps of a two-view decoder to the metric pose of camera 2 (PROTOCOLS §5.3).

Three ways, with the cameras known: the essential matrix of the matches with its length from metric
depth; PnP of view 1's points at the matches; PnP of view 2's own points, without any match.  All in
pixels of the original images.  A pair without a pose is a `Failure`; the confidence of a pose is
its number of inliers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dune_bench.geometry.cameras import Camera, unproject
from dune_bench.geometry.poses import pose
from dune_bench.geometry.robust import AbsolutePose, Failure, essential_pose, translation_length
from dune_bench.probes.pair_matches import PairMatches
from dune_bench.probes.pair_poses import PairPose, PoseConstants, pose_by_pnp
from dune_bench.probes.two_view_maps import PairMaps, ViewMaps

Floats = NDArray[np.float64]


class DirectConstants(PoseConstants):
    """PnP of view 2's own points.

    max_cells: most cells that are asked, on an even grid.  confident_share: the most confident share
    of these is used; a share and no level, because the level is each training's own.
    """

    max_cells: int = Field(ge=4)
    confident_share: float = Field(gt=0, le=1)


class EssentialConstants(PoseConstants):
    """Essential matrix (threshold_px: Sampson distance), and the length of its translation.

    scale_tolerance_m: lengths closer than this agree.  view2: how camera 2 is placed for its depth.
    """

    scale_tolerance_m: float = Field(gt=0)
    view2: DirectConstants

    @property
    def reprojection_px(self) -> float:
        """That of view 2's pose: Sampson distances are to a line, not to a place on it."""
        return self.view2.reprojection_px


def pnp_pose(
    matches: PairMatches, maps: PairMaps, cameras: tuple[Camera, Camera], constants: PoseConstants
) -> PairPose | Failure:
    """PnP of view 1's points at the matches and the matches' pixels in view 2.  inliers: of the
    matches.  Raises TaskError for matches outside camera 2's image."""
    points = maps.view1.points_at(matches.points1, cameras[0].size)
    return _pair_pose(pose_by_pnp(points, matches.points2, cameras[1], constants.options()))


def direct_pose(maps: PairMaps, camera2: Camera, constants: DirectConstants) -> PairPose | Failure:
    """PnP of view 2's points, which the decoder gives in camera 1, and their own pixels.

    inliers: of the cells that were used, `direct_cells`.
    """
    cells = direct_cells(maps.view2, constants)
    points = maps.view2.points.reshape(-1, 3)[cells].astype(np.float64)
    pixels = maps.view2.centres(camera2.size)[cells]
    return _pair_pose(pose_by_pnp(points, pixels, camera2, constants.options()))


def direct_cells(view: ViewMaps, constants: DirectConstants) -> NDArray[np.int64]:
    """Row-major indices of the confident cells on the finest even grid of at most `max_cells`."""
    stride = 1
    while len(cells := view.every(stride)) > constants.max_cells:
        stride += 1
    confidence = view.confidence.ravel()[cells]
    level = np.quantile(confidence, 1.0 - constants.confident_share, method="lower")
    return cells[confidence >= level]


def metric_essential_pose(
    matches: PairMatches, maps: PairMaps, cameras: tuple[Camera, Camera], constants: EssentialConstants
) -> PairPose | Failure:
    """Rotation and direction from the essential matrix of the matches, length from both views' depth.

    View 2's points are in camera 1, so its depth takes a camera 2: that of `direct_pose`.  Each
    inlier of the essential matrix, lifted in both views, votes for a length as in
    `translation_length`; the answer is the median of the votes that agree with the winner.  inliers:
    the matches whose votes these are.  Failure: no essential matrix, no parallax and hence no
    direction, no pose of view 2's points, or no depth at an inlier.
    """
    found = essential_pose(matches.points1, matches.points2, cameras[0].K, cameras[1].K, constants.options())
    if isinstance(found, Failure):
        return found
    if not np.isfinite(found.direction).all():
        return Failure("the matches show no parallax: the translation has no direction")
    second = direct_pose(maps, cameras[1], constants.view2)
    if isinstance(second, Failure):
        return Failure(f"no depth of view 2: {second.reason}")
    depth1 = maps.view1.depth_at(matches.points1, cameras[0].size, np.eye(4))
    depth2 = maps.view2.depth_at(matches.points2, cameras[1].size, second.T_2_1)
    depth1[~found.inliers] = np.nan  # outliers of the essential matrix do not vote
    points1 = unproject(cameras[0].K, matches.points1, depth1)
    points2 = unproject(cameras[1].K, matches.points2, depth2)
    winner = translation_length(found.R, found.direction, points1, points2, constants.scale_tolerance_m)
    if isinstance(winner, Failure):
        return winner
    # The winner is the first vote with everyone near it: where all agree, the least of them.
    votes = (points2 - points1 @ found.R.T) @ found.direction
    agreeing = np.abs(votes - winner[0]) < constants.scale_tolerance_m
    return PairPose(pose(found.R, np.median(votes[agreeing]) * found.direction), agreeing)


def _pair_pose(found: AbsolutePose | Failure) -> PairPose | Failure:
    """The pose of camera 2 in the frame of camera 1 is the pair's."""
    return found if isinstance(found, Failure) else PairPose(found.T_cam_world, found.inliers)
