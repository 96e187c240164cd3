from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dune_bench.errors import TaskError
from dune_bench.metrics.depth import METRICS, depth_errors, mean_over_images, median_scale, valid_depth

depths = arrays(float, st.integers(1, 30), elements=st.floats(0.1, 20.0))


@settings(max_examples=60, deadline=None)
@given(depths, st.integers(0, 2**31))
def test_errors_are_not_off_brute_force(truth, seed) -> None:
    prediction = truth * np.exp(np.random.default_rng(seed).normal(size=truth.size) * 0.3)
    n = truth.size
    pairs = list(zip(prediction.tolist(), truth.tolist(), strict=True))
    found = depth_errors(prediction, truth)
    assert found["rmse_m"] == pytest.approx(math.sqrt(sum((p - g) ** 2 for p, g in pairs) / n))
    assert found["abs_rel"] == pytest.approx(sum(abs(p - g) / g for p, g in pairs) / n)
    assert found["delta1"] == pytest.approx(100 * sum(max(p / g, g / p) < 1.25 for p, g in pairs) / n)
    assert found["rmse_log"] == pytest.approx(
        math.sqrt(sum((math.log(p) - math.log(g)) ** 2 for p, g in pairs) / n)
    )


@settings(max_examples=40, deadline=None)
@given(depths, st.floats(0.1, 10.0))
def test_aligned_errors_forget_the_scale(truth, scale) -> None:
    prediction = np.sqrt(truth)
    a = depth_errors(prediction * median_scale(prediction, truth), truth)
    scaled = prediction * scale
    b = depth_errors(scaled * median_scale(scaled, truth), truth)
    assert a["rmse_log"] == pytest.approx(b["rmse_log"], abs=1e-9)


def test_perfect_depth_has_no_error() -> None:
    truth = np.array([1.0, 2.0])
    assert depth_errors(truth, truth) == {"rmse_m": 0.0, "abs_rel": 0.0, "delta1": 100.0, "rmse_log": 0.0}


def test_no_pixels_is_undefined_and_not_zero() -> None:
    none = np.empty(0)
    assert all(math.isnan(v) for v in depth_errors(none, none).values())
    assert math.isnan(median_scale(none, none))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_nan_depth_is_not_zero_error(bad: float) -> None:
    with pytest.raises(TaskError, match="not finite and positive"):
        depth_errors(np.array([1.0, bad]), np.array([1.0, 1.0]))


def test_unequal_pixel_counts_are_refused() -> None:
    with pytest.raises(TaskError, match=r"\(2,\) pixels"):
        depth_errors(np.ones(1), np.ones(2))


def test_valid_range_is_inclusive_and_never_holds_nan_or_zero() -> None:
    depth = np.array([np.nan, np.inf, -np.inf, -1.0, 0.0, 0.49, 0.5, 3.0, 5.0, 5.01])
    assert valid_depth(depth, 0.5, 5.0).tolist() == [False] * 6 + [True] * 3 + [False]


def test_mean_is_over_images_and_not_over_pixels() -> None:
    stats = {name: np.array([1.0, 3.0, np.nan]) for name in METRICS}
    counted = np.array([True, True, False])
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    found = mean_over_images(stats, METRICS, counted, weights)
    assert found["abs_rel"][:2].tolist() == [2.0, 1.5]
    assert np.isnan(found["abs_rel"][2])
