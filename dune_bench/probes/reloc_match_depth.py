"""Map-free relocalization without a learned decoder.

Tokens of the reference and the query are matched, the reference's points are lifted by the metric depth
of the encoder's own depth head, and PnP gives the query's pose; the confidence is the number of inliers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Lazy
from dune_bench.data.samples import RelocScene, View
from dune_bench.encoders.base import Features
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera
from dune_bench.geometry.robust import Failure
from dune_bench.probes.base import FeatureSource, Head, ProbeContext, ProtocolConstants, Upstream
from dune_bench.probes.depth import DepthProbe
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.pair_matches import MatchConstants, UnmatchableError, match_pair
from dune_bench.probes.pair_poses import PoseConstants, lift, pose_by_pnp
from dune_bench.probes.reloc_answers import MIN_MATCHES, Outcome, QueryPose, unanswered
from dune_bench.probes.stream import grid_of

Floats = NDArray[np.float64]
DEPTH_ROLE = "depth_head"


class RelocMatchDepth(ProtocolConstants):
    """Constants of `reloc/*/match-depth`; docs/tasks/reloc.md explains each."""

    matching: MatchConstants
    lift: Literal["reference_depth"]
    pose: PoseConstants
    confidence: Literal["inliers"]


@dataclass(frozen=True)
class _Seen:
    """One image as the matching takes it: its camera, None if its intrinsics cannot be of it."""

    features: Features
    camera: Camera | None


@dataclass(frozen=True)
class _Depth:
    """The upstream head, known to be one of depth."""

    probe: DepthProbe
    head: Head
    features: FeatureSource

    def of(self, view: View, ctx: ProbeContext) -> Floats | None:
        """Metres (H, W) at the image's size; None if the features it is read from are not finite."""
        if not bool(self.features.one(view.image.id).patch.isfinite().all()):
            return None
        (found,) = self.probe.depths(self.features, [view.image.id], self.head, ctx)
        return found.depth(view.image.size)


def localize_match_depth(
    features: FeatureSource,
    samples: Lazy[RelocScene],
    upstream: Mapping[str, Upstream],
    protocol: RelocMatchDepth,
    ctx: ProbeContext,
) -> Iterator[tuple[QueryPose, ...]]:
    """Answers to every scene's queries, scene by scene.  Raises TaskError if `requires` names no depth
    head."""
    depth = _depth_head(upstream)
    for scene in samples:
        yield _localize(features, scene, depth, protocol, ctx)


def _localize(
    features: FeatureSource, scene: RelocScene, depth: _Depth, protocol: RelocMatchDepth, ctx: ProbeContext
) -> tuple[QueryPose, ...]:
    reference = _see(features, scene.reference)
    metres = depth.of(scene.reference, ctx)
    grid = grid_of(features)
    answers = []
    for view in scene.queries:
        query = _see(features, view)
        if reference.camera is None or query.camera is None:
            answers.append(unanswered(Outcome.bad_camera))
        elif metres is None:
            answers.append(unanswered(Outcome.bad_features))
        else:
            answers.append(_pose(reference, reference.camera, query, query.camera, metres, grid, protocol))
    return tuple(answers)


def _pose(
    reference: _Seen,
    camera1: Camera,
    query: _Seen,
    camera2: Camera,
    metres: Floats,
    grid: TokenGrid,
    protocol: RelocMatchDepth,
) -> QueryPose:
    """Matches in pixels of the original images, lifted in the reference, to a pose."""
    try:
        matches = match_pair(
            reference.features, query.features, grid, grid, camera1.size, camera2.size, protocol.matching
        )
    except UnmatchableError:
        return unanswered(Outcome.bad_features)
    if len(matches) < MIN_MATCHES:
        return unanswered(Outcome.too_few_matches, len(matches))
    points3d = lift(matches.points1, metres, camera1)
    found = pose_by_pnp(points3d, matches.points2, camera2, protocol.pose.options())
    if isinstance(found, Failure):
        return unanswered(Outcome.no_pose, len(matches))
    inliers = matches.at(found.inliers)
    return QueryPose(found.T_cam_world, float(len(inliers)), len(matches), Outcome.answered, inliers)


def _depth_head(upstream: Mapping[str, Upstream]) -> _Depth:
    found = upstream.get(DEPTH_ROLE)
    if found is None or not isinstance(found.probe, DepthProbe):
        raise TaskError(f"reloc lifts matches by a depth head: name a depth task in requires.{DEPTH_ROLE}")
    return _Depth(found.probe, found.head, found.features)


def _see(features: FeatureSource, view: View) -> _Seen:
    try:
        camera = Camera(view.K, view.image.size)
    except TaskError:  # intrinsics of another size: an outcome, counted with the others
        camera = None
    return _Seen(features.one(view.image.id), camera)
