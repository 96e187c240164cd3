"""Map-free relocalization: the metric pose of each query of a scene relative to its one reference view.

Protocol `match-depth`: nothing is learned for the task.  Tokens of the reference and the query are
matched, the reference's points are lifted by the metric depth of the encoder's own depth head, and
PnP gives the query's pose; the confidence is the number of inliers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Lazy
from dune_bench.data.samples import RelocScene, Sample, View
from dune_bench.encoders.base import Features
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera
from dune_bench.geometry.robust import Failure
from dune_bench.probes.base import (
    Breakdown,
    FeatureSource,
    Head,
    Probe,
    ProbeContext,
    ProtocolConstants,
    Stats,
    Upstream,
)
from dune_bench.probes.depth import DepthProbe
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.pair_matches import MatchConstants, PairMatches, UnmatchableError, match_pair
from dune_bench.probes.pair_poses import PoseConstants, lift, pose_by_pnp
from dune_bench.probes.reloc_frames import bin_breakdowns, reduce_scenes, scene_rows
from dune_bench.probes.stream import grid_of

Floats = NDArray[np.float64]
DEPTH_ROLE = "depth_head"
MIN_MATCHES = 4
"""Below this no solver is asked: P3P takes three points and a fourth to choose."""


class Outcome(IntEnum):
    """How a query ended; stored with each query's statistics."""

    answered = 0
    bad_features = 1
    bad_camera = 2
    too_few_matches = 3
    no_pose = 4


class RelocMatchDepth(ProtocolConstants):
    """Constants of `reloc/*/match-depth`; docs/tasks/reloc.md explains each."""

    matching: MatchConstants
    lift: Literal["reference_depth"]
    pose: PoseConstants
    confidence: Literal["inliers"]


@dataclass(frozen=True)
class QueryPose:
    """Answer to one query.  T_query_ref: float64 (4, 4), points of the reference camera to the query's,
    metres; None unless the outcome is `answered`.  confidence: number of inliers.  matches: reciprocal
    ones.  inliers: the matches of the reference (1) and the query (2) that agree with the pose, if they
    are known."""

    T_query_ref: Floats | None
    confidence: float
    matches: int
    outcome: Outcome
    inliers: PairMatches | None = None


@dataclass(frozen=True)
class ScenePrediction:
    """Answers to a scene's queries, in their order.  width: the most queries of any scene of the split,
    so that statistics of all scenes have one shape."""

    queries: tuple[QueryPose, ...]
    width: int


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


class RelocProbe(Probe[RelocMatchDepth]):
    """Protocol `match-depth`: PnP on matches lifted by the reference's depth; nothing is fitted."""

    name = "reloc"
    sample_type = RelocScene
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {"match-depth": RelocMatchDepth}
    score_version = 1
    fit_version = 1

    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """An empty head: the protocol only uses the upstream depth head."""
        del features, samples, upstream, ctx
        return Head({})

    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[ScenePrediction]:
        """Poses of every scene's queries.  A query without a pose is an answer of its own, with its
        outcome.  Raises TaskError if `requires` names no depth head."""
        del head
        depth = _depth_head(upstream)
        width = most_queries(samples)
        for scene in samples:
            yield ScenePrediction(self._localize(features, scene, depth, ctx), width)

    def _localize(
        self, features: FeatureSource, scene: RelocScene, depth: _Depth, ctx: ProbeContext
    ) -> tuple[QueryPose, ...]:
        reference = _see(features, scene.reference)
        metres = depth.of(scene.reference, ctx)
        grid = grid_of(features)
        answers = []
        for view in scene.queries:
            query = _see(features, view)
            if reference.camera is None or query.camera is None:
                answers.append(_unanswered(Outcome.bad_camera))
            elif metres is None:
                answers.append(_unanswered(Outcome.bad_features))
            else:
                answers.append(self._pose(reference, reference.camera, query, query.camera, metres, grid))
        return tuple(answers)

    def _pose(
        self,
        reference: _Seen,
        camera1: Camera,
        query: _Seen,
        camera2: Camera,
        metres: Floats,
        grid: TokenGrid,
    ) -> QueryPose:
        """Matches in pixels of the original images, lifted in the reference, to a pose."""
        p = self.protocol
        try:
            matches = match_pair(
                reference.features, query.features, grid, grid, camera1.size, camera2.size, p.matching
            )
        except UnmatchableError:
            return _unanswered(Outcome.bad_features)
        if len(matches) < MIN_MATCHES:
            return _unanswered(Outcome.too_few_matches, len(matches))
        points3d = lift(matches.points1, metres, camera1)
        found = pose_by_pnp(points3d, matches.points2, camera2, p.pose.options())
        if isinstance(found, Failure):
            return _unanswered(Outcome.no_pose, len(matches))
        inliers = matches.at(found.inliers)
        return QueryPose(found.T_cam_world, float(len(inliers)), len(matches), Outcome.answered, inliers)

    def score(self, prediction: ScenePrediction, sample: Sample) -> dict[str, NDArray[Any]]:
        """Per query, padded to the width: see `scene_rows`; beside these `pose` (width, 7), the answer
        as `qw qx qy qz tx ty tz` (NaN without one), outcome, matches, and `failed`, which is true if no
        query of the scene has an answer.  Raises TaskError for another number of queries."""
        if not isinstance(sample, RelocScene):
            raise TaskError(f"reloc cannot score a {type(sample).__name__}")
        if len(prediction.queries) != len(sample.queries):
            raise TaskError(
                f"sample {sample.id}: {len(prediction.queries)} answers to {len(sample.queries)} queries"
            )
        answers = [(answer.T_query_ref, answer.confidence) for answer in prediction.queries]
        stats = scene_rows(sample, answers, prediction.width)
        outcome, matches = np.full((2, prediction.width), -1, np.int64)
        outcome[: len(answers)] = [int(answer.outcome) for answer in prediction.queries]
        matches[: len(answers)] = [answer.matches for answer in prediction.queries]
        failed = np.array(not stats["answered"].any())
        return {**stats, "outcome": outcome, "matches": matches, "failed": failed}

    def reduce(self, stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The `strict` Map-free metrics (`metrics.mapfree.reduce_frames`), all queries asked."""
        return reduce_scenes(stats, weights)

    def breakdowns(self, stats: Stats, ctx: ProbeContext) -> list[Breakdown]:
        """Each metric by difficulty of the query, the number of queries, and how they ended."""
        del ctx
        ended = {outcome.name: float((stats["outcome"] == outcome).sum()) for outcome in Outcome}
        return [*bin_breakdowns(stats), Breakdown("queries", "outcome", dict(ended))]


def fixed_pose(samples: Lazy[Any], T_query_ref: Floats | None = None) -> Iterator[ScenePrediction]:
    """The baseline that answers every query with one pose (4, 4), without looking; default: identity,
    the query stands where the reference stands.  `RelocProbe.score` takes these as predictions."""
    T = np.eye(4) if T_query_ref is None else T_query_ref
    width = most_queries(samples)
    for i in range(len(samples)):
        answer = QueryPose(T, 0.0, 0, Outcome.answered)
        yield ScenePrediction((answer,) * (len(samples.images(i)) - 1), width)


def most_queries(samples: Lazy[Any]) -> int:
    """Queries of the scene that has most; reads the index only."""
    return max((len(samples.images(i)) - 1 for i in range(len(samples))), default=0)


def stack(rows: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Statistics of several scenes, as `reduce` takes them."""
    listed = list(rows)
    return {name: np.stack([row[name] for row in listed]) for name in listed[0]}


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


def _unanswered(outcome: Outcome, matches: int = 0) -> QueryPose:
    return QueryPose(None, float("nan"), matches, outcome)
