"""Which samples are shown: by rank of the stored result, by name, or over all groups."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.errors import UsageError
from dune_bench.registry.cards import MetricSpec
from dune_bench.run.panel_pick import Pick, by_name, by_rank, evenly, ranking

LOWER = MetricSpec(id="rmse_m", unit="m", higher_is_better=False, primary=True)
HIGHER = MetricSpec(id="rmse_m", unit="m", higher_is_better=True, primary=True)
PROBE: Any = SimpleNamespace(reduce=lambda stats, weights: {"rmse_m": np.sqrt(weights @ stats["se"])})


def arrays(values: list[float], **more: Any) -> dict[str, Any]:
    names = np.array([f"s{i}" for i in range(len(values))])
    return {"id": names, "group": names, "se": np.array(values) ** 2, **more}


def test_worst_is_first_in_either_direction() -> None:
    values = arrays([2.0, 1.0, 3.0])
    assert ranking(PROBE, values, LOWER, None) == ["s2", "s0", "s1"]
    assert ranking(PROBE, values, HIGHER, None) == ["s1", "s0", "s2"]


def test_failed_sample_is_the_worst_and_undefined_one_has_no_rank() -> None:
    values = arrays([2.0, np.nan, 3.0, np.nan], failed=np.array([False, True, False, False]))
    assert ranking(PROBE, values, LOWER, None) == ["s1", "s2", "s0"]


def test_statistics_of_one_seed_are_ranked() -> None:
    values = arrays([0.0, 0.0])
    del values["se"]
    values |= {"seed1.se": np.array([1.0, 4.0]), "seed2.se": np.array([9.0, 0.0])}
    assert ranking(PROBE, values, LOWER, 1) == ["s1", "s0"]
    assert ranking(PROBE, values, LOWER, 2) == ["s0", "s1"]


RANKED = [f"s{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("pick", "count", "expected"),
    [
        (Pick.spread, 4, [0, 3, 6, 9]),
        (Pick.spread, 1, [4]),
        (Pick.spread, 2, [0, 9]),
        (Pick.worst, 3, [0, 1, 2]),
        (Pick.best, 3, [7, 8, 9]),
        (Pick.median, 2, [4, 5]),
        (Pick.spread, 99, list(range(10))),
        (Pick.best, 99, list(range(10))),
    ],
)
def test_choice_by_rank(pick: Pick, count: int, expected: list[int]) -> None:
    ids = list(reversed(RANKED))  # the split's order is not the ranking's
    chosen = by_rank(ids, RANKED, pick, count)
    assert [ids[one.index] for one in chosen] == [RANKED[i] for i in expected]


def test_place_counts_from_the_best() -> None:
    places = [one.place for one in by_rank(RANKED, RANKED, Pick.spread, 4)]
    assert places == ["worst of 10", "rank 7 of 10 (1 is best)", "rank 4 of 10 (1 is best)", "best of 10"]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.integers(1, 40))
def test_even_choice_leaves_out_no_group_before_taking_one_twice(groups: list[str], count: int) -> None:
    chosen = [one.index for one in evenly(groups, count)]
    assert len(chosen) == len(set(chosen)) == min(count, len(groups))
    taken = [groups[i] for i in chosen]
    if count >= len(set(groups)):
        assert set(taken) == set(groups)
    else:
        assert len(set(taken)) == count


def test_names_and_globs_select_in_their_order() -> None:
    ids = ["test/a/0", "test/a/1", "test/b/0"]
    assert [one.index for one in by_name(ids, ["test/b/0", "test/a/*"])] == [2, 0, 1]
    assert [one.index for one in by_name(ids, ["*/0", "test/a/0"])] == [0, 2]


def test_unknown_sample_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean test/a/0"):
        by_name(["test/a/0", "test/b/7"], ["test/a/9"])
