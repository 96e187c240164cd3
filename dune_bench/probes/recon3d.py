"""Two-view reconstruction: the points of both views in camera 1's frame, and the relative pose.

One probe, several ways: without a learned decoder (`recon3d_match_depth`) and by one
(`recon3d_two_view`).  All are scored alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Lazy
from dune_bench.data.samples import PairSample, Sample
from dune_bench.errors import TaskError
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
    ReleasedFile,
    Stats,
    Upstream,
)
from dune_bench.probes.recon3d_match_depth import PairPrediction, predict_match_depth
from dune_bench.probes.recon3d_protocol import (
    Recon3dConstants,
    Recon3dMatchDepth,
    Recon3dPretrained,
    Recon3dTrained,
    Recon3dTwoView,
)
from dune_bench.probes.recon3d_two_view import TwoViewPrediction, predict_two_view
from dune_bench.probes.two_view_fit import fit_decoder, predict_pairs
from dune_bench.probes.two_view_maps import PairMaps
from dune_bench.probes.two_view_released import check_released_file, read_released

BINNED = ("inliers@25cm", "pointmap_m", "rra@15deg", "maa@30deg")
"""Metrics also given by covisibility."""
Prediction = PairPrediction | TwoViewPrediction


class Recon3dProbe(Probe[Recon3dConstants]):
    """Protocols `match-depth`: nothing is fitted here, the depth head comes from upstream; `mast3r-mini`
    and `mast3r`: a decoder trained on the frozen encoder; `pretrained`: the decoder released with it."""

    name = "recon3d"
    sample_type = PairSample
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {
        "match-depth": Recon3dMatchDepth,
        "mast3r-mini": Recon3dTrained,
        "mast3r": Recon3dTrained,
        "pretrained": Recon3dPretrained,
    }
    score_version = 1
    fit_version = 1

    @property
    def reads_released(self) -> bool:
        return isinstance(self.protocol, Recon3dPretrained)

    def check_released(self, file: ReleasedFile) -> None:
        check_released_file(file.path)

    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """Head tensors: the decoder's state; none for `match-depth`.  Raises what `fit_decoder` and
        `read_released` raise."""
        match self.protocol:
            case Recon3dTrained():
                return fit_decoder(features, samples, self.protocol.training, ctx)
            case Recon3dPretrained():
                return read_released(features, ctx)
        return Head({})

    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[Prediction]:
        """A prediction per pair.  Raises what `predict_match_depth` and `predict_two_view` raise."""
        match self.protocol:
            case Recon3dMatchDepth():
                return predict_match_depth(features, samples, upstream, self.protocol, ctx)
            case Recon3dTwoView():
                return predict_two_view(features, samples, head, self.protocol, ctx)
        raise TaskError(f"recon3d has no way for {type(self.protocol).__name__}")

    def pairs(
        self, features: FeatureSource, pairs: Sequence[tuple[str, str]], head: Head, ctx: ProbeContext
    ) -> Iterator[PairMaps]:
        """For tasks that take the decoder as an input: what it says of pairs of images (id of view 1, id of
        view 2), in their order.  Raises TaskError for a protocol without a decoder, or other features."""
        if not isinstance(self.protocol, Recon3dTwoView):
            raise TaskError("recon3d: this protocol has no decoder: name mast3r-mini, mast3r or pretrained")
        return predict_pairs(features, pairs, head, ctx)

    def score(self, prediction: Prediction, sample: Sample) -> dict[str, NDArray[Any]]:
        """Per pair: see `point_statistics`; covisible (0–1), matches, inliers (0 without a pose).  A pair
        without a pose has `failed` true and 180°; without points also no inlier points and `clip_m` errors.
        Raises TaskError naming a sample whose prediction is not finite."""
        if not isinstance(sample, PairSample):
            raise TaskError(f"recon3d cannot score a {type(sample).__name__}")
        pose = prediction.pose
        inliers = 0 if isinstance(pose, Failure) else int(pose.inliers.sum())
        stats = prediction.statistics(sample, self.protocol.points_per_side, self.protocol.clip_m)
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


def _reduce(stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return reduce_pairs(stats, weights) | reduce_points(stats, weights)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
