from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.errors import UsageError
from dune_bench.results.stats import (
    Estimate,
    Statistic,
    bootstrap,
    holm,
    minimum_detectable,
    paired_difference,
)


def mean_of(x: np.ndarray) -> Statistic:
    return lambda weights: {"mean": weights @ x / weights.sum(1)}


def rooms(groups: int, each: int) -> list[str]:
    return [f"room{g}" for g in range(groups) for _ in range(each)]


def estimate(x: np.ndarray, groups: list[str], seed: int = 0, resamples: int = 2000) -> Estimate:
    return bootstrap(mean_of(x), groups, np.random.default_rng(seed), resamples)["mean"]


@pytest.mark.parametrize(("groups", "skewed"), [(10, False), (30, False), (12, True), (30, True)])
def test_interval_covers_the_truth_as_often_as_it_says(groups: int, skewed: bool) -> None:
    """400 simulated splits of correlated samples: 95 % nominal, simulation error ±1.1 points (1 σ)."""
    covered = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        room = rng.exponential(size=groups) if skewed else rng.normal(1.0, 1.0, size=groups)
        x = np.repeat(room, 3) + 0.5 * rng.normal(size=3 * groups)
        low, high = bootstrap(mean_of(x), rooms(groups, 3), rng, 600)["mean"].ci95 or (0.0, 0.0)
        covered += low <= 1.0 <= high
    assert (0.89 if skewed else 0.92) <= covered / 400 <= 0.98


def test_interval_of_single_samples_would_be_too_narrow() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=20), 10)
    by_room = estimate(x, rooms(20, 10))
    by_sample = estimate(x, [str(i) for i in range(200)])
    assert by_room.se is not None
    assert by_sample.se is not None
    assert by_room.se > 2.5 * by_sample.se


def test_standard_error_is_not_off_the_formula() -> None:
    x = np.random.default_rng(0).normal(size=200)
    found = estimate(x, [str(i) for i in range(200)], resamples=20_000)
    assert found.se == pytest.approx(x.std() / np.sqrt(200), rel=0.03)
    assert found.value == pytest.approx(x.mean())


@pytest.mark.parametrize("groups", [1, 2, 9])
def test_too_few_groups_give_no_interval(groups: int) -> None:
    found = estimate(np.arange(groups * 4.0), rooms(groups, 4))
    assert (found.se, found.ci95, found.p_value, found.groups) == (None, None, None, groups)
    assert found.value == pytest.approx(np.arange(groups * 4.0).mean())


def test_equal_seeds_give_equal_intervals_and_other_seeds_others() -> None:
    x = np.random.default_rng(5).normal(size=60)
    assert estimate(x, rooms(20, 3), 1) == estimate(x, rooms(20, 3), 1)
    assert estimate(x, rooms(20, 3), 1) != estimate(x, rooms(20, 3), 2)


def test_interval_does_not_depend_on_the_blocks_of_the_computation(monkeypatch) -> None:
    x = np.random.default_rng(5).normal(size=60)
    whole = estimate(x, rooms(20, 3))
    monkeypatch.setattr("dune_bench.results.stats._BLOCK_ITEMS", 130)
    small = estimate(x, rooms(20, 3))
    assert small.ci95 == pytest.approx(whole.ci95, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10.0), st.floats(-50.0, 50.0), st.integers(0, 1000))
def test_interval_moves_with_shift_and_scale(scale: float, shift: float, seed: int) -> None:
    x = np.random.default_rng(seed).exponential(size=36)
    a = estimate(x, rooms(12, 3), resamples=300)
    b = estimate(scale * x + shift, rooms(12, 3), resamples=300)
    assert a.ci95 is not None
    assert b.ci95 == pytest.approx([scale * v + shift for v in a.ci95], abs=1e-7 * (1 + abs(shift)) * scale)


def test_undefined_resample_gives_no_interval_and_not_a_smaller_one() -> None:
    x = np.r_[np.full(11, np.nan), 1.0]

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        has = weights[:, 11] > 0
        return {"mean": np.where(has, 1.0, np.nan)}

    found = bootstrap(statistic, [str(i) for i in range(len(x))], np.random.default_rng(0), 200)["mean"]
    assert found.ci95 is None
    assert found.value == 1.0


def test_constant_metric_has_a_point_interval_and_certainty() -> None:
    found = estimate(np.full(40, 2.0), rooms(20, 2))
    assert found.ci95 == (2.0, 2.0)
    assert (found.se, found.p_value) == (0.0, 0.0)
    assert estimate(np.zeros(40), rooms(20, 2)).p_value == 1.0


def test_one_wild_group_does_not_turn_the_interval_inside_out() -> None:
    for wild in (1e3, -1e3):
        x = np.r_[np.linspace(-1e-3, 1e-3, 11), wild]
        found = estimate(x, [str(i) for i in range(12)])
        assert found.ci95 is not None
        assert found.ci95[0] <= found.value <= found.ci95[1]


def test_pairing_sees_what_separate_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.normal(0, 5, 20), 3)
    a = shared + 0.2 + 0.1 * rng.normal(size=60)
    ids = [str(i) for i in range(60)]
    groups = rooms(20, 3)
    paired = paired_difference(mean_of(a), mean_of(shared), (ids, ids), groups, rng, 2000)["mean"]
    assert paired.ci95 is not None
    assert paired.ci95[0] > 0
    alone = estimate(a, groups).ci95
    assert alone is not None
    assert alone[0] < shared.mean()


def test_p_value_says_the_same_as_the_interval() -> None:
    agree = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = estimate(rng.normal(0.25, 1.0, size=40), rooms(20, 2), seed)
        assert found.ci95 is not None
        assert found.p_value is not None
        agree += (found.p_value < 0.05) == (not found.ci95[0] <= 0.0 <= found.ci95[1])
    assert agree >= 59  # one at the very border may fall either way


@pytest.mark.parametrize(
    ("a", "b", "message"), [("abc", "abd", "2 are in one only"), ("abc", "acb", "order differs")]
)
def test_unequal_samples_are_never_paired(a: str, b: str, message: str) -> None:
    x = mean_of(np.ones(3))
    with pytest.raises(UsageError, match=message):
        paired_difference(x, x, (a, b), "abc", np.random.default_rng(0))


def test_groups_of_another_length_are_refused() -> None:
    x = mean_of(np.ones(3))
    with pytest.raises(UsageError, match="3 samples but 2 groups"):
        paired_difference(x, x, ("abc", "abc"), "ab", np.random.default_rng(0))


def test_holm_is_the_published_procedure() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_makes_a_p_value_smaller_nor_swaps_two(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(q >= min(1.0, v) for q, v in zip(adjusted, p, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_minimum_detectable_difference_is_found_four_times_in_five() -> None:
    groups, sd, found = 20, 1.0, 0
    true = minimum_detectable(sd / np.sqrt(groups), groups)
    for seed in range(300):
        x = np.random.default_rng(seed).normal(true, sd, size=groups)
        ci95 = estimate(x, [str(i) for i in range(groups)], seed, 400).ci95
        assert ci95 is not None
        found += ci95[0] > 0
    assert 0.72 <= found / 300 <= 0.9


def test_five_tasks_of_a_thousand_samples_take_no_five_seconds() -> None:
    x = np.random.default_rng(0).normal(size=1000)
    start = time.process_time()
    for seed in range(5):
        estimate(x, rooms(200, 5), seed, 10_000)
    assert time.process_time() - start < 10.0  # processor seconds of both cores


def test_statistics_import_no_torch() -> None:
    code = "import sys, dune_bench.results.stats; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
