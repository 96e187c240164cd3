"""Losses against a plain restatement in float64, by hand, and under autocast."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.distill.batch import Tokens
from dune_bench.distill.losses import LossWeights, image_losses, kind_losses, token_losses
from dune_bench.errors import UsageError
from dune_bench.registry.cards import parse_card

B, N, C = 3, 5, 7


def draw(*shape: int, seed: int = 0) -> Tensor:
    return 1.5 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_token(s: Tensor, t: Tensor, weights: LossWeights) -> Tensor:
    """Loss of one token (C,) in float64, channel by channel."""
    cos = (s * t).sum() / (s.pow(2).sum().sqrt() * t.pow(2).sum().sqrt())
    parts = []
    for difference in (s - t).abs():
        inside = bool(difference < weights.beta)
        parts.append(0.5 * difference**2 / weights.beta if inside else difference - 0.5 * weights.beta)
    return weights.cosine * (1 - cos) + weights.smooth_l1 * sum(parts, torch.zeros(()).double()) / len(s)


def plain_image(student: Tokens, teacher: Tokens, i: int, weights: LossWeights) -> Tensor:
    patches = zip(student.patch[i], teacher.patch[i], strict=True)
    patch = torch.stack([plain_token(s, t, weights) for s, t in patches]).mean()
    if teacher.cls is None or student.cls is None:
        return patch
    return 0.5 * patch + 0.5 * plain_token(student.cls[i], teacher.cls[i], weights)


@pytest.mark.parametrize("has_cls", [True, False])
@pytest.mark.parametrize("weights", [LossWeights(), LossWeights(cosine=0.2, smooth_l1=1.3, beta=0.4)])
def test_value_and_gradient_equal_a_plain_restatement(has_cls: bool, weights: LossWeights) -> None:
    patch, cls = draw(B, N, C).requires_grad_(), draw(B, C, seed=1).requires_grad_()
    teacher = Tokens(draw(B, N, C, seed=2), draw(B, C, seed=3) if has_cls else None)
    factors = torch.tensor([0.3, 1.0, 2.0])
    ours = image_losses(Tokens(patch, cls), teacher, weights)
    (factors * ours).sum().backward()  # type: ignore[no-untyped-call]

    patch64, cls64 = (t.detach().double().requires_grad_() for t in (patch, cls))
    teacher64 = Tokens(teacher.patch.double(), None if teacher.cls is None else teacher.cls.double())
    plain = torch.stack([plain_image(Tokens(patch64, cls64), teacher64, i, weights) for i in range(B)])
    (factors.double() * plain).sum().backward()  # type: ignore[no-untyped-call]

    np.testing.assert_allclose(ours.detach().numpy(), plain.detach().numpy(), rtol=1e-6)
    pairs = [(patch.grad, patch64.grad)] + ([(cls.grad, cls64.grad)] if has_cls else [])
    for got, wanted in pairs:
        assert got is not None
        assert wanted is not None
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=1e-6 * float(wanted.abs().max()))
    if not has_cls:
        assert cls.grad is None


def test_by_hand() -> None:
    """cos = 0.6; smooth L1 of differences 0.4 and 2: (0.08 + 1.5)/2."""
    student, teacher = torch.tensor([[[3.0, 2.0]]]), torch.tensor([[[2.6, 0.0]]])
    cos = 3 / math.sqrt(13)
    expected = 0.5 * (1 - cos) + 0.5 * (0.08 + 1.5) / 2
    assert token_losses(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_class_token_and_patches_weigh_the_same_whatever_their_number() -> None:
    teacher = Tokens(draw(B, N, C), draw(B, C, seed=1))
    student = Tokens(draw(B, N, C, seed=2), teacher.cls)
    halved = image_losses(student, teacher, LossWeights())
    patch_alone = image_losses(student, Tokens(teacher.patch), LossWeights())
    np.testing.assert_allclose(2 * halved.numpy(), patch_alone.numpy(), rtol=1e-6)


def test_losses_are_float32_under_bfloat16_autocast() -> None:
    student, teacher = draw(B, N, C), draw(B, N, C, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = token_losses(student, teacher)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, token_losses(student, teacher))
    rounded = token_losses(student.bfloat16(), teacher)
    assert torch.equal(rounded, token_losses(student.bfloat16().float(), teacher))


def test_equal_tokens_cost_nothing_and_zero_tokens_have_a_finite_gradient() -> None:
    teacher = draw(B, N, C)
    np.testing.assert_allclose(token_losses(teacher, teacher).numpy(), 0, atol=1e-6)
    student = torch.zeros(B, N, C, requires_grad=True)
    token_losses(student, teacher).sum().backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_token_weights_move_weight_within_an_image_only() -> None:
    student, teacher = Tokens(draw(B, N, C)), Tokens(draw(B, N, C, seed=1))
    kinds = kind_losses(student, teacher, LossWeights())
    alike = torch.ones(B, N)
    assert torch.equal(kinds.per_image(alike), kinds.per_image())
    only_first = torch.zeros(B, N)
    only_first[:, 0] = N
    np.testing.assert_allclose(kinds.per_image(only_first).numpy(), kinds.patch[:, 0].numpy(), rtol=1e-6)


def test_token_grids_of_other_sizes_do_not_broadcast() -> None:
    with pytest.raises(UsageError, match=r"\(3, 1, 7\) and teacher tokens \(3, 5, 7\) differ"):
        token_losses(draw(B, 1, C), draw(B, N, C))


def test_a_taught_class_token_is_not_skipped_silently() -> None:
    with pytest.raises(UsageError, match="class token"):
        image_losses(Tokens(draw(B, N, C)), Tokens(draw(B, N, C), draw(B, C)), LossWeights())


@pytest.mark.parametrize(
    "content",
    [{"cosine": 0, "smooth_l1": 0}, {"cosine": -1}, {"beta": float("nan")}, {"temperature": 1}],
)
def test_impossible_loss_weights_are_refused(content: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="recipe, loss"):
        parse_card(content, LossWeights, "recipe, loss")
