from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dune_bench.errors import UsageError
from dune_bench.results.measured import NotComparableError, measure, mismatch, paired
from dune_bench.results.schema import Metric
from tests.results.example import example
from tests.results.pairs import mean_reducer, measured, result_of, rooms

GROUPS = rooms(12)
RNG = np.random.default_rng(0)
BASE = RNG.normal(1.0, 0.1, len(GROUPS))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": 2.0}, "is 2 in the file, but its per-sample statistics give"),
        ({"value": None}, "undefined"),
        ({"primary": False}, "no primary metric"),
    ],
)
def test_a_value_that_its_statistics_do_not_give_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotComparableError, match=reason):
        measured(BASE, GROUPS, metric=changes)


def test_nan_in_the_statistics_is_refused_and_not_left_out() -> None:
    result, arrays = result_of(BASE, GROUPS)
    arrays["value"] = np.where(np.arange(len(BASE)) == 3, np.nan, BASE)
    with pytest.raises(NotComparableError, match="give nan"):
        measure(result, arrays, mean_reducer)


@pytest.mark.parametrize("lost", ["id", "group", "value"])
def test_statistics_without_an_array_are_refused(lost: str) -> None:
    result, arrays = result_of(BASE, GROUPS)
    with pytest.raises(NotComparableError, match="run again"):
        measure(result, {k: v for k, v in arrays.items() if k != lost}, mean_reducer)


def test_a_failed_result_is_never_measured() -> None:
    failed = example(status="failed", error="NaN features", metrics=())
    with pytest.raises(NotComparableError, match="failed: NaN features"):
        measure(failed, {}, mean_reducer)


def test_a_reduction_without_the_primary_metric_says_so() -> None:
    def reduce(stats: object, metric: str) -> Any:
        raise KeyError(metric)

    with pytest.raises(NotComparableError, match="reduction finds no rmse_m"):
        measure(*result_of(BASE, GROUPS), lambda _: reduce)


def test_a_probe_without_a_reduction_says_so() -> None:
    def none(_: object) -> Any:
        raise UsageError("unknown reduction")

    with pytest.raises(NotComparableError, match="unknown reduction"):
        measure(*result_of(BASE, GROUPS), none)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": {"id": "depth/other/convex@1"}}, "other task"),
        ({"task": {"protocol_fingerprint": "e" * 64}}, "other protocol: fffffff and eeeeeee"),
        ({"task": {"dataset_fingerprints": {"test": "0" * 64}}}, "other data: test none and 0000000"),
        ({"task": {"input": {"resolution": 224}}}, "other input: resolution 336 and 224"),
        ({"task": {"overrides": {"dtype": "bfloat16"}}}, "other overrides: dtype none and bfloat16"),
        ({"task": {"limited": 8}}, "other limit: none and 8"),
        ({"task": {"score_version": 2}}, "other version of the scoring code: 1 and 2"),
        ({"task": {"split_sizes": {"test": 3}}}, "other number of samples"),
        ({"metric": {"id": "abs_rel"}}, "other primary metric: id rmse_m and abs_rel"),
        ({"metric": {"unit": "mm"}}, "other primary metric: unit m and mm"),
    ],
)
def test_another_measurement_is_never_paired(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotComparableError, match=reason):
        paired(measured(BASE, GROUPS), measured(BASE, GROUPS, **changes))


def test_limits_that_keep_the_same_samples_are_paired() -> None:
    eight, twelve = (measured(BASE, GROUPS, task={"limited": limit}) for limit in (8, 12))
    assert paired(eight, twelve).value == 0.0


def test_columns_of_the_leaderboard_and_pairs_have_one_rule() -> None:
    from dune_bench.report.board import column_identity

    plain = result_of(BASE, GROUPS)[0]
    for field, value in plain.task:
        numbers = {"limited": 3, "score_version": 9, "split_sizes": {"x": 1}, "groups": {"x": 1}}
        changed: Any = numbers.get(field)
        if changed is None:
            changed = {**value, "x": "y"} if isinstance(value, dict) else f"{value}x"
        other = plain.model_copy(update={"task": plain.task.model_copy(update={field: changed})})
        same_column = column_identity(plain.task) == column_identity(other.task)
        assert (mismatch(plain, other) is None) == same_column == (field == "upstream"), field


@pytest.mark.parametrize(
    ("groups", "reason"),
    [(rooms(11) + ["room99"] * 3, "are in one only"), (sorted(GROUPS, reverse=True), "are in one only")],
)
def test_other_samples_are_never_paired(groups: list[str], reason: str) -> None:
    with pytest.raises(NotComparableError, match=reason):
        paired(measured(BASE, GROUPS), measured(BASE, groups))


def test_other_groups_of_the_same_samples_are_never_paired() -> None:
    result, arrays = result_of(BASE, GROUPS)
    other = measure(result, {**arrays, "group": arrays["group"][::-1]}, mean_reducer)
    with pytest.raises(NotComparableError, match="order or groups differ"):
        paired(measured(BASE, GROUPS), other)


def test_the_difference_is_second_minus_first_and_repeats_exactly() -> None:
    a, b = measured(BASE, GROUPS), measured(BASE + 0.1 + 0.01 * RNG.normal(size=len(BASE)), GROUPS)
    found = paired(a, b)
    assert found.value == pytest.approx(0.1, abs=0.01)
    assert found == paired(a, b)
    back = paired(b, a)
    assert back.value == pytest.approx(-found.value)
    assert back.se == pytest.approx(found.se, rel=1e-9)


def test_spread_between_fit_seeds_widens_the_interval() -> None:
    shift = np.array([[-0.2], [0.0], [0.2]])
    noise = 0.01 * RNG.normal(size=len(BASE))
    still = measured(np.stack([BASE + noise] * 3), GROUPS)
    moving = measured(BASE + noise + shift, GROUPS)
    base = measured(np.stack([BASE] * 3), GROUPS)
    calm, wild = paired(base, still), paired(base, moving)
    assert wild.value == pytest.approx(calm.value)
    assert wild.se == pytest.approx(np.hypot(calm.se or 0, np.sqrt(0.04 / 3)))
    assert calm.ci95 is not None
    assert wild.ci95 is not None
    assert wild.ci95[0] < calm.ci95[0] < calm.ci95[1] < wild.ci95[1]


def test_per_sample_values_are_those_of_the_samples_alone() -> None:
    one = measured(BASE, GROUPS)
    np.testing.assert_allclose(one.per_sample(), BASE)
    seeds = measured(np.stack([BASE, BASE + 1, BASE + 2]), GROUPS)
    np.testing.assert_allclose(seeds.per_sample(), BASE + 1)


def test_per_sample_values_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dune_bench.results.measured._BLOCK_ITEMS", 5 * len(GROUPS))
    np.testing.assert_allclose(measured(BASE, GROUPS).per_sample(), BASE)


def test_the_metric_is_the_primary_one() -> None:
    metric = measured(BASE, GROUPS).metric
    assert isinstance(metric, Metric)
    assert metric.primary
