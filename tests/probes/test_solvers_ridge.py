from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from dune_bench.errors import TaskError
from dune_bench.probes.solvers_ridge import fit_ridge
from tests.probes.fake_features import ArrayRows


def problem(
    rows: int = 300, dim: int = 15, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(rows, dim)) @ rng.normal(size=(dim, dim)) + 30.0).astype(np.float32)
    y = x @ rng.normal(size=dim) * 0.1 + rng.normal(size=rows)
    weights = rng.random(rows)
    weights[::13] = 0.0
    return x, y, weights, np.arange(rows) * 5 // rows


def fit(x, y, weights, fold, lambdas=(1e-3,), block=64):
    as_tensor = torch.from_numpy
    return fit_ridge(
        ArrayRows(as_tensor(x), block), as_tensor(y), as_tensor(weights), as_tensor(fold), lambdas
    )


def standardised(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = np.average(x.astype(float), axis=0, weights=weights)
    return (x - mean) / np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weights))


@pytest.mark.parametrize("value", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_ridge_is_not_off_scikit_learn(value: float, seed: int) -> None:
    x, y, weights, fold = problem(seed=seed)
    found = fit(x, y, weights, fold, (value,))
    z = standardised(x, weights)
    model = Ridge(alpha=value * weights.sum(), solver="cholesky").fit(z, y, sample_weight=weights)
    predicted = (x - found.mean.numpy()) @ found.weight.numpy() + found.bias
    difference = np.abs(predicted - model.predict(z)).max()
    print(f"ridge, difference from scikit-learn: {difference:.2e}")
    assert difference < 1e-8


def test_held_out_errors_are_those_of_refitted_folds() -> None:
    x, y, weights, fold = problem()
    lambdas = (1e-4, 1e-2, 1.0)
    found = fit(x, y, weights, fold, lambdas)
    z = standardised(x, weights)
    for value, error in zip(found.lambdas, found.held_out, strict=True):
        total = 0.0
        for f in range(5):
            out = fold == f
            model = Ridge(alpha=value * weights[~out].sum(), solver="cholesky")
            model.fit(z[~out], y[~out], sample_weight=weights[~out])
            total += (weights[out] * (y[out] - model.predict(z[out])) ** 2).sum()
        assert error == pytest.approx(total / weights.sum(), rel=1e-8)
    assert found.held_out[found.chosen] == min(found.held_out)


def test_fit_does_not_depend_on_blocks_or_order() -> None:
    x, y, weights, fold = problem()
    order = np.random.default_rng(0).permutation(len(x))
    a = fit(x, y, weights, fold, (1e-3, 1e-1), 7)
    b = fit(x[order], y[order], weights[order], fold[order], (1e-3, 1e-1), 300)
    assert a.chosen == b.chosen
    assert torch.allclose(a.weight, b.weight, rtol=1e-8, atol=1e-11)


def test_more_channels_than_rows_is_no_obstacle() -> None:
    x, y, weights, fold = problem(rows=40, dim=80)
    found = fit(x, y, weights, fold, (1e-6, 1e-2))
    assert torch.isfinite(found.weight).all()
    z = standardised(x, weights)
    value = found.lambdas[found.chosen]
    model = Ridge(alpha=value * weights.sum(), solver="svd").fit(z, y, sample_weight=weights)
    predicted = (x - found.mean.numpy()) @ found.weight.numpy() + found.bias
    assert np.abs(predicted - model.predict(z)).max() < 1e-6


def test_equal_errors_choose_the_larger_lambda() -> None:
    x, y, weights, fold = problem()
    found = fit(np.zeros_like(x), y, weights, fold, (1e-3, 1e-1))
    assert found.lambdas[found.chosen] == 1e-1
    assert (found.weight == 0).all()
    assert found.bias == pytest.approx(np.average(y, weights=weights))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_fail_the_fit(bad: float) -> None:
    x, y, weights, fold = problem()
    x[7, 2] = bad
    with pytest.raises(TaskError, match="not finite"):
        fit(x, y, weights, fold)


def test_nothing_valid_is_an_error() -> None:
    x, y, weights, fold = problem()
    with pytest.raises(TaskError, match="nothing to fit on"):
        fit(x, y, np.zeros_like(weights), fold)


def test_truth_in_one_fold_only_is_an_error() -> None:
    x, y, weights, fold = problem()
    with pytest.raises(TaskError, match="too few labelled rooms"):
        fit(x, y, np.where(fold == 2, weights, 0.0), fold)
