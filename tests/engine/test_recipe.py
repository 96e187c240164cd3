"""The schedule against torch's own, and recipes that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.optim import lr_scheduler

from dune_bench.engine.recipe import Recipe


def torch_rates(recipe: Recipe) -> list[float]:
    """Rates by torch's schedulers, one after the other."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=recipe.lr)
    rest = recipe.steps - recipe.warmup_steps
    after: lr_scheduler.LRScheduler
    match recipe.schedule:
        case "cosine":
            after = lr_scheduler.CosineAnnealingLR(optimizer, rest, recipe.min_lr)
        case "poly":
            after = lr_scheduler.PolynomialLR(optimizer, rest, recipe.poly_power)
        case "constant":
            after = lr_scheduler.ConstantLR(optimizer, 1.0)
    if recipe.warmup_steps:
        warm = lr_scheduler.LinearLR(optimizer, recipe.warmup_start, total_iters=recipe.warmup_steps)
        after = lr_scheduler.SequentialLR(optimizer, [warm, after], [recipe.warmup_steps])
    rates = []
    for _ in range(recipe.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        after.step()
    return rates


@pytest.mark.parametrize(
    "numbers",
    [
        {"schedule": "cosine", "min_lr": 1e-6},
        {"schedule": "cosine", "min_lr": 1e-3, "warmup_steps": 10, "warmup_start": 0.1},
        {"schedule": "poly", "poly_power": 0.9, "warmup_steps": 4, "warmup_start": 1e-6},
        {"schedule": "constant", "warmup_steps": 7, "warmup_start": 0.5},
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning")
def test_schedule_is_not_another_one(numbers: dict[str, Any]) -> None:
    recipe = Recipe(steps=50, batch_size=1, lr=0.02, **numbers)
    rates = [recipe.learning_rate(step) for step in range(recipe.steps)]
    assert rates == pytest.approx(torch_rates(recipe), rel=1e-9, abs=1e-12)


def test_warm_up_of_dune_ends_at_a_fifth() -> None:
    recipe = Recipe(steps=100, batch_size=1, lr=3e-4, min_lr=1e-6, warmup_steps=20)
    assert recipe.learning_rate(0) == 0
    assert recipe.learning_rate(10) == pytest.approx(1.5e-4)
    assert recipe.learning_rate(20) == pytest.approx(3e-4)
    assert recipe.learning_rate(60) == pytest.approx((3e-4 + 1e-6) / 2)


@pytest.mark.parametrize(
    "numbers",
    [
        {"warmup_steps": 10},
        {"min_lr": 1.0},
        {"lr": 0.0},
        {"steps": 0},
        {"clip_norm": 0.0},
        {"schedule": "linear"},
        {"learning_rate": 0.1},
    ],
)
def test_recipe_that_makes_no_sense_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recipe(**{"steps": 10, "batch_size": 1, "lr": 0.1, **numbers})


@pytest.mark.parametrize(
    ("change", "words"),
    [({"batch_size": 4, "accumulate": 3}, "does not divide"), ({"betas": (0.9, 2.0)}, "below 1")],
)
def test_what_cannot_be_trained_is_refused_when_it_is_written(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({"steps": 2, "batch_size": 2, "lr": 0.1, **change})
