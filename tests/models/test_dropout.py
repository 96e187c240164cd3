"""Dropout with a cheap mask: the rate, the scale, the seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dune_bench.models.dropout import Dropout, dropout


def seeded(seed: int, draw: Callable[[], Tensor]) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return draw()


@pytest.mark.parametrize("p", [0.001, 0.1, 0.3, 0.5, 0.9])
def test_another_share_than_asked_is_not_dropped(p: float) -> None:
    count = 4_000_000
    dropped = int((seeded(0, lambda: dropout(torch.ones(count), p, True)) == 0).sum())
    # Five standard deviations of a binomial.
    assert abs(dropped - p * count) < 5 * (count * p * (1 - p)) ** 0.5


def test_neighbours_are_not_dropped_together() -> None:
    """Four elements share a draw: their fates must not."""
    kept = (seeded(1, lambda: dropout(torch.ones(400_000), 0.3, True)) > 0).double()
    for lag in (1, 2, 3, 4, 5, 8):
        covariance = ((kept[lag:] - 0.7) * (kept[:-lag] - 0.7)).mean()
        assert abs(float(covariance)) < 5 * 0.21 / 400_000**0.5, lag
    by_lane = kept.reshape(-1, 4).mean(0)
    assert bool(((by_lane - 0.7).abs() < 5 * (0.21 / 100_000) ** 0.5).all())


@given(
    p=st.floats(0.0, 0.95), shape=st.lists(st.integers(0, 5), max_size=4).map(tuple), seed=st.integers(0, 99)
)
def test_what_is_kept_is_scaled_and_nothing_else(p: float, shape: tuple[int, ...], seed: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = seeded(seed, lambda: dropout(x, p, True))
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    kept = y != 0
    assert torch.allclose(y[kept], x[kept] / (1 - p), rtol=2e-4)


def test_gradients_do_not_reach_what_was_dropped() -> None:
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).T.requires_grad_()
    y = seeded(0, lambda: dropout(x, 0.5, True))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, torch.where(y == 0, 0.0, 2.0))


def test_the_mask_does_not_come_from_elsewhere_than_the_seed() -> None:
    x = torch.ones(1000, dtype=torch.bfloat16)
    one, again, other = (seeded(seed, lambda: dropout(x, 0.3, True)) for seed in (5, 5, 6))
    assert one.dtype == torch.bfloat16
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    layer = Dropout(0.3).train()
    assert torch.equal(seeded(5, lambda: layer(x)), one)


def test_nearly_everything_dropped_is_not_a_division_by_zero() -> None:
    assert bool(seeded(0, lambda: dropout(torch.ones(1000), 1 - 1e-9, True)).isfinite().all())


def test_nothing_is_dropped_or_drawn_without_training_or_rate() -> None:
    x = torch.ones(10)
    before = torch.default_generator.get_state()
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(torch.default_generator.get_state(), before)


def test_other_devices_do_not_lose_their_own_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(F, "dropout", lambda x, p: asked.append(p) or x)
    dropout(torch.ones(3, device="meta"), 0.25, True)
    assert asked == [0.25]
