"""Semantic segmentation by a linear head on frozen patch features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from dune_bench.data.base import Lazy
from dune_bench.data.samples import Sample, SegSample
from dune_bench.errors import TaskError
from dune_bench.metrics.confusion import ClassTotals, confusion
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
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.linear import Lambdas, linear_maps
from dune_bench.probes.solvers_path import LogisticFit, LogisticSettings, fit_logistic
from dune_bench.probes.stream import PatchRows, grid_of, image_ids, room_folds
from dune_bench.probes.targets import proportions

SEEN = "seen"
"""Tag of samples: pixels of furniture models that the training split also shows."""


class SemsegConvex(ProtocolConstants):
    """Constants of `semseg/*/convex`; docs/tasks/semseg.md explains each."""

    target: Literal["class_proportions"]
    patch_weight: Literal["labelled_share"]
    lambda_per_n: Lambdas
    bias_lambda_per_n: float = Field(gt=0)
    patience: int = Field(ge=1)
    folds: int = Field(ge=2)
    fold_tolerance: float = Field(gt=0)
    tolerance: float = Field(gt=0)
    max_iterations: int = Field(ge=1)
    upsample: Literal["bilinear_logits"]


@dataclass(frozen=True)
class SegPrediction:
    """logits: float32 (K, h, w) on the token grid."""

    logits: NDArray[np.float32]
    grid: TokenGrid

    def labels(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The predicted class of each pixel, uint8 (H, W): arg max of the upsampled logits; of equal
        ones the lower class."""
        logits = self.grid.upsample(self.logits, size)
        best = logits[0].copy()
        labels = np.zeros(size, dtype=np.uint8)
        # A running maximum: several times faster than argmax over the first axis.
        for k in range(1, len(logits)):
            better = logits[k] > best
            np.copyto(best, logits[k], where=better)
            labels[better] = k
        return labels


class SemsegProbe(Probe[SemsegConvex]):
    """Protocol `convex`: multinomial logistic regression to each patch's class proportions."""

    name = "semseg"
    sample_type = SegSample
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {"convex": SemsegConvex}
    score_version = 1
    fit_version = 1

    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """Head tensors: weight (K, C), mean (C,), bias (K,), float32: logits = weight (x − mean) + bias.
        ctx.classes names the K classes.  Raises TaskError if there is no solution."""
        if len(ctx.classes) < 2:
            raise TaskError(f"segmentation needs at least 2 classes, the dataset has {len(ctx.classes)}")
        p = self.protocol
        grid = grid_of(features)
        ctx.progress.update(0.0, 1.0, "reading labels")
        targets = proportions(samples, grid, len(ctx.classes))
        rows = PatchRows(features, image_ids(samples), ctx.chunk_bytes, ctx.device)
        folds = np.repeat(room_folds(samples.groups, p.folds), grid.tokens)
        settings = LogisticSettings(
            lambdas=p.lambda_per_n,
            bias_lambda=p.bias_lambda_per_n,
            tolerance=p.tolerance,
            fold_tolerance=p.fold_tolerance,
            patience=p.patience,
            max_iterations=p.max_iterations,
        )
        fit = fit_logistic(
            rows,
            targets,
            torch.from_numpy(folds),
            settings,
            lambda share, note: ctx.progress.update(share, 1.0, note),
        )
        ctx.progress.update(1.0, 1.0, "fitted")
        tensors = {"weight": fit.weight.float(), "mean": fit.mean.float(), "bias": fit.bias.float()}
        return Head(tensors, _choices(fit, p, int(folds.max()) + 1))

    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[SegPrediction]:
        """Logits on the token grid.  Raises TaskError naming an image whose logits are not finite."""
        grid = grid_of(features)
        for logits in linear_maps(features, image_ids(samples), head, ctx):
            yield SegPrediction(logits, grid)

    def score(self, prediction: SegPrediction, sample: Sample) -> dict[str, NDArray[Any]]:
        """confusion: int64 (K, K) [truth, prediction] at the labels' size; with the tag `seen` also
        confusion_seen, of the tagged pixels alone."""
        if not isinstance(sample, SegSample):
            raise TaskError(f"segmentation cannot score a {type(sample).__name__}")
        height, width = sample.labels.shape
        labels = prediction.labels((height, width))
        classes = len(prediction.logits)
        stats = {"confusion": confusion(sample.labels, labels, classes)}
        if SEEN in sample.tags:
            stats["confusion_seen"] = confusion(sample.labels, labels, classes, sample.tags[SEEN])
        return stats

    def reduce(self, stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """miou, pixel_acc and, with the tag, miou@seen and miou@unseen; all in percent.

        miou: mean over the classes with truth in the whole split.  miou@seen and miou@unseen: IoU
        among the tagged (untagged) pixels only, both over the classes that have truth in both.
        """
        every = ClassTotals.of(stats["confusion"])
        metrics = {
            "miou": 100.0 * every.mean_iou(weights, every.present),
            "pixel_acc": 100.0 * every.pixel_accuracy(weights),
        }
        parts = _parts(stats)
        if parts:
            both = parts["seen"].present & parts["unseen"].present
            for name, totals in parts.items():
                metrics[f"miou@{name}"] = 100.0 * totals.mean_iou(weights, both)
        return metrics

    def breakdowns(self, stats: Stats, ctx: ProbeContext) -> list[Breakdown]:
        """IoU of each class in percent: overall and, with the tag, among seen and unseen models."""
        parts = {"iou": ClassTotals.of(stats["confusion"])}
        parts |= {f"iou@{name}": totals for name, totals in _parts(stats).items()}
        return [Breakdown(name, "class", _by_class(totals, ctx.classes)) for name, totals in parts.items()]


def _parts(stats: Stats) -> dict[str, ClassTotals]:
    if "confusion_seen" not in stats:
        return {}
    seen = stats["confusion_seen"]
    return {"seen": ClassTotals.of(seen), "unseen": ClassTotals.of(stats["confusion"] - seen)}


def _by_class(totals: ClassTotals, names: tuple[str, ...]) -> dict[str, float | None]:
    iou = 100.0 * totals.iou(np.ones((1, len(totals.truth))))[0]
    present = totals.present
    return {
        name: float(iou[k]) if present[k] else None
        for k, name in enumerate(names or tuple(str(k) for k in range(len(iou))))
    }


def _choices(fit: LogisticFit, protocol: SemsegConvex, folds: int) -> dict[str, Any]:
    chosen = fit.tried[fit.chosen]
    return {
        "lambda_per_n": chosen,
        "lambda_at_grid_end": chosen in (max(protocol.lambda_per_n), min(protocol.lambda_per_n)),
        "lambdas_tried": list(fit.tried),
        "held_out_cross_entropy": list(fit.held_out),
        "folds": folds,
        "converged": True,
        "iterations": fit.iterations,
        "excess_loss_at_most": fit.gap,
        "passes_over_data": fit.passes,
    }
