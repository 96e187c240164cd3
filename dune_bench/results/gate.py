"""The gate: did a new checkpoint get worse than its baseline?  One primary metric a task, drops only.

A task regresses if its drop exceeds the tolerance, max(margin, k · SE): more than matters in practice,
and more than the data's noise explains.  SE is that of the paired difference; k spreads 5 % of false
alarms over the tasks (Bonferroni: the verdict of the whole gate is then that of Holm's procedure, as
both fail exactly if the smallest p-value is below level / tasks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dune_bench.errors import ExitCode, worst
from dune_bench.results.baseline import Baseline
from dune_bench.results.measured import Measured, NotComparableError, paired
from dune_bench.results.schema import EncoderInfo, Metric, TaskInfo
from dune_bench.results.stats import MIN_GROUPS, RESAMPLES, detectable_drop, tolerance_factor

POWER = 0.9
FALSE_ALARMS = 0.05
MIN_SEEDS = 3
"""Fewer fit seeds say nothing about what other seeds would give: not gated."""

Verdict = Literal["ok", "improved", "regressed", "not comparable"]


@dataclass(frozen=True)
class Check:
    """One task.

    before, after: the baseline's value and the new one, in the metric's unit.  drop: positive is worse,
    whatever the metric's direction.  se: of the drop.  tolerance: a larger drop is a regression.
    detectable: a true drop that is found 9 times in 10, or more often.  underpowered: that is more than twice
    the margin; None without a margin.  reason: why it is not comparable; then the numbers are None.
    """

    task: TaskInfo
    metric: Metric | None
    verdict: Verdict
    before: float | None = None
    after: float | None = None
    drop: float | None = None
    se: float | None = None
    factor: float | None = None
    tolerance: float | None = None
    detectable: float | None = None
    groups: int | None = None
    reason: str | None = None

    @property
    def margin(self) -> float | None:
        return None if self.metric is None else self.metric.margin

    @property
    def underpowered(self) -> bool | None:
        if self.margin is None or self.detectable is None:
            return None
        return self.detectable > 2.0 * self.margin


@dataclass(frozen=True)
class Gate:
    """The verdict on an encoder.

    label, encoder: what was checked.  measured: start of its newest run, UTC, ISO 8601.  stale: every
    result checked is the baseline's own, so that nothing new was measured.
    """

    label: str
    encoder: EncoderInfo
    baseline: Baseline
    checks: tuple[Check, ...]
    measured: str
    stale: bool
    notices: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """0 ok, 1 a task regressed, 3 one is not comparable (and none regressed)."""
        codes = {"regressed": ExitCode.FAILED, "not comparable": ExitCode.UNAVAILABLE}
        return worst(codes.get(check.verdict, ExitCode.OK) for check in self.checks)

    @property
    def verdict(self) -> str:
        """In words."""
        words = {ExitCode.OK: "passed", ExitCode.FAILED: "regressed", ExitCode.UNAVAILABLE: "not comparable"}
        return words[self.exit_code]

    @property
    def remark(self) -> str:
        """What a verdict on the baseline's own weights does not say; empty for other weights."""
        if self.stale:
            return "the same weights as the baseline's, nothing new was measured"
        if self.encoder.digest is not None and self.encoder.digest == self.baseline.encoder.digest:
            return "the same weights as the baseline's, measured again"
        return ""

    def count(self, verdict: Verdict) -> int:
        return sum(check.verdict == verdict for check in self.checks)


def check_task(before: Measured, after: Measured, tests: int, resamples: int = RESAMPLES) -> Check:
    """Checks one of `tests` tasks.  Raises NotComparableError with the reason.

    The margin is that of the new result: the card as it is now.
    """
    for measured, whose in ((before, "the baseline"), (after, "the new result")):
        if measured.task.limited is not None:
            raise NotComparableError(f"{whose} is of --limit {measured.task.limited}")
        if 0 < len(measured.result.seeds) < MIN_SEEDS:
            count = len(measured.result.seeds)
            raise NotComparableError(f"{whose} has {count} fit seeds, a gate needs at least {MIN_SEEDS}")
    if (before.result.encoder.weights == "random") != (after.result.encoder.weights == "random"):
        raise NotComparableError("one has random weights, the other has not")
    estimate = paired(before, after, resamples)
    if estimate.groups < MIN_GROUPS:
        raise NotComparableError(f"{estimate.groups} groups: a standard error needs at least {MIN_GROUPS}")
    if estimate.se is None:
        raise NotComparableError(f"{after.metric.id} is undefined in some resamples: no standard error")
    drop = 0.0 - after.sign * estimate.value  # 0.0 −: no negative zero
    factor = tolerance_factor(
        estimate.groups, tests, FALSE_ALARMS, acceleration=-after.sign * estimate.acceleration
    )
    tolerance = max(after.metric.margin or 0.0, factor * estimate.se)
    verdict: Verdict = "ok"
    if drop > tolerance:
        verdict = "regressed"
    elif -drop > tolerance:
        verdict = "improved"
    return Check(
        task=after.task,
        metric=after.metric,
        verdict=verdict,
        before=before.metric.value,
        after=after.metric.value,
        drop=drop,
        se=estimate.se,
        factor=factor,
        tolerance=tolerance,
        detectable=detectable_drop(estimate.se, estimate.groups, after.metric.margin or 0.0, factor, POWER),
        groups=estimate.groups,
    )


def not_comparable(task: TaskInfo, metric: Metric | None, reason: str) -> Check:
    return Check(task, metric, "not comparable", reason=reason)


def notices(checks: Sequence[Check], before: Sequence[Metric | None]) -> list[str]:
    """What a reader should know beside the verdicts.  before: the baseline's metrics, in order."""
    found = []
    for check, old in zip(checks, before, strict=True):
        name = check.task.id
        if check.verdict == "improved":
            found.append(f"{name} improved: --update makes this the new baseline")
        if check.underpowered and check.verdict == "ok":
            found.append(
                f"{name} is underpowered: {check.groups} groups may not show a drop of twice the margin"
            )
        if check.verdict == "not comparable":
            continue
        if check.margin is None:
            found.append(f"{name}: its card declares no margin, so any drop beyond the noise fails")
        if old is not None and old.margin != check.margin:
            found.append(f"{name}: the margin is {check.margin or 'none'} now, {old.margin or 'none'} before")
    return found
