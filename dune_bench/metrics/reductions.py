"""From stored per-sample statistics to a metric, without torch: what `compare` and `gate` resample.

One function a probe: `reduction(stats, constants, metric)` prepares a function of weights.  It gives
what the probe's own `reduce` gives for that metric (a test holds the two together), for every primary
metric and for others as far as they come with it.  The registry names the functions
(`dune_bench.registry.lookup.REDUCTIONS`); a plug-in adds its own to `registry.reductions`.

stats: arrays of equal leading length n, as `score` left them.  constants: the protocol of the task
card.  metric: its id.  Raises KeyError for a metric, statistic or constant that is not there.  The
function made takes weights (R, n), multiplicities of the samples, and returns (R,) values, NaN where the
metric is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.metrics.confusion import ClassTotals
from dune_bench.metrics.depth import METRICS, mean_over_images
from dune_bench.metrics.human_statistics import penalised_id, pooled_metrics
from dune_bench.metrics.mapfree import POSE_THRESHOLDS
from dune_bench.metrics.pose import reduce_pairs
from dune_bench.metrics.reconstruction import reduce_points
from dune_bench.metrics.weighted import weighted_mean

Floats = NDArray[np.float64]
Stats = Mapping[str, NDArray[Any]]
Constants = Mapping[str, Any]
OfWeights = Callable[[Floats], Floats]


def semseg(stats: Stats, constants: Constants, metric: str) -> OfWeights:
    """miou, pixel_acc, miou@seen, miou@unseen; percent.

    miou: mean over the classes with truth in all n samples.  @seen, @unseen: among the pixels tagged
    so, both over the classes with truth in both.
    """
    del constants
    every = ClassTotals.of(stats["confusion"])
    if metric == "pixel_acc":
        return lambda weights: 100.0 * every.pixel_accuracy(weights)
    parts = {"miou": every}
    if metric != "miou":
        seen = stats["confusion_seen"]
        parts = {"miou@seen": ClassTotals.of(seen), "miou@unseen": ClassTotals.of(stats["confusion"] - seen)}
    classes = np.all([part.present for part in parts.values()], axis=0)
    totals = parts[metric]
    return lambda weights: 100.0 * totals.mean_iou(weights, classes)


def depth(stats: Stats, constants: Constants, metric: str) -> OfWeights:
    """Means over the images with truth of a per-image error, plain or `@aligned`."""
    del constants
    if metric.removesuffix("@aligned") not in METRICS:
        raise KeyError(metric)
    errors, counted = {metric: stats[metric]}, stats["valid_px"] > 0
    return lambda weights: mean_over_images(errors, (metric,), counted, weights)[metric]


def correspondence(stats: Stats, constants: Constants, metric: str) -> OfWeights:
    """recall@10px and so on, percent: means over the pairs with enough asked points."""
    columns = {
        f"recall@{threshold:g}{unit}": stats[f"hits_{unit}"][:, column]
        for unit in ("px", "cm")
        for column, threshold in enumerate(constants[f"thresholds_{unit}"])
    }
    asked = stats["asked"].astype(np.float64)
    hits = 100.0 * columns[metric]
    recall = np.divide(hits, asked, out=np.full_like(asked, np.nan), where=asked > 0)
    counted = stats["asked"] >= constants["min_points"]
    return lambda weights: weighted_mean(recall, weights, counted)


def recon3d(stats: Stats, constants: Constants, metric: str) -> OfWeights:
    """Accuracies of the relative pose and errors of the points, of all pairs."""
    del constants
    return lambda weights: (reduce_pairs(stats, weights) | reduce_points(stats, weights))[metric]


def reloc(stats: Stats, constants: Constants, metric: str) -> OfWeights:
    """precision@25cm_5deg and so on, percent of all queries asked.

    stats: (n, width) arrays, a row a scene; `asked` tells queries from padding.
    """
    del constants
    metres, degrees = POSE_THRESHOLDS[metric.removeprefix("precision@")]
    near = (stats["trans_m"] < metres) & (stats["rot_deg"] < degrees)
    asked = np.asarray(stats["asked"], bool)
    hits = 100.0 * (asked & stats["answered"].astype(bool) & near).sum(1)
    return _ratio_of_sums(hits, asked.sum(1).astype(np.float64))


def hmr(stats: Stats, constants: Constants, metric: str) -> OfWeights:
    """Errors over matched people, over all people with a penalty a miss, precision, recall, F1."""
    penalties = constants["penalties"]
    for error, penalty in penalties.items():
        if metric == penalised_id(error, penalty):
            people = (stats["matched"] + stats["misses"]).astype(np.float64)
            return _ratio_of_sums(stats[f"{error}:capped"] + penalty * stats["misses"], people)
    return lambda weights: pooled_metrics(stats, weights, penalties)[metric]


def _ratio_of_sums(part: Floats, whole: Floats) -> OfWeights:
    """Weighted sum of `part` (n,) by that of `whole`; NaN where the latter is 0."""

    def ratio(weights: Floats) -> Floats:
        sums = weights @ whole
        return np.divide(weights @ part, sums, out=np.full_like(sums, np.nan), where=sums > 0)

    return ratio
