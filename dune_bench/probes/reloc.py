"""Map-free relocalization: the metric pose of each query of a scene relative to its one reference view.

One probe, several ways: matched tokens lifted by the encoder's own depth head (`reloc_match_depth`), or
the maps of a two-view decoder (`reloc_two_view`).  Nothing is fitted here; all are scored alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Lazy
from dune_bench.data.samples import RelocScene, Sample
from dune_bench.errors import TaskError
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
from dune_bench.probes.reloc_answers import Outcome, QueryPose
from dune_bench.probes.reloc_frames import bin_breakdowns, reduce_scenes, scene_rows
from dune_bench.probes.reloc_match_depth import RelocMatchDepth, localize_match_depth
from dune_bench.probes.reloc_two_view import (
    RelocEssential,
    RelocPnp,
    RelocPnpDirect,
    RelocTwoView,
    localize_two_view,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScenePrediction:
    """Answers to a scene's queries, in their order.  width: the most queries of any scene of the split,
    so that statistics of all scenes have one shape."""

    queries: tuple[QueryPose, ...]
    width: int


class RelocProbe(Probe[ProtocolConstants]):
    """Protocols `match-depth`, and `essential`, `pnp`, `pnp-direct` on the decoder of a recon3d task."""

    name = "reloc"
    sample_type = RelocScene
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {
        "match-depth": RelocMatchDepth,
        "essential": RelocEssential,
        "pnp": RelocPnp,
        "pnp-direct": RelocPnpDirect,
    }
    score_version = 1
    fit_version = 1

    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """An empty head: the protocols only use upstream heads."""
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
        outcome.  Raises TaskError if `requires` does not name the head that the protocol takes."""
        del head
        width = most_queries(samples)
        for answers in self._answers(features, samples, upstream, ctx):
            yield ScenePrediction(answers, width)

    def _answers(
        self,
        features: FeatureSource,
        samples: Lazy[RelocScene],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[tuple[QueryPose, ...]]:
        match self.protocol:
            case RelocMatchDepth():
                return localize_match_depth(features, samples, upstream, self.protocol, ctx)
            case RelocTwoView():
                return localize_two_view(samples, upstream, self.protocol, ctx)
        raise TaskError(f"reloc has no way for {type(self.protocol).__name__}")

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
