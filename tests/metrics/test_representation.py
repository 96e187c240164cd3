"""Components, angles and CKA against scikit-learn, SciPy and the definitions by tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA

from dune_bench.errors import TaskError
from dune_bench.metrics.representation import (
    Components,
    CrossCovariance,
    linear_cka,
    principal_angles,
    principal_components,
)

Floats = NDArray[np.float64]


def covariance(x: Floats, y: Floats, batch: int = 17) -> CrossCovariance:
    found = CrossCovariance()
    for start in range(0, len(x), batch):
        found.add(x[start : start + batch], y[start : start + batch])
    return found


def components(x: Floats) -> Components:
    return principal_components(covariance(x, x))


def tokens(n: int, channels: int, seed: int = 0) -> Floats:
    """Unequal variances, correlated channels."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, channels)) * np.geomspace(1, 0.05, channels) @ rng.normal(size=(channels,) * 2)


def cka_by_definition(x: Floats, y: Floats) -> float:
    """From the n × n Gram matrices and the centring matrix."""
    centring = np.eye(len(x)) - 1 / len(x)
    k, m = (centring @ z @ z.T @ centring for z in (x, y))
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_components_are_those_of_scikit_learn() -> None:
    x = tokens(200, 12) + 100
    ours, theirs = components(x), PCA(svd_solver="full").fit(x)
    np.testing.assert_allclose(ours.variances * 200 / 199, theirs.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(ours.explained, np.cumsum(theirs.explained_variance_ratio_), rtol=1e-9)
    np.testing.assert_allclose(np.abs(ours.directions.T), np.abs(theirs.components_), atol=1e-7)
    np.testing.assert_allclose(ours.mean, theirs.mean_)
    expected = np.abs(PCA(3, whiten=True, svd_solver="full").fit_transform(x)) * np.sqrt(200 / 199)
    np.testing.assert_allclose(np.abs(ours.scores(x, 3)), expected, atol=1e-7)


def test_large_mean_costs_no_variance() -> None:
    x = np.random.default_rng(0).normal(size=(500, 3))
    far = components(x + 1e7)
    np.testing.assert_allclose(far.variances, np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1], rtol=1e-6)


@given(st.integers(1, 60))
def test_batches_change_nothing(batch: int) -> None:
    x, y = tokens(60, 5), tokens(60, 3, 1)
    found = covariance(x, y, batch)
    expected = (x - x.mean(0)).T @ (y - y.mean(0)) / 60
    np.testing.assert_allclose(found.matrix, expected, atol=1e-12)


def test_sign_of_a_component_is_not_left_to_the_solver() -> None:
    x = tokens(100, 8)
    for found in (components(x), components(-x)):
        assert (found.directions.max(0) == np.abs(found.directions).max(0)).all()


def test_components_needed_by_hand() -> None:
    found = Components(np.zeros(3), np.array([6.0, 3.0, 1.0]), np.eye(3))
    assert [found.needed(share) for share in (0.5, 0.6, 0.61, 0.9, 0.95, 1.0)] == [1, 1, 2, 2, 3, 3]


def test_component_without_variance_has_score_0_not_noise() -> None:
    x = np.outer(np.arange(9.0), [1.0, 2.0, 3.0])
    found = components(x)
    assert found.rank == 1
    np.testing.assert_array_equal(found.scores(x, 3)[:, 1:], 0.0)
    np.testing.assert_allclose(found.scores(x, 3)[:, 0].std(), 1.0)


@given(st.integers(0, 10**6))
def test_cka_is_that_of_the_gram_matrices(seed: int) -> None:
    x = tokens(40, 6, seed)
    y = 0.3 * tokens(40, 4, seed + 1) + x[:, :4]
    found = linear_cka(components(x), components(y), covariance(x, y))
    assert found == pytest.approx(cka_by_definition(x, y), rel=1e-9)
    assert 0 <= found <= 1


def test_cka_knows_no_rotation_scale_or_shift() -> None:
    x = tokens(50, 5)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    y = 7 * x @ rotation + 3
    assert linear_cka(components(x), components(y), covariance(x, y)) == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_angles_are_those_of_scipy(count: int) -> None:
    x = tokens(80, 9)
    y = tokens(80, 6, 1) + 0.5 * x[:, :6]
    found = principal_angles(components(x), components(y), covariance(x, y), count)
    scores = [PCA(count, svd_solver="full").fit_transform(z) for z in (x, y)]
    np.testing.assert_allclose(found, np.sort(subspace_angles(*scores)), atol=1e-6)


def test_angles_of_the_same_subspace_are_0_also_in_other_channels() -> None:
    x = tokens(70, 4)
    y = x @ np.random.default_rng(5).normal(size=(4, 7))
    found = principal_angles(components(x), components(y), covariance(x, y), 10)
    assert len(found) == 4  # the rank, not what was asked for
    np.testing.assert_allclose(found, 0, atol=1e-5)


def test_angles_of_unrelated_features_are_right() -> None:
    x = np.array([[1.0, -1, 1, -1]]).T
    y = np.array([[1.0, 1, -1, -1]]).T
    found = principal_angles(components(x), components(y), covariance(x, y), 1)
    np.testing.assert_allclose(found, np.pi / 2)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 / 3])
def test_constant_features_are_an_error_not_rounding_noise(value: float) -> None:
    with pytest.raises(TaskError, match="same in every token"):
        components(np.full((1001, 3), value))


def test_features_of_other_tokens_are_refused() -> None:
    with pytest.raises(TaskError, match="not of the same tokens"):
        CrossCovariance().add(np.ones((3, 2)), np.ones((4, 2)))
    single = CrossCovariance()
    single.add(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(TaskError, match="1 tokens have no covariance"):
        _ = single.matrix
