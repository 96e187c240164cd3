"""Human mesh recovery: who is in an image, where, how they stand and how they are built.

One probe, several ways: linear ones (`hmr_fit`) and the human head of Multi-HMR (`hmr_learned_fit`).  All
are scored alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Lazy
from dune_bench.data.samples import HumanSample, Sample
from dune_bench.encoders.weights import ReleasedPart
from dune_bench.errors import TaskError
from dune_bench.metrics.human_matching import detection_scores_compat
from dune_bench.metrics.human_statistics import pooled_metrics
from dune_bench.models.body_models import BodyModel, load_body_model
from dune_bench.probes.base import (
    FeatureSource,
    Head,
    Probe,
    ProbeContext,
    ProtocolConstants,
    ReleasedFile,
    Stats,
    Upstream,
)
from dune_bench.probes.hmr_bodies import BodyRows, View
from dune_bench.probes.hmr_fit import fit_people
from dune_bench.probes.hmr_learned_fit import fit_human_head, predict_people
from dune_bench.probes.hmr_learned_protocol import HmrLearned, HmrPretrained, HmrTrained
from dune_bench.probes.hmr_people import check_sample, people_of
from dune_bench.probes.hmr_prediction import COMPAT, PeoplePrediction, image_stats
from dune_bench.probes.hmr_protocol import HmrConstants, HmrRidge
from dune_bench.probes.hmr_regressor import Regressor
from dune_bench.probes.hmr_released import read_human_file, read_released_head
from dune_bench.probes.stream import grid_of, image_ids

AT_MULTIHMR = "@multihmr"
"""Suffix of the metrics under the published matcher."""
ERRORS_AT_MULTIHMR = ("pve_mm", "pa_pve_mm")


class HmrProbe(Probe[HmrConstants]):
    """Protocols `ridge`: logistic head detection, ridge from the head's token and windows to the body;
    `multihmr-mini` and `multihmr`: the human head trained on the frozen encoder; `pretrained`: the one
    released with it."""

    name = "hmr"
    sample_type = HumanSample
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {
        "ridge": HmrRidge,
        "multihmr-mini": HmrTrained,
        "multihmr": HmrTrained,
        "pretrained": HmrPretrained,
    }
    score_version = 1
    fit_version = 3
    released_part: ClassVar[ReleasedPart] = "human_heads"

    @cached_property
    def bodies(self) -> BodyRows:
        """The body model's rows; the model is loaded when first needed."""
        return BodyRows(self.model)

    @cached_property
    def model(self) -> BodyModel:
        return load_body_model(self.protocol.body_model)

    @property
    def reads_released(self) -> bool:
        return isinstance(self.protocol, HmrPretrained)

    def check_released(self, file: ReleasedFile) -> None:
        read_human_file(file.path, self.protocol.body_model)

    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """Head tensors: see `Regressor`, or the human head's state.  Raises what `fit_people`,
        `fit_human_head` and `read_released_head` raise."""
        match self.protocol:
            case HmrRidge():
                return fit_people(features, samples, self.bodies, self.protocol, ctx)
            case HmrTrained():
                return fit_human_head(features, samples, self.model, self.protocol, ctx)
            case HmrPretrained():
                return read_released_head(features, self.model, ctx)
        raise TaskError(f"hmr has no way for {type(self.protocol).__name__}")

    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[PeoplePrediction]:
        """People of each image.  An image whose features are not finite is a failed one.  Raises TaskError
        if the head is of other features."""
        if isinstance(self.protocol, HmrLearned):
            yield from predict_people(features, samples, head, self.model, self.protocol, ctx)
            return
        if not isinstance(self.protocol, HmrRidge):
            raise TaskError(f"hmr has no way for {type(self.protocol).__name__}")
        grid, ids = grid_of(features), image_ids(samples)
        regressor = Regressor(head, self.bodies, grid, self.protocol)
        for images, batch in features.batches(ids, ctx.chunk_bytes):
            for index, patch in zip(range(images.start, images.stop), batch.patch, strict=True):
                sample = samples[index]
                check_sample(sample)
                yield regressor.people(patch, View.of(sample.K, sample.image.size, grid.image_size))

    def score(self, prediction: PeoplePrediction, sample: Sample) -> dict[str, NDArray[Any]]:
        """Per image: counts and sums of errors of `image_statistics` under the strict matching and, after
        COMPAT, under the published one; `failed`.  Raises TaskError naming a sample with unusable truth."""
        if not isinstance(sample, HumanSample):
            raise TaskError(f"hmr cannot score a {type(sample).__name__}")
        people = people_of(sample, self.protocol.min_visible)
        return image_stats(self.model, prediction, sample, people, self.protocol)

    def reduce(self, stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Everything of `pooled_metrics`; and with AT_MULTIHMR errors, precision, recall, f1 under the
        published matcher, the last three rounded as published."""
        penalties = self.protocol.penalties
        metrics = pooled_metrics(stats, weights, penalties)
        compat = {name.removeprefix(COMPAT): v for name, v in stats.items() if name.startswith(COMPAT)}
        pooled = pooled_metrics(compat, weights, penalties)
        metrics |= {name + AT_MULTIHMR: pooled[name] for name in ERRORS_AT_MULTIHMR}
        matched, misses, wrong = (
            np.rint(weights @ compat[name]).astype(np.int64)
            for name in ("matched", "misses", "false_positives")
        )
        rows = [
            detection_scores_compat(int(m + n), int(n), int(w))
            for m, n, w in zip(matched, misses, wrong, strict=True)
        ]
        for name, column in zip(("precision", "recall", "f1"), np.array(rows).T, strict=True):
            metrics[name + AT_MULTIHMR] = column
        return metrics
