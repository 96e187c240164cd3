from __future__ import annotations

import numpy as np
import pytest

from dune_bench.results.compare import TaskComparison, adjusted, compare_task, worst_samples
from dune_bench.results.stats import holm
from tests.results.pairs import Array, measured, rooms

GROUPS = rooms(12)
RNG = np.random.default_rng(1)
BASE = RNG.normal(1.0, 0.3, len(GROUPS))


def compare(
    change: Array, higher: bool = False, groups: list[str] = GROUPS, worst: int = 10
) -> TaskComparison:
    metric = {"higher_is_better": higher}
    base = BASE[: len(groups)]
    a, b = measured(base, groups, metric=metric), measured(base + change, groups, metric=metric)
    return compare_task(a, b, worst, resamples=2000)


def noise(mean: float = 0.0) -> Array:
    return mean + 0.01 * RNG.normal(size=len(GROUPS))


@pytest.mark.parametrize(
    ("mean", "higher", "outcome"),
    [(0.1, False, "worse"), (0.1, True, "better"), (-0.1, False, "better"), (-0.1, True, "worse")],
)
def test_better_follows_the_metrics_direction(mean: float, higher: bool, outcome: str) -> None:
    found = compare(noise(mean), higher)
    assert found.outcome == outcome
    assert found.second - found.first == pytest.approx(found.difference.value)


def test_noise_is_not_called_better() -> None:
    assert compare(0.5 * RNG.normal(size=len(GROUPS))).outcome == "undecided"
    assert compare(np.zeros(len(GROUPS))).outcome == "undecided"


def test_a_verdict_does_not_contradict_the_adjusted_p_value_beside_it() -> None:
    doubtful = compare(noise(0.0) + 0.1 * RNG.normal(size=len(GROUPS)))
    for _ in range(200):
        found = compare(0.01 * RNG.normal(size=len(GROUPS)))
        if found.difference.p_value is not None and 0.02 < found.difference.p_value < 0.045:
            doubtful = found
            break
    assert doubtful.outcome in ("better", "worse")
    many = adjusted([doubtful, *(compare(np.zeros(len(GROUPS))) for _ in range(4))])
    assert many[0].p_holm is not None
    assert many[0].p_holm >= 0.05
    assert many[0].outcome == "not after Holm"


def test_few_groups_have_no_verdict() -> None:
    found = compare(np.full(27, 0.3), groups=rooms(9))
    assert (found.outcome, found.p_holm) == ("no interval", None)


def test_worst_samples_are_the_greatest_losses_and_no_gains() -> None:
    change = np.zeros(len(GROUPS))
    change[[4, 20, 7]] = 0.3, 0.9, -2.0
    found = compare(change).worst
    assert [sample.id for sample in found] == ["room06/20", "room01/4"]
    assert found[0].second - found[0].first == pytest.approx(0.9)
    assert [s.id for s in compare(change, higher=True).worst] == ["room02/7"]
    assert len(compare(np.ones(len(GROUPS)), worst=3).worst) == 3
    assert compare(np.ones(len(GROUPS)), worst=0).worst == ()


def test_a_sample_without_a_value_is_counted_and_not_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = measured(BASE, GROUPS), measured(BASE + 1, GROUPS)
    alone = np.where(np.arange(len(BASE)) < 2, np.nan, BASE + 1)
    monkeypatch.setattr(type(b), "per_sample", lambda self: alone if self is b else BASE)
    samples, undefined = worst_samples(a, b, 100)
    assert undefined == 2
    assert len(samples) == len(BASE) - 2
    assert "room00/0" not in {sample.id for sample in samples}


def test_p_values_are_adjusted_over_the_tasks_that_have_one() -> None:
    tasks = [compare(noise(0.004)), compare(np.full(27, 0.3), groups=rooms(9)), compare(noise(0.006))]
    found = adjusted(tasks)
    expected = holm([tasks[0].difference.p_value or 0, tasks[2].difference.p_value or 0])
    assert [found[0].p_holm, found[2].p_holm] == pytest.approx(expected)
    assert found[1].p_holm is None
