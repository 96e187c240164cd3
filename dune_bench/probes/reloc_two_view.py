"""Map-free relocalization by a two-view decoder: the reference is view 1, the query view 2.

Protocols `essential`, `pnp` and `pnp-direct` (PROTOCOLS §5.3): each turns the maps of one pair into the
answer to one query.  Confidence is the number of inliers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

from dune_bench.data.base import Lazy
from dune_bench.data.samples import RelocScene, View
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera
from dune_bench.geometry.robust import Failure
from dune_bench.probes.base import ProbeContext, ProtocolConstants, Upstream
from dune_bench.probes.pair_matches import PairMatches
from dune_bench.probes.pair_poses import PairPose, PoseConstants
from dune_bench.probes.recon3d import Recon3dProbe
from dune_bench.probes.reloc_answers import MIN_MATCHES, Outcome, QueryPose, unanswered
from dune_bench.probes.two_view_maps import PairMaps, on_rays
from dune_bench.probes.two_view_matching import DescriptorMatchConstants, descriptor_matches
from dune_bench.probes.two_view_poses import (
    DirectConstants,
    EssentialConstants,
    direct_cells,
    direct_pose,
    metric_essential_pose,
    pnp_pose,
)

Cameras = tuple[Camera, Camera]
DECODER_ROLE = "decoder"
"""Role of the upstream recon3d task whose decoder is asked."""


class RelocTwoView(ProtocolConstants, ABC):
    """What the protocols share: the constants of one are also what answers its queries."""

    pose: PoseConstants
    confidence: Literal["inliers"]

    def answer(self, maps: PairMaps, reference: View, query: View) -> QueryPose:
        """The query's pose, or why there is none.  maps: of the reference (view 1) and the query (view 2).

        Intrinsics that cannot be of their image end in `bad_camera`, maps that are not finite in
        `bad_features`.
        """
        try:
            cameras = (Camera(reference.K, reference.image.size), Camera(query.K, query.image.size))
        except TaskError:  # intrinsics of another size: an outcome, counted with the others
            return unanswered(Outcome.bad_camera)
        if not maps.finite:
            return unanswered(Outcome.bad_features)
        return self._solve(maps, cameras)

    @abstractmethod
    def _solve(self, maps: PairMaps, cameras: Cameras) -> QueryPose: ...


class RelocMatched(RelocTwoView):
    """The protocols that start from matched descriptors."""

    matching: DescriptorMatchConstants

    def _solve(self, maps: PairMaps, cameras: Cameras) -> QueryPose:
        matches = descriptor_matches(maps, cameras[0].size, cameras[1].size, self.matching)
        if len(matches) < MIN_MATCHES:
            return unanswered(Outcome.too_few_matches, len(matches))
        found = self._pose(matches, maps, cameras)
        answer = _answer(found, len(matches))
        return answer if isinstance(found, Failure) else replace(answer, inliers=matches.at(found.inliers))

    @abstractmethod
    def _pose(self, matches: PairMatches, maps: PairMaps, cameras: Cameras) -> PairPose | Failure: ...


class RelocEssential(RelocMatched):
    """Constants of `reloc/*/essential`: see `metric_essential_pose`."""

    pose: EssentialConstants

    def _pose(self, matches: PairMatches, maps: PairMaps, cameras: Cameras) -> PairPose | Failure:
        return metric_essential_pose(matches, maps, cameras, self.pose)


class RelocPnp(RelocMatched):
    """Constants of `reloc/*/pnp`: see `pnp_pose`.  lift: the points are the reference's depth along the rays
    of its known camera."""

    lift: Literal["reference_depth"]

    def _pose(self, matches: PairMatches, maps: PairMaps, cameras: Cameras) -> PairPose | Failure:
        lifted = PairMaps(on_rays(maps.view1, cameras[0]), maps.view2)
        return pnp_pose(matches, lifted, cameras, self.pose)


class RelocPnpDirect(RelocTwoView):
    """Constants of `reloc/*/pnp-direct`: see `direct_pose`; its matches are the cells it asks."""

    pose: DirectConstants

    def _solve(self, maps: PairMaps, cameras: Cameras) -> QueryPose:
        return _answer(direct_pose(maps, cameras[1], self.pose), len(direct_cells(maps.view2, self.pose)))


def localize_two_view(
    samples: Lazy[RelocScene],
    upstream: Mapping[str, Upstream],
    protocol: RelocTwoView,
    ctx: ProbeContext,
) -> Iterator[tuple[QueryPose, ...]]:
    """Answers to every scene's queries, scene by scene.  Raises TaskError if `requires` names no task with
    a two-view decoder, or the decoder is of other features."""
    found = upstream.get(DECODER_ROLE)
    if found is None or not isinstance(found.probe, Recon3dProbe):
        raise TaskError(f"reloc asks a two-view decoder: name a recon3d task in requires.{DECODER_ROLE}")
    images = (samples.images(i) for i in range(len(samples)))
    ids = [(reference.id, query.id) for reference, *queries in images for query in queries]
    maps = found.probe.pairs(found.features, ids, found.head, ctx)
    for scene in samples:
        yield tuple(protocol.answer(next(maps), scene.reference, query) for query in scene.queries)


def _answer(found: PairPose | Failure, matches: int) -> QueryPose:
    if isinstance(found, Failure):
        return unanswered(Outcome.no_pose, matches)
    return QueryPose(found.T_2_1, float(found.inliers.sum()), matches, Outcome.answered)
