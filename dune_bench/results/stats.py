"""Intervals and comparisons by a cluster bootstrap.

Samples of one room are alike, so whole groups are drawn, never single samples.  A metric is a
function of weights: `statistic(weights)` takes (R, n) multiplicities of the samples and returns (R,)
values per metric, so that thousands of resamples are a few matrix products.

Intervals are BCa (Efron 1987: corrected for bias and acceleration by a jackknife over groups) with the
normal quantiles widened to sqrt(G / (G − 1)) · t_{G−1}, without which a bootstrap of few groups is too
narrow (Hesterberg 2015, "What teachers should know about the bootstrap", §4.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, stdtr, stdtrit

from dune_bench.errors import UsageError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Mapping[str, Floats]]
"""Weights (R, n) -> metric id -> (R,) values, NaN where undefined."""

RESAMPLES = 10_000
MIN_GROUPS = 10
"""With fewer groups no interval is given: any would be a guess."""
LEVEL = 0.95
_SURE = 0.9
_BLOCK_ITEMS = 2**20
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A metric (or a difference) with its uncertainty.

    value: of all samples.  se: bootstrap standard error.  ci95: 95 % interval.  p_value: two-sided,
    against 0, by inversion of that interval.  se, ci95 and p_value are None if there are fewer than
    10 groups or if the value is undefined in some resample.  p_is_bound: every resample fell on one side
    of 0, so that the p-value is only known to be no larger: print it with `<`.  acceleration: skewness of
    the groups' influence / (6 √groups), positive if single groups pull the value up.
    """

    value: float
    se: float | None
    ci95: tuple[float, float] | None
    p_value: float | None
    groups: int
    p_is_bound: bool = False
    acceleration: float = 0.0


def bootstrap(
    statistic: Statistic, groups: Sequence[str], rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Estimates of every metric of `statistic`.  groups: the group of each of the n samples."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = len(names)
    whole = statistic(np.ones((1, len(index))))
    if count < MIN_GROUPS:
        return {m: Estimate(float(v[0]), None, None, None, count) for m, v in whole.items()}
    jackknife = _collect(statistic, _leave_one_out(count), index)
    replicates = _collect(statistic, _draws(count, resamples, rng), index)
    return {m: _estimate(float(v[0]), replicates[m], jackknife[m]) for m, v in whole.items()}


def paired_difference(
    first: Statistic,
    second: Statistic,
    ids: tuple[Sequence[str], Sequence[str]],
    groups: Sequence[str],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Estimates of first − second for every metric both have, on the same resamples of the same
    samples.  ids: sample ids of each, in the order of its statistics.  Raises UsageError if they
    differ: a pairing of unequal samples is none."""
    a, b = ids
    if list(a) != list(b):
        only = sorted(set(a) ^ set(b))
        reason = f"{len(only)} are in one only, such as {only[0]!r}" if only else "their order differs"
        raise UsageError(f"the two results are not of the same samples: {reason}")
    if len(a) != len(groups):
        raise UsageError(f"{len(a)} samples but {len(groups)} groups")

    def difference(weights: Floats) -> Mapping[str, Floats]:
        left, right = first(weights), second(weights)
        return {m: left[m] - right[m] for m in left if m in right}

    return bootstrap(difference, groups, rng, resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm 1979), in the given order: compare each with the level."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def minimum_detectable(se: float, groups: int, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided 5 % test with this standard error finds with
    probability `power`."""
    if groups < 2:
        raise ValueError("a standard error needs at least two groups")
    return float(stdtrit(groups - 1, 0.5 + LEVEL / 2) + stdtrit(groups - 1, power)) * se


def with_seeds(estimate: Estimate, between: float) -> Estimate:
    """The estimate when other fit seeds would move it, too.

    between: variance of the mean over the seeds, `var / S`.  The interval's half-widths grow by
    sqrt(1 + between / se²); the p-value is that of the grown interval.
    """
    if estimate.se is None or estimate.ci95 is None or estimate.p_value is None or between == 0.0:
        return estimate
    se, freedom = math.hypot(estimate.se, math.sqrt(between)), estimate.groups - 1
    if estimate.se == 0.0:
        half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * se
        p_value = 2.0 * float(stdtr(freedom, -abs(estimate.value) / se))
        ends = (estimate.value - half, estimate.value + half)
        return replace(estimate, se=se, ci95=ends, p_value=p_value)
    growth = se / estimate.se
    low, high = (estimate.value + growth * (bound - estimate.value) for bound in estimate.ci95)
    distance = -float(stdtrit(freedom, estimate.p_value / 2.0)) / growth
    p_value = 2.0 * float(stdtr(freedom, -distance))
    return replace(estimate, se=se, ci95=(low, high), p_value=p_value)


def tolerance_factor(
    groups: int, tests: int, false_alarms: float = 1.0 - LEVEL, acceleration: float = 0.0
) -> float:
    """k: a rise beyond k · SE is found in one of `tests` metrics with a probability of at most
    `false_alarms` if none has risen.

    Bonferroni over the tests, one-sided, by Student's t with groups − 1 degrees of freedom; the factor
    sqrt(G / (G − 1)) makes up for the narrowness of a bootstrap of few groups.  acceleration: of the
    estimate that is tested.  If it is negative the t statistic has a longer upper tail, and k grows by the
    first term of its Edgeworth expansion, −a (2 k² + 1) (Hall 1992, The Bootstrap and Edgeworth
    Expansion, §2.4); it never shrinks.
    """
    if groups < 2:
        raise ValueError("a standard error needs at least two groups")
    plain = float(stdtrit(groups - 1, 1.0 - false_alarms / tests))
    # The skewness of a small sample is too small on average; this is its usual correction.
    unbiased = math.sqrt(groups * (groups - 1)) / max(1, groups - 2)
    return _widening(groups) * (plain + unbiased * max(0.0, -acceleration) * (2.0 * plain**2 + 1.0))


def detectable_drop(se: float, groups: int, margin: float, factor: float, power: float = 0.9) -> float:
    """A true drop that exceeds max(margin, factor · SE) with probability `power`, or more.

    se: estimated from `groups` groups, so itself uncertain; taken at its upper limit of 90 % confidence
    (χ² with groups − 1 degrees of freedom), or a lucky small one would promise too much.
    """
    freedom = groups - 1
    limit = se * math.sqrt(freedom / float(2.0 * gammaincinv(freedom / 2.0, 1.0 - _SURE)))
    return max(margin, factor * limit) + _widening(groups) * float(stdtrit(freedom, power)) * limit


def _widening(groups: int) -> float:
    return math.sqrt(groups / (groups - 1))


def _draws(count: int, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Multiplicities (r, G) of G groups drawn with replacement, in blocks of bounded size."""
    block = max(1, _BLOCK_ITEMS // count)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _leave_one_out(count: int) -> Iterator[Floats]:
    block = max(1, _BLOCK_ITEMS // count)
    for start in range(0, count, block):
        yield 1.0 - np.eye(count)[start : start + block]


def _collect(statistic: Statistic, blocks: Iterator[Floats], index: NDArray[Any]) -> dict[str, Floats]:
    """The metrics under group multiplicities, spread to the groups' samples."""
    values: dict[str, list[Floats]] = {}
    samples = len(index)
    for multiplicities in blocks:
        rows = max(1, _BLOCK_ITEMS // samples)
        for start in range(0, len(multiplicities), rows):
            found = statistic(multiplicities[start : start + rows, index])
            for name, value in found.items():
                values.setdefault(name, []).append(value)
    return {name: np.concatenate(parts) for name, parts in values.items()}


def _estimate(value: float, replicates: Floats, jackknife: Floats) -> Estimate:
    count = len(jackknife)
    if not (math.isfinite(value) and np.isfinite(replicates).all() and np.isfinite(jackknife).all()):
        return Estimate(value, None, None, None, count)
    bca = _Bca(value, replicates, jackknife)
    tail = (1.0 - LEVEL) / 2
    ci95 = (bca.bound(tail), bca.bound(1.0 - tail))
    one_side = bool(bca.sorted[0] > 0.0 or bca.sorted[-1] < 0.0)
    return Estimate(
        value, float(replicates.std(ddof=1)), ci95, bca.p_value(), count, one_side, bca.acceleration
    )


class _Bca:
    """Bias-corrected and accelerated bounds from sorted replicates."""

    def __init__(self, value: float, replicates: Floats, jackknife: Floats) -> None:
        self.sorted = np.sort(replicates)
        self.value = value
        self.groups = len(jackknife)
        self.stretch = _widening(self.groups)
        self.bias = _NORMAL.inv_cdf(self._share_below(value))
        away = jackknife.mean() - jackknife
        spread = float((away**2).sum())
        self.acceleration = float((away**3).sum()) / (6.0 * spread**1.5) if spread > 0 else 0.0

    def _share_below(self, value: float) -> float:
        """Share of replicates below `value`, ties by half, kept off 0 and 1."""
        low = int(np.searchsorted(self.sorted, value, "left"))
        high = int(np.searchsorted(self.sorted, value, "right"))
        return (0.5 * (low + high) + 0.5) / (len(self.sorted) + 1.0)

    def bound(self, probability: float) -> float:
        """The value that the metric is below with this confidence."""
        z = self.stretch * float(stdtrit(self.groups - 1, probability)) + self.bias
        level = _NORMAL.cdf(self.bias + _bend(z, -self.acceleration))
        return float(np.quantile(self.sorted, level))

    def p_value(self) -> float:
        """Twice the confidence of the one-sided bound that touches 0."""
        if self.sorted[0] == self.sorted[-1]:
            return 1.0 if self.sorted[0] == 0.0 else 0.0
        shifted = _NORMAL.inv_cdf(self._share_below(0.0)) - self.bias
        z = _bend(shifted, self.acceleration) - self.bias
        tail = float(stdtr(self.groups - 1, z / self.stretch))
        return min(1.0, 2.0 * min(tail, 1.0 - tail))


def _bend(z: float, acceleration: float) -> float:
    """z / (1 + a z), the acceleration's map; beyond its pole it stays infinite, instead of coming back
    with the other sign."""
    denominator = 1.0 + acceleration * z
    return z / denominator if denominator > 0 else math.copysign(math.inf, z)
