"""Weighted means: nothing is left out in silence."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.metrics.weighted import weighted_mean


@given(seed=st.integers(0, 1000))
def test_equals_the_mean_of_repeated_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, copies = rng.normal(size=9), rng.integers(0, 4, (3, 9))
    copies[:, 0] += 1
    want = [np.repeat(values, row).mean() for row in copies]
    np.testing.assert_allclose(weighted_mean(values, copies.astype(float)), want)


def test_nan_with_weight_is_nan_and_without_weight_is_nothing() -> None:
    values = np.array([1.0, np.nan, 3.0])
    weights = np.array([[1.0, 1, 1], [1, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(weighted_mean(values, weights), [np.nan, 2, np.nan])
    counted = np.array([True, False, True])
    np.testing.assert_array_equal(weighted_mean(values, weights, counted), [2, 2, np.nan])
    assert np.isnan(weighted_mean(values[:0], np.ones((1, 0)))).all()
