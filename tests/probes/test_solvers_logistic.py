from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.probes.solvers_logistic import Objective, Proportions
from dune_bench.probes.solvers_moments import Standardiser
from dune_bench.probes.solvers_path import LogisticFit, LogisticSettings, fit_logistic
from tests.probes.fake_features import ArrayRows

SETTINGS = LogisticSettings(
    lambdas=(1e-4, 1e-3, 1e-2),
    bias_lambda=1e-8,
    tolerance=1e-7,
    fold_tolerance=1e-4,
    patience=2,
    max_iterations=300,
)


def problem(
    rows: int = 400, dim: int = 12, classes: int = 4, seed: int = 0
) -> tuple[Tensor, Proportions, Tensor]:
    """Correlated, shifted features; mixed patches, partly and wholly ignored ones."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, rows)
    centres = rng.normal(size=(classes, dim))
    x = (centres[label] + 1.5 * rng.normal(size=(rows, dim))) @ rng.normal(size=(dim, dim)) + 5.0
    counts = np.zeros((classes, rows), np.uint16)
    counts[label, np.arange(rows)] = rng.integers(0, 100, rows)
    counts[rng.integers(0, classes, rows), np.arange(rows)] += rng.integers(0, 60, rows).astype(np.uint16)
    counts[:, ::17] = 0
    pixels = np.full(rows, 196, np.uint16)
    fold = torch.from_numpy(np.arange(rows) * 5 // rows)
    return torch.from_numpy(x).float(), Proportions(counts, pixels), fold


def probabilities(fit: LogisticFit, x: Tensor) -> Tensor:
    return torch.softmax((x.double() - fit.mean) @ fit.weight.T + fit.bias, -1)


def sklearn_probabilities(x: Tensor, targets: Proportions, value: float) -> np.ndarray:
    """The same optimum from rows expanded by class, with sample weights."""
    s = targets.weights().numpy()
    mean = np.average(x, axis=0, weights=s)
    deviation = np.sqrt(np.average((x.double().numpy() - mean) ** 2, axis=0, weights=s))
    z = (x.double().numpy() - mean) / deviation
    t = targets.counts / np.maximum(targets.pixels, 1)
    classes, rows = t.shape
    model = LogisticRegression(C=1.0 / (value * s.sum()), tol=1e-10, max_iter=5000)
    model.fit(np.tile(z, (classes, 1)), np.repeat(np.arange(classes), rows), sample_weight=t.ravel())
    return model.predict_proba(z)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("value", [1e-3, 1e-2, 1e-1])
def test_logistic_is_not_off_scikit_learn(seed: int, value: float) -> None:
    x, targets, fold = problem(seed=seed)
    fit = fit_logistic(ArrayRows(x), targets, fold, replace(SETTINGS, lambdas=(value,)))
    difference = np.abs(probabilities(fit, x).numpy() - sklearn_probabilities(x, targets, value))
    print(f"logistic, difference from scikit-learn in probability: {difference.max():.2e}")
    assert difference.max() < 1e-4


def test_tiny_bias_penalty_of_the_cards_does_not_move_probabilities() -> None:
    x, targets, fold = problem()
    settings = replace(SETTINGS, lambdas=(1e-2,), bias_lambda=1e-6)
    fit = fit_logistic(ArrayRows(x), targets, fold, settings)
    difference = np.abs(probabilities(fit, x).numpy() - sklearn_probabilities(x, targets, 1e-2))
    print(f"logistic, difference from scikit-learn in probability: {difference.max():.2e}")
    assert difference.max() < 1e-4


def test_chosen_lambda_is_the_one_scikit_learn_would_choose() -> None:
    x, targets, fold = problem(rows=300, dim=20)
    fit = fit_logistic(ArrayRows(x), targets, fold, replace(SETTINGS, patience=9))
    s = targets.weights().numpy()
    mean = np.average(x, axis=0, weights=s)
    deviation = np.sqrt(np.average((x.double().numpy() - mean) ** 2, axis=0, weights=s))
    z = (x.double().numpy() - mean) / deviation
    t = targets.counts / np.maximum(targets.pixels, 1)
    for value, held_out in zip(fit.tried, fit.held_out, strict=True):
        loss = 0.0
        for f in range(5):
            out = (fold == f).numpy()
            n = s[~out].sum()
            model = LogisticRegression(C=1.0 / (value * n), tol=1e-9, max_iter=5000)
            kept = z[~out]
            model.fit(np.tile(kept, (4, 1)), np.repeat(np.arange(4), len(kept)), t[:, ~out].ravel())
            loss -= (t[:, out].T * model.predict_log_proba(z[out])).sum()
        assert held_out == pytest.approx(loss / s.sum(), rel=2e-3)
    assert fit.chosen == int(np.argmin(fit.held_out))


def test_fit_does_not_depend_on_the_size_of_blocks() -> None:
    x, targets, fold = problem()
    fits = [fit_logistic(ArrayRows(x, block), targets, fold, SETTINGS) for block in (1, 37, 400)]
    assert len({fit.chosen for fit in fits}) == 1
    p = [probabilities(fit, x) for fit in fits]
    assert float((p[0] - p[1]).abs().max()) < 2e-4
    assert float((p[0] - p[2]).abs().max()) < 2e-4


def test_fit_does_not_depend_on_the_order_of_rows() -> None:
    x, targets, fold = problem()
    order = np.random.default_rng(3).permutation(len(x))
    shuffled = Proportions(targets.counts[:, order], targets.pixels[order])
    a = fit_logistic(ArrayRows(x), targets, fold, SETTINGS)
    b = fit_logistic(ArrayRows(x[order]), shuffled, fold[order], SETTINGS)
    assert a.chosen == b.chosen
    assert float((probabilities(a, x) - probabilities(b, x)).abs().max()) < 2e-4


def test_permuted_classes_give_permuted_probabilities() -> None:
    x, targets, fold = problem()
    order = [2, 0, 3, 1]
    a = fit_logistic(ArrayRows(x), targets, fold, SETTINGS)
    b = fit_logistic(ArrayRows(x), Proportions(targets.counts[order], targets.pixels), fold, SETTINGS)
    assert float((probabilities(a, x)[:, order] - probabilities(b, x)).abs().max()) < 2e-4


def test_scaled_and_shifted_features_give_the_same_fit() -> None:
    x, targets, fold = problem()
    stretched = x * torch.logspace(-2, 2, x.shape[1]) - 3.0
    a = fit_logistic(ArrayRows(x), targets, fold, SETTINGS)
    b = fit_logistic(ArrayRows(stretched), targets, fold, SETTINGS)
    assert float((probabilities(a, x) - probabilities(b, stretched)).abs().max()) < 2e-4


def test_class_without_a_pixel_stays_finite_and_is_never_likely() -> None:
    x, targets, fold = problem()
    counts = np.insert(targets.counts, 2, 0, axis=0)
    fit = fit_logistic(ArrayRows(x), Proportions(counts, targets.pixels), fold, SETTINGS)
    assert torch.isfinite(fit.weight).all()
    assert torch.isfinite(fit.bias).all()
    assert float(probabilities(fit, x)[:, 2].max()) < 1e-4


def test_class_of_one_fold_only_gives_a_finite_held_out_loss() -> None:
    x, targets, fold = problem()
    counts = targets.counts.copy()
    counts[3, (fold != 1).numpy()] = 0
    fit = fit_logistic(ArrayRows(x), Proportions(counts, targets.pixels), fold, SETTINGS)
    assert np.isfinite(fit.held_out).all()


def test_constant_channel_is_left_out_instead_of_blown_up() -> None:
    x, targets, fold = problem()
    constant = torch.cat((x, torch.full((len(x), 1), 1234.567)), 1)
    fit = fit_logistic(ArrayRows(constant), targets, fold, SETTINGS)
    assert (fit.weight[:, -1] == 0).all()
    plain = fit_logistic(ArrayRows(x), targets, fold, SETTINGS)
    assert float((probabilities(fit, constant) - probabilities(plain, x)).abs().max()) < 2e-4


def test_ignored_patches_do_not_matter_whatever_their_features() -> None:
    x, targets, fold = problem()
    wild = x.clone()
    wild[::17] = 50.0
    a = fit_logistic(ArrayRows(x), targets, fold, SETTINGS)
    b = fit_logistic(ArrayRows(wild), targets, fold, SETTINGS)
    assert float((probabilities(a, x) - probabilities(b, x)).abs().max()) < 2e-4


def test_unconverged_fit_is_an_error_and_not_a_number() -> None:
    x, targets, fold = problem()
    with pytest.raises(TaskError, match="did not converge in 2 iterations"):
        fit_logistic(ArrayRows(x), targets, fold, replace(SETTINGS, max_iterations=2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_fail_the_fit(bad: float) -> None:
    x, targets, fold = problem()
    x[5, 3] = bad
    with pytest.raises(TaskError, match="not finite"):
        fit_logistic(ArrayRows(x), targets, fold, SETTINGS)


def test_nothing_labelled_is_an_error() -> None:
    x, targets, fold = problem()
    empty = Proportions(np.zeros_like(targets.counts), targets.pixels)
    with pytest.raises(TaskError, match="no patch has a labelled pixel"):
        fit_logistic(ArrayRows(x), empty, fold, SETTINGS)


def test_all_labels_in_one_fold_is_an_error() -> None:
    x, targets, fold = problem()
    counts = targets.counts.copy()
    counts[:, (fold != 1).numpy()] = 0
    with pytest.raises(TaskError, match="too few labelled rooms"):
        fit_logistic(ArrayRows(x), Proportions(counts, targets.pixels), fold, SETTINGS)


def test_equal_losses_choose_the_larger_lambda() -> None:
    x, targets, fold = problem(rows=100)
    flat = torch.zeros_like(x)
    fit = fit_logistic(ArrayRows(flat), targets, fold, SETTINGS)
    assert len(set(fit.held_out)) == 1
    assert fit.tried[fit.chosen] == 1e-2


def test_patience_ends_the_path_only_after_the_losses_rose() -> None:
    x, targets, fold = problem(rows=120, dim=40)
    lambdas = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    fit = fit_logistic(ArrayRows(x), targets, fold, replace(SETTINGS, lambdas=lambdas, max_iterations=2000))
    assert len(fit.tried) < len(lambdas)
    assert fit.held_out[-1] > fit.held_out[-2] > fit.held_out[-3]
    assert fit.held_out[fit.chosen] == min(fit.held_out)


def test_gradient_is_that_of_the_loss() -> None:
    """Against automatic differentiation of the formula, in float64, without a fold."""
    x, targets, fold = problem(rows=90)
    mean, scale = x.double().mean(0), 1.0 / x.double().std(0)
    objective = Objective(ArrayRows(x, 32), targets, Standardiser(mean, scale), fold, 5)
    theta = 0.1 * torch.randn(
        4, x.shape[1] + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    found = objective.evaluate([theta, 2 * theta], [None, 3])
    t = torch.from_numpy(targets.counts / targets.pixels)
    for index, (point, out) in enumerate([(theta, None), (2 * theta, 3)]):
        point = point.clone().requires_grad_()
        logits = ((x.double() - mean) * scale) @ point[:, :-1].T + point[:, -1]
        losses = -(t.T * torch.log_softmax(logits, -1)).sum(1)
        kept = torch.ones(len(x), dtype=torch.bool) if out is None else fold != out
        loss = losses[kept].sum() / targets.weights()[kept].sum()
        loss.backward()
        assert float(found.losses[index]) == pytest.approx(loss.item(), rel=1e-6)
        assert torch.allclose(found.gradients[index], point.grad, atol=2e-7)
        assert float(found.held_out[index]) == pytest.approx(losses[~kept].sum().item(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("leading", [1, 5, 12])
def test_optimum_does_not_depend_on_the_preconditioner(leading: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, targets, fold = problem()
    plain = fit_logistic(ArrayRows(x), targets, fold, SETTINGS)
    monkeypatch.setattr("dune_bench.probes.solvers_precondition.LEADING", leading)
    other = fit_logistic(ArrayRows(x), targets, fold, SETTINGS)
    assert float((probabilities(plain, x) - probabilities(other, x)).abs().max()) < 2e-4


def test_weights_and_biases_sum_to_zero_over_classes() -> None:
    """The one optimum among all that give the same probabilities."""
    x, targets, fold = problem()
    fit = fit_logistic(ArrayRows(x), targets, fold, SETTINGS)
    assert float(fit.weight.sum(0).abs().max()) < 1e-9
    assert float(fit.bias.sum().abs()) < 1e-9


def test_threads_change_nothing_but_rounding() -> None:
    x, targets, fold = problem()
    before = torch.get_num_threads()
    fits = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            fits.append(fit_logistic(ArrayRows(x, 50), targets, fold, SETTINGS))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert float((probabilities(fits[0], x) - probabilities(fits[1], x)).abs().max()) < 2e-4


def test_nearly_separable_rooms_with_many_channels_still_converge() -> None:
    """Rare classes and few rooms from a cold start: the slow case."""
    x, targets, fold = problem(rows=1200, dim=96, classes=8, seed=4)
    counts = targets.counts.copy()
    counts[5:, 60:] = 0
    settings = replace(SETTINGS, lambdas=(1e-4,), max_iterations=250)
    fit = fit_logistic(ArrayRows(x), Proportions(counts, targets.pixels), fold, settings)
    assert fit.gap <= SETTINGS.tolerance
