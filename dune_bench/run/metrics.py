"""Per-sample statistics to metrics with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.probes.base import Breakdown, Probe
from dune_bench.registry.cards import MetricSpec
from dune_bench.results.schema import BreakdownResult, Metric, finite_or_none
from dune_bench.results.stats import bootstrap
from dune_bench.run.probing import Arrays

F64 = NDArray[np.float64]


def values_of(probe: Probe[Any], stats: Arrays, wanted: Sequence[MetricSpec]) -> dict[str, float]:
    """Every metric of the card from all samples; NaN where it is undefined.

    Raises TaskError for a metric that the probe does not give, and for an infinite one.
    """
    n = len(next(iter(stats.values())))
    found = probe.reduce(stats, np.ones((1, n)))
    values = {}
    for spec in wanted:
        if spec.id not in found:
            names = ", ".join(sorted(found))
            raise TaskError(
                f"probe {probe.name} gives no metric {spec.id!r} (it gives {names}): mend the card"
            )
        values[spec.id] = float(found[spec.id][0])
        if np.isinf(values[spec.id]):
            raise TaskError(f"metric {spec.id} is infinite: the predictions are out of any range")
    return values


def make_metrics(
    wanted: Sequence[MetricSpec],
    values: Sequence[dict[str, float]],
    intervals: dict[str, tuple[float, float] | None],
    stats: Arrays,
) -> tuple[Metric, ...]:
    """values: per seed; their mean is the metric.  stats: of the first seed, for the counts."""
    n = len(next(iter(stats.values())))
    failed = int(stats["failed"].sum()) if "failed" in stats else 0
    return tuple(
        Metric(
            id=spec.id,
            value=finite_or_none(float(np.mean([of_seed[spec.id] for of_seed in values]))),
            unit=spec.unit,
            higher_is_better=spec.higher_is_better,
            primary=spec.primary,
            margin=spec.margin,
            ci95=intervals[spec.id],
            n=n,
            n_failed=failed,
        )
        for spec in wanted
    )


def intervals_of(
    probe: Probe[Any],
    per_seed: Sequence[Arrays],
    groups: Sequence[str],
    wanted: Sequence[MetricSpec],
    rng: np.random.Generator,
) -> dict[str, tuple[float, float] | None]:
    """95 % interval of each metric's mean over the fit seeds; None with too few groups.

    The samples' part is a cluster bootstrap of that mean, the same resamples for every seed.  With
    S >= 2 seeds its half-widths are stretched by sqrt(1 + v / (S se²)), v the variance between
    seeds, se the bootstrap's standard error: a fit with other seeds would move the mean, too.
    """

    def statistic(weights: F64) -> dict[str, F64]:
        found = [probe.reduce(stats, weights) for stats in per_seed]
        return {spec.id: np.mean([of_seed[spec.id] for of_seed in found], axis=0) for spec in wanted}

    ones = np.ones((1, len(groups)))
    estimates = bootstrap(statistic, groups, rng)
    intervals: dict[str, tuple[float, float] | None] = {}
    for spec in wanted:
        estimate = estimates[spec.id]
        intervals[spec.id] = estimate.ci95
        if estimate.ci95 is not None and estimate.se and len(per_seed) > 1:
            of_seed = [float(probe.reduce(stats, ones)[spec.id][0]) for stats in per_seed]
            between = float(np.var(of_seed, ddof=1)) / len(per_seed)
            stretch = float(np.sqrt(1.0 + between / estimate.se**2))
            low, high = (estimate.value + stretch * (bound - estimate.value) for bound in estimate.ci95)
            intervals[spec.id] = (low, high)
    return intervals


def make_breakdowns(parts: Sequence[Breakdown]) -> tuple[BreakdownResult, ...]:
    """Raises TaskError for a value that is not finite: undefined ones are None."""
    for part in parts:
        for key, value in part.values.items():
            if value is not None and not np.isfinite(value):
                raise TaskError(
                    f"breakdown {part.metric} by {part.by}: {key} is {value}, not a number or None"
                )
    return tuple(BreakdownResult(metric=part.metric, by=part.by, values=part.values) for part in parts)
