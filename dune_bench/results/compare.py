"""Two encoders on the same samples: paired differences of the primary metrics, and where B lost most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dune_bench.results.measured import Measured, NotComparableError, paired
from dune_bench.results.schema import EncoderInfo, Metric, TaskInfo
from dune_bench.results.stats import RESAMPLES, Estimate, holm

WORST = 10
FALSE_VERDICTS = 0.05
"""Probability of any wrong `better` or `worse` in a comparison, over all its tasks."""


@dataclass(frozen=True)
class SampleDifference:
    """One sample's own value of the primary metric under both encoders."""

    id: str
    group: str
    first: float
    second: float


@dataclass(frozen=True)
class TaskComparison:
    """One task.  first, second: the two values.  difference: second − first with its interval.
    p_holm: two-sided p-value adjusted for all tasks of the comparison, None without an interval.
    worst: the samples where the second loses most against the first, the greatest loss first; only real
    losses.  undefined: samples that alone do not define the metric, and have no place among these.
    """

    task: TaskInfo
    metric: Metric
    first: float
    second: float
    difference: Estimate
    p_holm: float | None
    worst: tuple[SampleDifference, ...]
    undefined: int

    @property
    def outcome(self) -> str:
        """`better` or `worse` (the second than the first) if the 95 % interval excludes 0 and the adjusted
        p-value is below 0.05; `not after Holm` if the interval alone says so; `undecided` if it holds 0;
        `no interval` where there are too few groups."""
        if self.difference.ci95 is None:
            return "no interval"
        low, high = self.difference.ci95
        if low <= 0.0 <= high:
            return "undecided"
        if self.p_holm is None or self.p_holm >= FALSE_VERDICTS:
            return "not after Holm"
        return "better" if (low > 0.0) == self.metric.higher_is_better else "worse"


@dataclass(frozen=True)
class LeftOut:
    """A task that was not compared, and why."""

    task: str
    reason: str


@dataclass(frozen=True)
class Compared:
    """An encoder of a comparison.  label: as reports print it."""

    label: str
    encoder: EncoderInfo


@dataclass(frozen=True)
class Comparison:
    """Second against first on every task that both have."""

    first: Compared
    second: Compared
    tasks: tuple[TaskComparison, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()


def compare_task(
    first: Measured, second: Measured, worst: int = WORST, resamples: int = RESAMPLES
) -> TaskComparison:
    """Compares one task, not yet adjusted for others.  Raises NotComparableError."""
    difference = paired(first, second, resamples)
    samples, undefined = worst_samples(first, second, worst)
    return TaskComparison(
        task=first.task,
        metric=first.metric,
        first=_value(first),
        second=_value(second),
        difference=difference,
        p_holm=difference.p_value,
        worst=samples,
        undefined=undefined,
    )


def adjusted(tasks: Sequence[TaskComparison]) -> tuple[TaskComparison, ...]:
    """The same with p-values adjusted by Holm over those that have one."""
    with_p = [i for i, task in enumerate(tasks) if task.difference.p_value is not None]
    found = holm([tasks[i].difference.p_value or 0.0 for i in with_p])
    changed = dict(zip(with_p, found, strict=True))
    return tuple(replace(task, p_holm=changed.get(i)) for i, task in enumerate(tasks))


def worst_samples(
    first: Measured, second: Measured, count: int = WORST
) -> tuple[tuple[SampleDifference, ...], int]:
    """The at most `count` samples that the second loses most on, and how many samples have no value."""
    a, b = first.per_sample(), second.per_sample()
    gain = first.sign * (b - a)
    known = np.isfinite(gain)
    order = [i for i in np.argsort(np.where(known, gain, np.inf), kind="stable") if known[i] and gain[i] < 0]
    samples = tuple(
        SampleDifference(first.ids[i], first.groups[i], float(a[i]), float(b[i])) for i in order[:count]
    )
    return samples, int((~known).sum())


def _value(measured: Measured) -> float:
    if measured.metric.value is None:
        raise NotComparableError(f"{measured.metric.id} is undefined on this data")
    return measured.metric.value
