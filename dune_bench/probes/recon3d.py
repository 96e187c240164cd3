"""Two-view reconstruction without a learned decoder: matched tokens, lifted with metric depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from dune_bench.data.base import Lazy
from dune_bench.data.samples import PairSample, Sample
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera
from dune_bench.geometry.robust import Failure
from dune_bench.metrics.pose import reduce_pairs
from dune_bench.metrics.reconstruction import reduce_points
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
from dune_bench.probes.depth import DepthPrediction, DepthProbe
from dune_bench.probes.pair_matches import MatchConstants, PairMatches, UnmatchableError, match_pair
from dune_bench.probes.pair_points import pair_statistics
from dune_bench.probes.pair_poses import PairPose, PoseConstants, relative_pose
from dune_bench.probes.stream import grid_of

DEPTH_HEAD = "depth_head"
"""Role of the upstream task whose head gives metric depth."""
BINNED = ("inliers@25cm", "pointmap_m", "rra@15deg", "maa@30deg")
"""Metrics also given by covisibility."""


class Recon3dMatchDepth(ProtocolConstants):
    """Constants of `recon3d/*/match-depth`; docs/tasks/recon3d.md explains each."""

    matching: MatchConstants
    pose: PoseConstants
    points_per_side: int = Field(ge=2)
    clip_m: float = Field(gt=0)
    covisible_edges: tuple[int, ...] = Field(min_length=2)
    """Percent, ascending; a bin holds its lower edge, the last one also its upper."""

    @field_validator("covisible_edges")
    @classmethod
    def _ascending(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if list(edges) != sorted(set(edges)) or edges[0] < 0 or edges[-1] > 100:
            raise ValueError("write the edges in ascending order, in percent from 0 to 100")
        return edges


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


class Recon3dProbe(Probe[Recon3dMatchDepth]):
    """Protocol `match-depth`: nothing is fitted here; the depth head comes from upstream."""

    name = "recon3d"
    sample_type = PairSample
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {"match-depth": Recon3dMatchDepth}
    score_version = 1
    fit_version = 1

    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """Nothing to fit: an empty head."""
        return Head({})

    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[PairPrediction]:
        """A pose (or a reported failure) and two depth maps per pair.  Raises TaskError naming an image
        whose depth is not finite, a sample whose camera cannot be, or without a depth head."""
        ids = [image.id for i in range(len(samples)) for image in samples.images(i)]
        depths = _depths(upstream, ids, ctx)
        for sample in samples:
            depth1, depth2 = next(depths), next(depths)
            yield self._pair(features, sample, depth1, depth2)

    def _pair(
        self, features: FeatureSource, sample: PairSample, depth1: DepthPrediction, depth2: DepthPrediction
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
                self.protocol.matching,
            )
            maps = (depth1.depth(images[0].size), depth2.depth(images[1].size))
            found = relative_pose(matches, maps, cameras, self.protocol.pose)
        except UnmatchableError as error:
            return PairPrediction(Failure(str(error)), depth1, depth2, 0)
        except TaskError as error:
            raise TaskError(f"sample {sample.id}: {error}") from error
        inliers = None if isinstance(found, Failure) else matches.at(found.inliers)
        return PairPrediction(found, depth1, depth2, len(matches), inliers)

    def score(self, prediction: PairPrediction, sample: Sample) -> dict[str, NDArray[Any]]:
        """Per pair: see `pair_statistics`; covisible (0–1), matches, inliers (0 without a pose).  A pair
        without a pose has `failed` true, no inlier points, 180° and `clip_m` errors.  Raises TaskError
        naming a sample whose predicted depth is not finite."""
        if not isinstance(sample, PairSample):
            raise TaskError(f"recon3d cannot score a {type(sample).__name__}")
        for view, depth in ((sample.view1, prediction.depth1), (sample.view2, prediction.depth2)):
            if not np.isfinite(depth.log_depth).all():
                raise TaskError(f"sample {sample.id}: the predicted depth of view {view.id} is not finite")
        p, pose = self.protocol, prediction.pose
        T_2_1, inliers = (None, 0) if isinstance(pose, Failure) else (pose.T_2_1, int(pose.inliers.sum()))
        depths = (prediction.depth1.depth, prediction.depth2.depth)
        stats = pair_statistics(T_2_1, depths, sample, p.points_per_side, p.clip_m)
        return stats | {
            "covisible": np.asarray(sample.covisible, np.float64),
            "matches": np.asarray(prediction.matches, np.int64),
            "inliers": np.asarray(inliers, np.int64),
        }

    def reduce(self, stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Means over pairs, of all and by covisibility: `maa@30deg_covis15_35` is of the pairs with at
        least 15 and less than 35 percent covisible; NaN for a bin without pairs."""
        metrics = _reduce(stats, weights)
        for (low, high), member in self._bins(stats).items():
            within = _reduce({name: stats[name][member] for name in stats}, weights[:, member])
            metrics |= {f"{name}_covis{low}_{high}": within[name] for name in BINNED}
        return metrics

    def breakdowns(self, stats: Stats, ctx: ProbeContext) -> list[Breakdown]:
        """The main metrics by covisibility, in percent."""
        found = self.reduce(stats, np.ones((1, len(stats["covisible"]))))
        edges = list(pairwise(self.protocol.covisible_edges))
        return [
            Breakdown(
                name,
                "covisible",
                {f"{a}-{b}": _or_none(float(found[f"{name}_covis{a}_{b}"][0])) for a, b in edges},
            )
            for name in BINNED
        ]

    def _bins(self, stats: Stats) -> dict[tuple[int, int], NDArray[np.bool_]]:
        percent = 100.0 * stats["covisible"]
        edges = self.protocol.covisible_edges
        bins = {(a, b): (percent >= a) & (percent < b) for a, b in pairwise(edges)}
        bins[edges[-2], edges[-1]] |= percent == edges[-1]
        return bins


def _depths(upstream: Mapping[str, Upstream], ids: list[str], ctx: ProbeContext) -> Iterator[DepthPrediction]:
    if DEPTH_HEAD not in upstream:
        raise TaskError(f"recon3d needs a depth head: write `requires: {{{DEPTH_HEAD}: …}}` in the card")
    source = upstream[DEPTH_HEAD]
    if not isinstance(source.probe, DepthProbe):
        raise TaskError(f"{DEPTH_HEAD} must be the head of a depth task, not of {source.probe.name}")
    return source.probe.depths(source.features, ids, source.head, ctx)


def _reduce(stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return reduce_pairs(stats, weights) | reduce_points(stats, weights)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
