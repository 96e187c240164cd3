"""Correspondence between two views by nearest neighbours of frozen features: nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, model_validator

from dune_bench.data.base import Lazy
from dune_bench.data.samples import PairSample, Sample
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
from dune_bench.probes.correspondence_truth import (
    lattice,
    light_change,
    pair_truth,
    rotation_deg,
    surface_at,
)
from dune_bench.probes.pair_matches import MatchConstants, UnmatchableError, match_points
from dune_bench.probes.stream import grid_of

Floats = NDArray[np.float64]


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("write the values in ascending order, each once")
    return values


Thresholds = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1), AfterValidator(_ascending)
]
Edges = Annotated[tuple[float, ...], Field(min_length=2), AfterValidator(_ascending)]


class CorrespondenceNN(ProtocolConstants):
    """Constants of `correspondence/*/nn`; docs/tasks/correspondence.md explains each."""

    lattice: int = Field(ge=1)
    occlusion_cm: float = Field(gt=0)
    min_points: int = Field(ge=1)
    matching: MatchConstants
    thresholds_px: Thresholds
    thresholds_cm: Thresholds
    rotation_edges_deg: Edges
    light_edges: Edges

    @model_validator(mode="after")
    def _truth_hits(self) -> CorrespondenceNN:
        if self.occlusion_cm > self.thresholds_cm[0]:
            raise ValueError("occlusion_cm above a threshold: even true answers would miss")
        return self


@dataclass(frozen=True)
class Correspondences:
    """Answers of a pair.  places2: float64 (n, 2), pixels (x, y) of the original view 2, one for each
    point of the lattice in view 1; NaN where there is no answer."""

    places2: Floats


class CorrespondenceProbe(Probe[CorrespondenceNN]):
    """Protocol `nn`: each asked point goes to the most similar place of the other view."""

    name = "correspondence"
    sample_type = PairSample
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {"nn": CorrespondenceNN}
    score_version = 1
    fit_version = 1

    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """There is nothing to fit: an empty head."""
        return Head({})

    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[Correspondences]:
        """An answer for every point of each pair's lattice, whether it will be asked or not: no truth
        is read here.  A pair whose features are not finite has no answers."""
        grid = grid_of(features)
        for index in range(len(samples)):
            first, second = samples.images(index)
            points1 = lattice(first.size, self.protocol.lattice)
            try:
                places2, _ = match_points(
                    features.one(first.id),
                    features.one(second.id),
                    grid,
                    grid,
                    first.size,
                    second.size,
                    points1,
                    self.protocol.matching,
                )
            except UnmatchableError:
                places2 = np.full(points1.shape, np.nan)
            yield Correspondences(places2)

    def score(self, prediction: Correspondences, sample: Sample) -> dict[str, NDArray[Any]]:
        """See `score_places`.  Raises TaskError if a camera does not fit its image."""
        if not isinstance(sample, PairSample):
            raise TaskError(f"correspondence cannot score a {type(sample).__name__}")
        return score_places(prediction.places2, sample, self.protocol)

    def reduce(self, stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Recalls in percent: means over the pairs with enough asked points of each pair's recall.

        recall@10px and so on: of all pairs.  recall@10px_rot0_15deg, recall@10px_light1_1.25 …: of the
        pairs of that bin; NaN where it is empty.  A pair without answers counts with recall 0.
        """
        recalls, bins = self._recalls(stats), self._bins(stats)
        member = np.stack(list(bins.values()), 1)
        total = weights @ member
        metrics = {}
        for name, values in recalls.items():
            # Rows of pairs that are not counted are in no bin; their undefined recall must not spread.
            sums = weights @ np.where(member > 0, values[:, None], 0.0)
            means = np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
            for suffix, mean in zip(bins, means.T, strict=True):
                metrics[name + suffix] = mean
        return metrics

    def breakdowns(self, stats: Stats, ctx: ProbeContext) -> list[Breakdown]:
        """Each recall by relative rotation (degrees) and by light change (ratio of exposures)."""
        metrics = self.reduce(stats, np.ones((1, len(stats["asked"]))))
        parts = []
        for name in self._recalls(stats):
            for by, edges in self._edges().items():
                values = {
                    f"{low:g}-{high:g}": metrics[_binned(name, by, low, high)][0] for low, high in edges
                }
                known = {key: float(v) if np.isfinite(v) else None for key, v in values.items()}
                parts.append(Breakdown(name, by, known))
        return parts

    def _recalls(self, stats: Stats) -> dict[str, Floats]:
        """(n,) percent of the asked points of each pair, by threshold; NaN where none is asked."""
        recalls = {}
        asked = stats["asked"].astype(np.float64)
        for unit, thresholds in (("px", self.protocol.thresholds_px), ("cm", self.protocol.thresholds_cm)):
            for column, threshold in enumerate(thresholds):
                hits = 100.0 * stats[f"hits_{unit}"][:, column]
                recall = np.divide(hits, asked, out=np.full_like(asked, np.nan), where=asked > 0)
                recalls[f"recall@{threshold:g}{unit}"] = recall
        return recalls

    def _bins(self, stats: Stats) -> dict[str, Floats]:
        """Suffix of the metric's id -> 1.0 for the pairs (n,) in that bin; the first is all pairs."""
        counted = stats["asked"] >= self.protocol.min_points
        bins = {"": counted.astype(np.float64)}
        for by, edges in self._edges().items():
            for low, high in edges:
                within = (stats[by] >= low) & (stats[by] < high)
                bins[_binned("", by, low, high)] = (counted & within).astype(np.float64)
        return bins

    def _edges(self) -> dict[str, list[tuple[float, float]]]:
        p = self.protocol
        return {
            "rotation_deg": list(pairwise(p.rotation_edges_deg)),
            "light_change": list(pairwise(p.light_edges)),
        }


def score_places(places2: Floats, pair: PairSample, protocol: CorrespondenceNN) -> dict[str, NDArray[Any]]:
    """Statistics of given answers, whatever made them: a probe, or a baseline such as `same_places`.

    places2: float64 (n, 2), pixels (x, y) of the original view 2 for the lattice of view 1; NaN is no
    answer, which hits nothing.  Returns asked (number of points whose truth view 2 sees), answered (of
    those), hits_px and hits_cm (of those, by threshold), rotation_deg, light_change, and failed: fewer
    than `min_points` points are asked, or answered.  Raises TaskError for another number of answers.
    """
    points1 = lattice(pair.view1.image.size, protocol.lattice)
    if places2.shape != points1.shape:
        raise TaskError(f"pair {pair.id}: answers of shape {places2.shape}, expected {points1.shape}")
    truth = pair_truth(pair, points1, protocol.occlusion_cm / 100.0)
    given = places2[truth.asked]
    off_px = np.linalg.norm(given - truth.places2[truth.asked], axis=1)
    off_m = np.linalg.norm(surface_at(pair.view2, given) - truth.points2[truth.asked], axis=1)
    asked, answered = len(given), int(np.isfinite(given).all(1).sum())
    return {
        "asked": np.array(asked, dtype=np.int64),
        "answered": np.array(answered, dtype=np.int64),
        "hits_px": _hits(off_px, protocol.thresholds_px),
        "hits_cm": _hits(100.0 * off_m, protocol.thresholds_cm),
        "rotation_deg": np.array(rotation_deg(pair)),
        "light_change": np.array(light_change(pair)),
        "failed": np.array(min(asked, answered) < protocol.min_points),
    }


def _hits(errors: Floats, thresholds: tuple[float, ...]) -> NDArray[np.int64]:
    """How many errors are within each threshold; NaN, no answer, is within none."""
    with np.errstate(invalid="ignore"):
        return np.asarray((errors[:, None] <= np.array(thresholds)).sum(0), dtype=np.int64)


def _binned(name: str, by: str, low: float, high: float) -> str:
    short, unit = {"rotation_deg": ("rot", "deg"), "light_change": ("light", "")}[by]
    return f"{name}_{short}{low:g}_{high:g}{unit}"
