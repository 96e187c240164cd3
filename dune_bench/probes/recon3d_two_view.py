"""Two-view reconstruction by a learned decoder: its point maps, and the pose they give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Lazy
from dune_bench.data.samples import PairSample
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, Size
from dune_bench.geometry.poses import invert, transform
from dune_bench.geometry.robust import Failure
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.pair_matches import PairMatches
from dune_bench.probes.pair_points import PointsAt, point_statistics
from dune_bench.probes.pair_poses import PairPose
from dune_bench.probes.recon3d_protocol import Recon3dTwoView
from dune_bench.probes.two_view_fit import predict_pairs
from dune_bench.probes.two_view_maps import PairMaps, ViewMaps, on_rays
from dune_bench.probes.two_view_matching import descriptor_matches
from dune_bench.probes.two_view_poses import pnp_pose

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TwoViewPrediction:
    """pose: the estimate, or why there is none.  points: of each view, in camera 1; None for view 2 where
    the protocol places it by the pose and there is none.  by_pose: whether it does.  matches: how many the
    pose was sought among; inliers: those that agree with it."""

    pose: PairPose | Failure
    points: tuple[PointsAt, PointsAt | None]
    by_pose: bool
    matches: int
    inliers: PairMatches | None

    def points_of(self, sample: PairSample) -> tuple[PointsAt, PointsAt | None]:
        """`points`; a decoder needs no more of the sample than it has seen."""
        del sample
        return self.points

    def statistics(self, sample: PairSample, per_side: int, clip_m: float) -> dict[str, NDArray[Any]]:
        """See `point_statistics`.  Without view 2's points there is no reconstruction, of neither view."""
        T_2_1 = None if isinstance(self.pose, Failure) else self.pose.T_2_1
        first, second = self.points
        points = None if second is None else (first, second)
        return point_statistics(T_2_1, points, sample, per_side, clip_m)


def predict_two_view(
    features: FeatureSource,
    samples: Lazy[PairSample],
    head: Head,
    protocol: Recon3dTwoView,
    ctx: ProbeContext,
) -> Iterator[TwoViewPrediction]:
    """A prediction per pair.  Raises TaskError naming a sample whose maps are not finite or whose camera
    cannot be, or if the decoder is of other features."""
    ids = [(first.id, second.id) for first, second in (samples.images(i) for i in range(len(samples)))]
    both = protocol.points == "calibrated"
    if both:
        ids = [pair for one, other in ids for pair in ((one, other), (other, one))]
    maps = predict_pairs(features, ids, head, ctx)
    for sample in samples:
        forward = next(maps)
        backward = next(maps) if both else None
        try:
            yield _predict(forward, backward, sample, protocol)
        except TaskError as error:
            raise TaskError(f"sample {sample.id}: {error}") from error


def _predict(
    forward: PairMaps, backward: PairMaps | None, sample: PairSample, protocol: Recon3dTwoView
) -> TwoViewPrediction:
    """forward: of (view 1, view 2).  backward: of (view 2, view 1), if the protocol asks for it."""
    if not forward.finite or not (backward is None or backward.finite):
        raise TaskError("the decoder's maps are not finite")
    views = (sample.view1, sample.view2)
    cameras = (Camera(views[0].K, views[0].image.size), Camera(views[1].K, views[1].image.size))
    if backward is not None:
        forward = PairMaps(on_rays(forward.view1, cameras[0]), forward.view2)
    matches = descriptor_matches(forward, cameras[0].size, cameras[1].size, protocol.matching)
    found = pnp_pose(matches, forward, cameras, protocol.pose)
    second: PointsAt | None = forward.view2.points_at
    if backward is not None:
        second = _placed(on_rays(backward.view1, cameras[1]), found)
    inliers = None if isinstance(found, Failure) else matches.at(found.inliers)
    points = (forward.view1.points_at, second)
    return TwoViewPrediction(found, points, backward is not None, len(matches), inliers)


def _placed(view2: ViewMaps, found: PairPose | Failure) -> PointsAt | None:
    """Points of maps in camera 2, by the pose in camera 1."""
    return None if isinstance(found, Failure) else partial(_moved, view2, invert(found.T_2_1))


def _moved(view: ViewMaps, T_1_2: Floats, pixels: Floats, size: Size) -> Floats:
    return transform(T_1_2, view.points_at(pixels, size))
