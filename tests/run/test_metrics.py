from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.errors import TaskError
from dune_bench.probes.base import Breakdown, SilentProgress
from dune_bench.registry.cards import MetricSpec
from dune_bench.run.metrics import intervals_of, make_breakdowns, make_metrics, values_of
from dune_bench.run.probing import rng_of, score_all
from tests.run.fakes import LineConstants, LineProbe

RMSE = MetricSpec(id="rmse_m", unit="m", higher_is_better=False, primary=True)
NOTHING = MetricSpec(id="nothing", unit="1", higher_is_better=True)


class Odd(LineProbe):
    """A probe that scores as it is told."""

    rows: tuple[dict[str, Any], ...] = ()

    def score(self, prediction: Any, sample: Any) -> dict[str, Any]:
        return self.rows[int(prediction)]


def scored(*rows: dict[str, Any], predictions: int | None = None) -> dict[str, np.ndarray]:
    probe = Odd(LineConstants())
    probe.rows = rows
    count = len(rows) if predictions is None else predictions
    samples = Lazy([LazyItem(f"s{i}", "g", (), lambda: _Sample()) for i in range(len(rows))])
    return score_all(probe, iter(range(count)), samples, SilentProgress())


class _Sample:
    id = "s"


def test_statistics_are_stacked_in_order() -> None:
    found = scored({"a": np.float64(1), "b": np.arange(2)}, {"a": np.float64(2), "b": np.arange(2) + 5})
    np.testing.assert_array_equal(found["a"], [1.0, 2.0])
    np.testing.assert_array_equal(found["b"], [[0, 1], [5, 6]])


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"a": np.float64(1)}, "has statistics ['a'], not ['a', 'b']"),
        ({"a": np.float64(1), "b": np.arange(3)}, "statistic 'b' of sample s is int64 (3,)"),
        ({"a": np.float32(1), "b": np.arange(2)}, "statistic 'a' of sample s is float32"),
    ],
)
def test_statistics_that_change_their_shape_are_refused(second: dict[str, Any], words: str) -> None:
    with pytest.raises(TaskError) as caught:
        scored({"a": np.float64(1), "b": np.arange(2)}, second)
    assert words in str(caught.value)


def test_sample_without_a_prediction_is_not_left_out() -> None:
    with pytest.raises(TaskError, match="predicted 1 of 2 samples"):
        scored({"a": np.float64(1)}, {"a": np.float64(2)}, predictions=1)


def test_probe_cannot_overwrite_ids_and_groups() -> None:
    with pytest.raises(TaskError, match="may not be called 'group'"):
        scored({"group": np.float64(1)})


def test_infinite_metric_is_an_error_and_undefined_is_null() -> None:
    probe = LineProbe(LineConstants())
    with pytest.raises(TaskError, match="rmse_m is infinite"):
        values_of(probe, {"se": np.array([1.0, np.inf])}, [RMSE])
    stats = {"se": np.array([1.0, 4.0]), "failed": np.array([False, True])}
    values = values_of(probe, stats, [RMSE, NOTHING])
    intervals = {"rmse_m": None, "nothing": None}
    rmse, nothing = make_metrics([RMSE, NOTHING], [values], intervals, stats)
    assert (rmse.value, rmse.n, rmse.n_failed) == (pytest.approx(np.sqrt(2.5)), 2, 1)
    assert nothing.value is None


def test_few_groups_give_no_interval_and_undefined_metrics_neither() -> None:
    probe, rng = LineProbe(LineConstants()), np.random.default_rng(0)
    se = rng.random(36)
    for groups, expected in ((9, False), (12, True)):
        names = [f"g{i % groups}" for i in range(36)]
        found = intervals_of(probe, [{"se": se}], names, [RMSE, NOTHING], np.random.default_rng(1))
        assert (found["rmse_m"] is not None) is expected
        assert found["nothing"] is None


def test_interval_is_the_same_every_time_and_another_for_another_task() -> None:
    probe = LineProbe(LineConstants())
    stats = [{"se": np.random.default_rng(0).random(48)}]
    groups = [f"g{i // 4}" for i in range(48)]
    first, again, other = (
        intervals_of(probe, stats, groups, [RMSE], rng_of(task, None)) for task in ("a", "a", "b")
    )
    assert first == again
    assert first != other


def test_seeds_that_disagree_widen_the_interval() -> None:
    probe = LineProbe(LineConstants())
    se = np.random.default_rng(0).random(48)
    groups = [f"g{i // 4}" for i in range(48)]

    def width(*factors: float) -> float:
        stats = [{"se": se * factor} for factor in factors]
        found = intervals_of(probe, stats, groups, [RMSE], np.random.default_rng(1))["rmse_m"]
        assert found is not None
        return found[1] - found[0]

    assert width(1.0, 1.0) == pytest.approx(width(1.0), rel=1e-12)
    assert width(0.5, 1.5) > 1.5 * width(1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_breakdown_that_is_no_number_is_an_error(value: float) -> None:
    with pytest.raises(TaskError, match="breakdown iou by class: sofa is"):
        make_breakdowns([Breakdown("iou", "class", {"wall": 1.0, "bed": None, "sofa": value})])
    (good,) = make_breakdowns([Breakdown("iou", "class", {"wall": 1.0, "bed": None})])
    assert good.values == {"wall": 1.0, "bed": None}
