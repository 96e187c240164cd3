"""A finished result with its per-sample statistics: what paired comparisons work on.

How statistics become a metric is the probe's business, and this floor knows no probes: callers pass
a `Reducer`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import BenchError, UnavailableError
from dune_bench.results.schema import Metric, Result, TaskInfo
from dune_bench.results.stats import (
    RESAMPLES,
    Estimate,
    Floats,
    Statistic,
    paired_difference,
    with_seeds,
)

Arrays = Mapping[str, NDArray[Any]]
OfWeights = Callable[[Floats], Floats]
"""Weights (R, n) of the samples -> (R,) values of one metric."""
Reduce = Callable[[Arrays, str], OfWeights]
"""Statistics of n samples and a metric's id -> that metric.  Raises KeyError if they do not give it."""
Reducer = Callable[[Result], Reduce]
"""The reduction that belongs to a result.  Raises BenchError if this installation has none."""

IDENTITY = ("id", "group")
SAME_VALUE = 1e-6
"""Relative: another machine's sums may differ in the last digits, other scoring code does not hide there."""
_BLOCK_ITEMS = 2**20


class NotComparableError(UnavailableError):
    """Two results, or one, of which no comparison can be made; the text says why."""


@dataclass(frozen=True)
class Measured:
    """A result with status ok that has a value and statistics which give this value.

    ids, groups: of the n samples.  per_seed: the primary metric of each fit seed under weightings of the
    samples; one entry for a protocol without seeds.
    """

    result: Result
    metric: Metric
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    per_seed: tuple[OfWeights, ...]

    @property
    def task(self) -> TaskInfo:
        return self.result.task

    @property
    def sign(self) -> float:
        """+1 where higher is better, −1 where lower is."""
        return 1.0 if self.metric.higher_is_better else -1.0

    @property
    def statistic(self) -> Statistic:
        """The primary metric, a mean over the seeds, under R weightings of the samples."""

        def values(weights: Floats) -> dict[str, Floats]:
            return {self.metric.id: self._mean(weights)}

        return values

    def _mean(self, weights: Floats) -> Floats:
        found = [of_seed(weights) for of_seed in self.per_seed]
        return found[0] if len(found) == 1 else np.mean(found, axis=0)

    @cached_property
    def between_seeds(self) -> float:
        """Variance of the mean over the seeds, from their spread; 0 without seeds."""
        if len(self.per_seed) < 2:
            return 0.0
        ones = np.ones((1, len(self.ids)))
        values = [float(of_seed(ones)[0]) for of_seed in self.per_seed]
        return float(np.var(values, ddof=1)) / len(values)

    def per_sample(self) -> Floats:
        """The primary metric of each sample alone, (n,); NaN where one sample does not define it."""
        count = len(self.ids)
        block = max(1, _BLOCK_ITEMS // count)
        parts = [self._mean(np.eye(min(block, count - at), count, at)) for at in range(0, count, block)]
        return np.concatenate(parts)


def measure(result: Result, arrays: Arrays, reducer: Reducer) -> Measured:
    """A result made ready.  arrays: its per-sample statistics, as stored.

    Raises NotComparableError if it is not ok, has no value of a primary metric, or if its
    statistics do not give the value that it states: then one of the two was edited, or made by other
    scoring code.
    """
    metric = result.primary
    if result.status != "ok":
        raise NotComparableError(f"{result.status}: {result.error}")
    if metric is None:
        raise NotComparableError("the result has no primary metric")
    if metric.value is None:
        raise NotComparableError(f"{metric.id} is undefined on this data")
    try:
        reduce = reducer(result)
    except BenchError as error:
        raise NotComparableError(str(error)) from error
    if missing := [name for name in IDENTITY if name not in arrays]:
        raise NotComparableError(f"the per-sample statistics have no {missing[0]!r}: run again")
    ids, groups = (tuple(map(str, arrays[name])) for name in IDENTITY)
    try:
        per_seed = tuple(reduce(stats, metric.id) for stats in arrays_by_seed(result, arrays))
        measured = Measured(result, metric, ids, groups, per_seed)
        found = float(measured.statistic(np.ones((1, len(ids))))[metric.id][0])
    except (KeyError, ValueError, IndexError) as error:
        raise NotComparableError(
            f"this version's reduction finds no {metric.id} in the per-sample statistics ({error}): run again"
        ) from error
    if not abs(found - metric.value) <= SAME_VALUE * max(1.0, abs(metric.value)):
        raise NotComparableError(
            f"{metric.id} is {metric.value:g} in the file, but its per-sample statistics give {found:g}: "
            "edited, or of another version's scoring; run again"
        )
    return measured


def arrays_by_seed(result: Result, arrays: Arrays) -> tuple[Arrays, ...]:
    """The probe's own statistics, once for each fit seed; one entry for a protocol without seeds."""
    own = {name: values for name, values in arrays.items() if name not in IDENTITY}
    if not result.seeds:
        return (own,)
    return tuple(
        {name.removeprefix(f"seed{seed}."): v for name, v in own.items() if name.startswith(f"seed{seed}.")}
        for seed in result.seeds
    )


def measurement(task: TaskInfo) -> dict[str, Any]:
    """Everything that declares what was measured; two results are comparable if it is equal.

    The keys of upstream heads are not part of it: they depend on the encoder.  Nor is the number of
    `--limit`, only that there was one: which samples it kept follows from the data and the number of groups.
    """
    content = task.model_dump(mode="json", exclude={"upstream"})
    return content | {"limited": task.limited is not None or None}


def mismatch(a: Result, b: Result) -> str | None:
    """Why two results may not be compared, or None: their `measurement` and primary metric must be equal."""
    one, other = measurement(a.task), measurement(b.task)
    for field in one:
        first, second = getattr(a.task, field), getattr(b.task, field)
        if one[field] != other[field]:
            return f"other {_WORDS.get(field, field)}: {_different(first, second)}"
    for field in ("id", "unit", "higher_is_better"):
        first, second = (getattr(result.primary, field, None) for result in (a, b))
        if first != second:
            return f"other primary metric: {field} {first} and {second}"
    return None


_WORDS = {
    "id": "task",
    "protocol_fingerprint": "protocol",
    "dataset_fingerprints": "data",
    "split_sizes": "number of samples",
    "groups": "number of groups",
    "limited": "limit",
    "score_version": "version of the scoring code",
}


def _different(first: Any, second: Any) -> str:
    """The parts that differ, short."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))
        return ", ".join(f"{key} {_short(first.get(key))} and {_short(second.get(key))}" for key in keys)
    return f"{_short(first)} and {_short(second)}"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:7] if is_digest else text


def paired(a: Measured, b: Measured, resamples: int = RESAMPLES) -> Estimate:
    """b − a in the primary metric, whole groups resampled, the same for both.

    The resamples follow from the task's id: the same results give the same numbers.
    Raises NotComparableError if the samples or the metrics are not the same.
    """
    if (reason := mismatch(a.result, b.result)) is not None:
        raise NotComparableError(reason)
    if a.ids != b.ids or a.groups != b.groups:
        only = set(a.ids) ^ set(b.ids)
        detail = f"{len(only)} are in one only, such as {min(only)!r}" if only else "order or groups differ"
        raise NotComparableError(f"other samples: {detail}")
    rng = np.random.default_rng([1, zlib.crc32(a.task.id.encode())])
    found = paired_difference(b.statistic, a.statistic, (b.ids, a.ids), a.groups, rng, resamples)
    return with_seeds(found[a.metric.id], a.between_seeds + b.between_seeds)
