"""Metric monocular depth by a linear head on frozen patch features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dune_bench.data.base import Lazy
from dune_bench.data.samples import DepthSample, Sample
from dune_bench.errors import TaskError
from dune_bench.metrics.depth import METRICS, depth_errors, mean_over_images, median_scale, valid_depth
from dune_bench.probes.base import (
    FeatureSource,
    Head,
    Probe,
    ProbeContext,
    ProtocolConstants,
    Stats,
    Upstream,
)
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.linear import Lambdas, linear_maps
from dune_bench.probes.solvers_ridge import fit_ridge
from dune_bench.probes.stream import PatchRows, grid_of, image_ids, room_folds
from dune_bench.probes.targets import log_depths

ALIGNED = "@aligned"
"""Suffix of the metrics after scaling each prediction to the truth's median."""


class DepthConvex(ProtocolConstants):
    """Constants of `depth/*/convex`; docs/tasks/depth.md explains each."""

    target: Literal["mean_log_depth"]
    patch_weight: Literal["valid_share"]
    min_depth_m: float = Field(gt=0)
    max_depth_m: float = Field(gt=0)
    lambda_per_n: Lambdas
    folds: int = Field(ge=2)
    upsample: Literal["bilinear_log_depth"]

    @model_validator(mode="after")
    def _range(self) -> DepthConvex:
        if self.min_depth_m >= self.max_depth_m:
            raise ValueError("min_depth_m must be below max_depth_m")
        return self


@dataclass(frozen=True)
class DepthPrediction:
    """log_depth: float32 (h, w), log metres on the token grid.  low, high: range in metres."""

    log_depth: NDArray[np.float32]
    grid: TokenGrid
    low: float
    high: float

    def depth(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Metres, float64 (H, W): the upsampled log-depth's exponential, clamped to the range."""
        log_depth = self.grid.upsample(self.log_depth.astype(np.float64), size)
        return np.asarray(np.exp(np.clip(log_depth, np.log(self.low), np.log(self.high))))


class DepthProbe(Probe[DepthConvex]):
    """Protocol `convex`: ridge regression to each patch's mean log-depth."""

    name = "depth"
    sample_type = DepthSample
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {"convex": DepthConvex}
    score_version = 1
    fit_version = 1

    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """Head tensors: weight (1, C), mean (C,), bias (1,), float64: log-depth = weight (x − mean) +
        bias.  Raises TaskError if there is no solution."""
        p = self.protocol
        grid = grid_of(features)
        ctx.progress.update(0.0, 1.0, "reading depth")
        y, weights = log_depths(samples, grid, p.min_depth_m, p.max_depth_m)
        rows = PatchRows(features, image_ids(samples), ctx.chunk_bytes, ctx.device)
        folds = np.repeat(room_folds(samples.groups, p.folds), grid.tokens)
        ctx.progress.update(0.2, 1.0, "fitting")
        fit = fit_ridge(rows, y, weights, torch.from_numpy(folds), p.lambda_per_n)
        ctx.progress.update(1.0, 1.0, "fitted")
        chosen = fit.lambdas[fit.chosen]
        choices = {
            "lambda_per_n": chosen,
            "lambda_at_grid_end": fit.chosen in (0, len(fit.lambdas) - 1),
            "lambdas_tried": list(fit.lambdas),
            "held_out_squared_error": list(fit.held_out),
            "folds": int(folds.max()) + 1,
        }
        bias = torch.tensor([fit.bias], dtype=torch.float64)
        return Head({"weight": fit.weight[None], "mean": fit.mean, "bias": bias}, choices)

    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[DepthPrediction]:
        """Log-depth on the token grid.  Raises TaskError naming an image where it is not finite."""
        return self.depths(features, image_ids(samples), head, ctx)

    def depths(
        self, features: FeatureSource, images: Sequence[str], head: Head, ctx: ProbeContext
    ) -> Iterator[DepthPrediction]:
        """Depth of the images with these ids, in their order: what tasks that need the depth of a
        view ask of an upstream head.  Raises TaskError as `predict`."""
        grid = grid_of(features)
        low, high = self.protocol.min_depth_m, self.protocol.max_depth_m
        for maps in linear_maps(features, images, head, ctx):
            yield DepthPrediction(maps[0], grid, low, high)

    def score(self, prediction: DepthPrediction, sample: Sample) -> dict[str, NDArray[Any]]:
        """Per image: rmse_m, abs_rel, delta1, rmse_log (see `depth_errors`), the same with the suffix
        @aligned after median scaling, and valid_px.  An image without valid pixels has NaN errors and
        valid_px 0.  Raises TaskError naming a sample whose prediction is not finite."""
        if not isinstance(sample, DepthSample):
            raise TaskError(f"depth cannot score a {type(sample).__name__}")
        if not np.isfinite(prediction.log_depth).all():
            raise TaskError(f"sample {sample.id}: the predicted depth is not finite")
        height, width = sample.depth.shape
        valid = valid_depth(sample.depth, prediction.low, prediction.high)
        truth = sample.depth[valid].astype(np.float64)
        predicted = prediction.depth((height, width))[valid]
        aligned = predicted * median_scale(predicted, truth)
        stats: dict[str, NDArray[Any]] = {"valid_px": np.array(truth.size, dtype=np.int64)}
        for name, value in depth_errors(predicted, truth).items():
            stats[name] = np.array(value)
        for name, value in depth_errors(aligned, truth).items():
            stats[name + ALIGNED] = np.array(value)
        return stats

    def reduce(self, stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Means over images of the per-image values; images without valid pixels are left out."""
        names = (*METRICS, *(name + ALIGNED for name in METRICS))
        return mean_over_images(stats, names, stats["valid_px"] > 0, weights)
