from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.probes.hmr_ridge import Inputs, fit_dual_ridge, standardise

FOLDS = torch.arange(30) % 3
BLOCKS = ((4, 0), (6, 1))
GROUPS = {"a": slice(0, 2), "b": slice(2, 3)}


def data(seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(30, 10, generator=g, dtype=torch.float64) * 3 + 5
    y = x[:, :3] @ torch.randn(3, 3, generator=g, dtype=torch.float64)
    return x, y + noise * torch.randn(30, 3, generator=g, dtype=torch.float64)


def primal(x: Any, y: Any, value: float, penalty: Any) -> tuple[Any, Any]:
    """Independent: the normal equations, weight and mean prediction."""
    n = len(x)
    centred = x - x.mean(0)
    gram = centred.T @ centred + n * value * np.diag(penalty)
    return np.linalg.solve(gram, centred.T @ (y - y.mean(0))), y.mean(0)


@pytest.mark.parametrize("value", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("w", [0.1, 1.0])
def test_dual_is_not_another_regression_than_primal(value: float, w: float) -> None:
    x, y = data()
    inputs = Inputs(x, BLOCKS)
    fit = fit_dual_ridge(inputs, y, FOLDS, GROUPS, [value], [(1.0, w)])
    scale = standardise(inputs)[1].numpy()
    # Scaling inputs by s and by √w is a penalty of 1 / (s² w) in their own units.
    penalty = 1.0 / (scale**2 * np.array([1.0] * 4 + [w] * 6))
    weight, bias = primal(x.numpy(), y.numpy(), value, penalty)
    assert np.allclose(fit.weight.numpy(), weight, atol=1e-9)
    assert np.allclose(fit.bias.numpy(), bias)


def test_held_out_rows_are_not_fitted_on() -> None:
    x, y = data()
    inputs = Inputs(x, BLOCKS)
    fit = fit_dual_ridge(inputs, y, FOLDS, GROUPS, [0.1], [(1.0, 1.0)])
    penalty = 1.0 / standardise(inputs)[1].numpy() ** 2
    for fold in range(3):
        out, rest = FOLDS.numpy() == fold, FOLDS.numpy() != fold
        weight, bias = primal(x.numpy()[rest], y.numpy()[rest], 0.1, penalty)
        expected = (x.numpy()[out] - x.numpy()[rest].mean(0)) @ weight + bias
        assert np.allclose(fit.held_out.numpy()[out], expected, atol=1e-9)


def test_each_group_gets_its_own_choice() -> None:
    x, y = data(noise=0.01)
    y[:, 2] = torch.randn(30, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    fit = fit_dual_ridge(Inputs(x, BLOCKS), y, FOLDS, GROUPS, [1e-6, 1e-2, 100.0], [(1.0, 0.0), (1.0, 1.0)])
    assert fit.chosen["a"].lambda_per_n < 100.0
    assert fit.chosen["a"].weights == (1.0, 0.0)  # the second kind holds noise only
    assert fit.chosen["a"].error < 0.01 * fit.chosen["a"].spread
    assert fit.chosen["b"].lambda_per_n == 100.0
    assert fit.weight[4:, :2].abs().max() == 0.0


def test_error_of_the_choice_is_that_of_its_held_out_rows() -> None:
    x, y = data()
    fit = fit_dual_ridge(Inputs(x, BLOCKS), y, FOLDS, GROUPS, [1e-2, 1.0], [(1.0, 0.1), (1.0, 1.0)])
    for name, part in GROUPS.items():
        error = float((fit.held_out[:, part] - y[:, part]).square().sum())
        assert fit.chosen[name].error == pytest.approx(error)


def test_constant_channel_is_not_blown_up() -> None:
    x, y = data()
    x[:, 1] = 7.0
    fit = fit_dual_ridge(Inputs(x, BLOCKS), y, FOLDS, GROUPS, [1e-3], [(1.0, 1.0)])
    assert (fit.weight[1] == 0).all()
    assert fit.weight.isfinite().all()


def test_wide_encoder_is_not_penalised_otherwise() -> None:
    x, y = data()
    twice = torch.cat([x[:, :4], x[:, :4], x[:, 4:]], 1)
    a = fit_dual_ridge(Inputs(x, BLOCKS), y, FOLDS, GROUPS, [0.1], [(1.0, 1.0)])
    b = fit_dual_ridge(Inputs(twice, ((8, 0), (6, 1))), y, FOLDS, GROUPS, [0.1], [(1.0, 1.0)])
    assert torch.allclose(a.held_out, b.held_out)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_features_are_not_fitted(bad: float) -> None:
    x, y = data()
    x[3, 2] = bad
    with pytest.raises(TaskError, match="features are not finite"):
        fit_dual_ridge(Inputs(x, BLOCKS), y, FOLDS, GROUPS, [0.1], [(1.0, 1.0)])


def test_single_room_is_one_clear_line() -> None:
    x, y = data()
    with pytest.raises(TaskError, match="too few rooms"):
        fit_dual_ridge(Inputs(x, BLOCKS), y, torch.zeros(30).long(), GROUPS, [0.1], [(1.0, 1.0)])
