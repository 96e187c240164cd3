"""Two-view reconstruction without a learned decoder: matched tokens, lifted with metric depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Lazy
from dune_bench.data.samples import PairSample
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera
from dune_bench.geometry.robust import Failure
from dune_bench.probes.base import FeatureSource, ProbeContext, Upstream
from dune_bench.probes.depth import DepthPrediction, DepthProbe
from dune_bench.probes.pair_matches import PairMatches, UnmatchableError, match_pair
from dune_bench.probes.pair_points import PointsAt, pair_statistics, points_by_depth
from dune_bench.probes.pair_poses import PairPose, relative_pose
from dune_bench.probes.recon3d_protocol import Recon3dMatchDepth
from dune_bench.probes.stream import grid_of

DEPTH_HEAD = "depth_head"
"""Role of the upstream task whose head gives metric depth."""


@dataclass(frozen=True)
class PairPrediction:
    """pose: the estimate, or why there is none.  depth1, depth2: metric depth of each view.
    matches: how many the pose was sought among.  inliers: those that agree with the pose, if they are
    known."""

    pose: PairPose | Failure
    depth1: DepthPrediction
    depth2: DepthPrediction
    matches: int
    inliers: PairMatches | None = None

    @property
    def by_pose(self) -> bool:
        """Whether view 2's points stand in camera 1 by the pose."""
        return True

    def points_of(self, sample: PairSample) -> tuple[PointsAt, PointsAt | None]:
        """Of each view, in camera 1; None for view 2 without a pose."""
        first = points_by_depth(sample.view1, self.depth1.depth, np.eye(4))
        if isinstance(self.pose, Failure):
            return first, None
        return first, points_by_depth(sample.view2, self.depth2.depth, self.pose.T_2_1)

    def statistics(self, sample: PairSample, per_side: int, clip_m: float) -> dict[str, NDArray[Any]]:
        """See `pair_statistics`.  Raises TaskError naming a sample whose predicted depth is not finite."""
        for view, depth in ((sample.view1, self.depth1), (sample.view2, self.depth2)):
            if not np.isfinite(depth.log_depth).all():
                raise TaskError(f"sample {sample.id}: the predicted depth of view {view.id} is not finite")
        T_2_1 = None if isinstance(self.pose, Failure) else self.pose.T_2_1
        return pair_statistics(T_2_1, (self.depth1.depth, self.depth2.depth), sample, per_side, clip_m)


def predict_match_depth(
    features: FeatureSource,
    samples: Lazy[PairSample],
    upstream: Mapping[str, Upstream],
    protocol: Recon3dMatchDepth,
    ctx: ProbeContext,
) -> Iterator[PairPrediction]:
    """A pose (or a reported failure) and two depth maps per pair.  Raises TaskError naming an image
    whose depth is not finite, a sample whose camera cannot be, or without a depth head."""
    ids = [image.id for i in range(len(samples)) for image in samples.images(i)]
    depths = _depths(upstream, ids, ctx)
    for sample in samples:
        depth1, depth2 = next(depths), next(depths)
        yield _pair(features, sample, depth1, depth2, protocol)


def _pair(
    features: FeatureSource,
    sample: PairSample,
    depth1: DepthPrediction,
    depth2: DepthPrediction,
    protocol: Recon3dMatchDepth,
) -> PairPrediction:
    grid = grid_of(features)
    images = (sample.view1.image, sample.view2.image)
    try:
        cameras = (Camera(sample.view1.K, images[0].size), Camera(sample.view2.K, images[1].size))
        matches = match_pair(
            features.one(images[0].id),
            features.one(images[1].id),
            grid,
            grid,
            images[0].size,
            images[1].size,
            protocol.matching,
        )
        maps = (depth1.depth(images[0].size), depth2.depth(images[1].size))
        found = relative_pose(matches, maps, cameras, protocol.pose)
    except UnmatchableError as error:
        return PairPrediction(Failure(str(error)), depth1, depth2, 0)
    except TaskError as error:
        raise TaskError(f"sample {sample.id}: {error}") from error
    inliers = None if isinstance(found, Failure) else matches.at(found.inliers)
    return PairPrediction(found, depth1, depth2, len(matches), inliers)


def _depths(upstream: Mapping[str, Upstream], ids: list[str], ctx: ProbeContext) -> Iterator[DepthPrediction]:
    if DEPTH_HEAD not in upstream:
        raise TaskError(f"recon3d needs a depth head: write `requires: {{{DEPTH_HEAD}: …}}` in the card")
    source = upstream[DEPTH_HEAD]
    if not isinstance(source.probe, DepthProbe):
        raise TaskError(f"{DEPTH_HEAD} must be the head of a depth task, not of {source.probe.name}")
    return source.probe.depths(source.features, ids, source.head, ctx)
