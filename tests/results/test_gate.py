from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from dune_bench.errors import ExitCode
from dune_bench.results.baseline import make_baseline
from dune_bench.results.gate import Check, Gate, check_task, not_comparable, notices
from dune_bench.results.measured import NotComparableError
from dune_bench.results.stats import tolerance_factor
from tests.results.pairs import Array, measured, result_of, rooms

GROUPS = rooms(20)
RNG = np.random.default_rng(2)
BASE = RNG.normal(1.0, 0.3, len(GROUPS))


def check(change: Array | float, spread: float = 0.0, tests: int = 5, **changes: Any) -> Check:
    shift = change + spread * RNG.normal(size=len(GROUPS))
    return check_task(
        measured(BASE, GROUPS, **changes), measured(BASE + shift, GROUPS, **changes), tests, 1000
    )


@pytest.mark.parametrize(
    ("change", "higher", "verdict"),
    [
        (0.03, False, "regressed"),
        (0.03, True, "improved"),
        (-0.03, True, "regressed"),
        (-0.03, False, "improved"),
        (0.019, False, "ok"),
        (-0.019, True, "ok"),
    ],
)
def test_only_a_drop_beyond_the_margin_fails_in_either_direction(
    change: float, higher: bool, verdict: str
) -> None:
    found = check(change, metric={"higher_is_better": higher})
    assert found.verdict == verdict
    assert found.tolerance == 0.02
    assert found.drop == pytest.approx(-change if higher else change)


def test_noise_beyond_the_margin_does_not_fail() -> None:
    found = check(0.0, spread=0.5)
    assert found.se is not None
    assert found.factor is not None
    assert found.factor >= tolerance_factor(20, 5)
    assert found.tolerance == found.factor * found.se
    assert found.tolerance > 0.1
    assert found.verdict == "ok"
    assert found.underpowered is True


def test_a_sure_drop_fails_also_without_a_margin() -> None:
    assert check(0.001, spread=0.0001, metric={"margin": None}).verdict == "regressed"
    assert check(0.001, spread=0.0001).verdict == "ok"
    assert check(0.001, spread=0.0001, metric={"margin": None}).underpowered is None


def test_the_same_result_has_no_drop_and_no_minus_zero() -> None:
    found = check(0.0)
    assert (found.verdict, str(found.drop), found.se, found.underpowered) == ("ok", "0.0", 0.0, False)


def test_more_tasks_need_a_larger_drop() -> None:
    one, many = tolerance_factor(30, 1), tolerance_factor(30, 20)
    assert 1.7 < one < 1.75
    assert many > one + 1
    with pytest.raises(ValueError, match="two groups"):
        tolerance_factor(1, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": {"limited": 8}}, "the baseline is of --limit 8"),
        ({"values": np.stack([BASE, BASE])}, "2 fit seeds, a gate needs at least 3"),
        ({"groups": rooms(5, 12)}, "5 groups: a standard error needs at least 10"),
        ({"second": {"encoder": {"weights": "random"}}}, "random weights"),
        ({"second": {"task": {"score_version": 2}}}, "scoring code"),
    ],
)
def test_what_cannot_be_compared_is_never_a_pass(changes: dict[str, Any], reason: str) -> None:
    values, groups = changes.pop("values", BASE), changes.pop("groups", GROUPS)
    second = changes.pop("second", changes)
    with pytest.raises(NotComparableError, match=reason):
        check_task(measured(values, groups, **changes), measured(values, groups, **second), 5, 200)


def test_a_metric_undefined_in_some_resample_is_not_compared() -> None:
    a, b = measured(BASE, GROUPS), measured(BASE, GROUPS)

    (plain,) = a.per_seed

    def absent(weights: Array) -> Array:
        return np.where(weights[:, 0] > 0, plain(weights), np.nan)

    b = replace(b, per_seed=(absent,))
    with pytest.raises(NotComparableError, match="undefined in some resamples"):
        check_task(a, b, 1, 200)


def gate_of(*verdicts: str) -> Gate:
    result, arrays = result_of(BASE, GROUPS)
    baseline = make_baseline([(result, arrays)], datetime(2026, 1, 1, tzinfo=UTC))
    checks = [Check(result.task, result.primary, verdict) for verdict in verdicts]  # type: ignore[arg-type]
    return Gate("toy", result.encoder, baseline, tuple(checks), measured="2026-01-02", stale=False)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (("ok", "improved"), ExitCode.OK),
        (("ok", "not comparable"), ExitCode.UNAVAILABLE),
        (("regressed", "not comparable", "improved"), ExitCode.FAILED),
    ],
)
def test_one_bad_task_decides_the_exit_code(verdicts: tuple[str, ...], code: ExitCode) -> None:
    assert gate_of(*verdicts).exit_code is code


def test_notices_name_improvements_missing_margins_and_moved_ones() -> None:
    result, _ = result_of(BASE, GROUPS)
    better = check(-0.1)
    bare = check(0.0, metric={"margin": None})
    lost = not_comparable(result.task, result.primary, "failed")
    said = notices([better, bare, lost], [result.primary, result.primary, result.primary])
    assert len(said) == 3
    assert "improved: --update" in said[0]
    assert "no margin" in said[1]
    assert "the margin is none now, 0.02 before" in said[2]


def test_false_alarms_and_power_of_five_tasks_are_what_the_gate_promises() -> None:
    """Without margins: at most 5 % of gates fail if nothing dropped, and the drop said to be detectable
    is found 9 times in 10.  400 gates: ±1.1 points (1 σ)."""
    failed, found, trials, tests = 0, 0, 400, 5
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        checks = []
        for _ in range(tests):
            change = np.repeat(rng.normal(size=20), 3) + 0.3 * rng.normal(size=60)
            a = measured(np.zeros(60), GROUPS, metric={"margin": None})
            b = measured(change, GROUPS, metric={"margin": None})
            checks.append(check_task(a, b, tests, 250))
        failed += any(check.verdict == "regressed" for check in checks)
        drop, detectable, tolerance = checks[0].drop, checks[0].detectable, checks[0].tolerance
        assert drop is not None
        assert detectable is not None
        assert tolerance is not None
        found += drop + detectable > tolerance
    assert failed / trials <= 0.075
    assert found / trials >= 0.85


@pytest.mark.parametrize("groups", [10, 20, 30])
@pytest.mark.parametrize(("shape", "at_most"), [(None, 0.012), (4.0, 0.019), (1.0, 0.041)])
def test_rooms_that_gain_much_do_not_cause_many_false_alarms(
    groups: int, shape: float | None, at_most: float
) -> None:
    """One of five tasks, nominal 1 %: normal rooms, and gamma ones with a tail of skewness −1 and −2."""
    rng = np.random.default_rng(0)
    size = (20_000, groups)
    drops = rng.normal(size=size) if shape is None else shape - rng.gamma(shape, size=size)
    away = drops - drops.mean(1, keepdims=True)
    se = drops.std(1) / np.sqrt(groups)
    skew = (away**3).sum(1) / (6.0 * (away**2).sum(1) ** 1.5)
    factors = np.array([tolerance_factor(groups, 5, acceleration=a) for a in skew])
    rate = np.mean(drops.mean(1) > factors * se)
    assert rate <= at_most
    assert rate < np.mean(drops.mean(1) > tolerance_factor(groups, 5) * se)


def test_a_longer_tail_on_the_failing_side_raises_the_tolerance_and_never_lowers_it() -> None:
    plain = tolerance_factor(20, 5)
    assert tolerance_factor(20, 5, acceleration=0.05) == plain
    assert plain + 0.7 < tolerance_factor(20, 5, acceleration=-0.05) < plain + 0.9
    change = np.repeat(np.r_[np.zeros(19), -1.0], 3)
    gain, loss = check(change), check(-change)
    assert gain.factor is not None
    assert loss.factor == pytest.approx(plain)
    assert gain.factor > plain + 1
