"""Weights of teachers, and of tokens on which teachers disagree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.distill import weighting as module
from dune_bench.distill.weighting import (
    UncertaintyWeights,
    Weighting,
    disagreement,
    robust_weights,
    teacher_weights,
)
from dune_bench.errors import UsageError
from dune_bench.registry.cards import parse_card

B, N = 3, 12


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def losses() -> dict[str, Tensor]:
    return {"a": torch.tensor([0.5, 1.5]), "b": torch.tensor([0.1, 0.3])}


def test_equal_and_fixed_weights() -> None:
    equal = teacher_weights(Weighting(), ["a", "b"])
    assert all(torch.equal(equal(losses())[name], loss) for name, loss in losses().items())
    assert equal.factors() == {"a": 1, "b": 1}
    fixed = teacher_weights(Weighting(kind="fixed", weights={"b": 3.0}), ["a", "b"])
    np.testing.assert_allclose(fixed(losses())["b"], [0.3, 0.9], rtol=1e-6)
    assert torch.equal(fixed(losses())["a"], losses()["a"])
    assert fixed.factors() == {"a": 1, "b": 3}


def test_uncertainty_is_kendalls_and_its_gradient_too() -> None:
    weights = UncertaintyWeights(["a", "b"])
    with torch.no_grad():
        weights.log_variances.copy_(torch.tensor([0.7, -0.4]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weighted = weights(losses())
    for (name, loss), s in zip(losses().items(), (0.7, -0.4), strict=True):
        np.testing.assert_allclose(weighted[name].detach(), math.exp(-s) * loss + s, rtol=1e-6)
    torch.stack(list(weighted.values())).mean(1).sum().backward()  # type: ignore[no-untyped-call]
    expected = [1 - math.exp(-0.7) * 1.0, 1 - math.exp(0.4) * 0.2]
    assert weights.log_variances.grad is not None
    np.testing.assert_allclose(weights.log_variances.grad.numpy(), expected, rtol=1e-5)


def test_learned_variance_settles_at_the_mean_loss() -> None:
    weights = UncertaintyWeights(["a", "b"])
    assert weights.factors() == {"a": 1, "b": 1}
    optimizer = torch.optim.Adam(weights.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        torch.stack(list(weights(losses()).values())).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    np.testing.assert_allclose(list(weights.factors().values()), [1 / 1.0, 1 / 0.2], rtol=1e-2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "fixed"}, "weights by teacher belong"),
        ({"kind": "uncertainty", "weights": {"a": 1}}, "weights by teacher belong"),
        ({"kind": "fixed", "weights": {"a": -1}}, "at least 0"),
        ({"kind": "fixed", "weights": {"a": float("inf")}}, "at least 0"),
        ({"robust": 0}, "robust"),
        ({"kind": "gradnorm"}, "kind"),
    ],
)
def test_impossible_weighting_is_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_card(content, Weighting, "recipe, weighting")


def test_weight_of_a_teacher_that_does_not_teach_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'dinov3' is none of the teachers.*dinov2"):
        teacher_weights(Weighting(kind="fixed", weights={"dinov3": 2.0}), ["dinov2", "mast3r"])
    with pytest.raises(UsageError, match="all teachers have the weight 0"):
        teacher_weights(Weighting(kind="fixed", weights={"a": 0.0}), ["a"])


def plain_disagreement(tokens: list[Tensor]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """By numpy's correlation, token by token and pair by pair."""
    out = np.zeros(tokens[0].shape[:2])
    for i in range(out.shape[0]):
        profiles = []
        for t in tokens:
            unit = t[i].double().numpy()
            unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
            profiles.append(unit @ unit.T)
        for n in range(out.shape[1]):
            others = [np.delete(p[n], n) for p in profiles]
            pairs = [np.corrcoef(a, b)[0, 1] for k, a in enumerate(others) for b in others[k + 1 :]]
            out[i, n] = (1 - np.mean(pairs)) / 2
    return out


@pytest.mark.parametrize("teachers", [2, 3, 4])
def test_disagreement_equals_correlations_of_cosines(teachers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [draw(B, N, 4 + k, seed=k) for k in range(teachers)]
    wanted = plain_disagreement(tokens)
    np.testing.assert_allclose(disagreement(tokens), wanted, atol=1e-5)
    monkeypatch.setattr(module, "AFFINITIES_AT_ONCE", 1)
    np.testing.assert_allclose(disagreement(tokens), wanted, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_allclose(disagreement(tokens), wanted, atol=1e-5)


def test_teachers_that_differ_by_a_rotation_and_a_scale_agree() -> None:
    first = draw(B, N, 8)
    rotation = torch.linalg.qr(draw(16, 8, seed=1))[0].T
    np.testing.assert_allclose(disagreement([first, 5 * first @ rotation]), 0, atol=1e-5)


def test_a_token_that_one_teacher_sees_elsewhere_weighs_less() -> None:
    """Two kinds of patches; the second teacher takes token 0 for one of the other kind."""
    kinds = torch.tensor([0] * 6 + [1] * 6)
    first = torch.eye(2)[kinds] + 0.05 * draw(N, 2)
    second = torch.eye(2)[kinds] + 0.05 * draw(N, 2, seed=1)
    second[0] = second[N - 1]
    weights = robust_weights([first[None], second[None]], scale=0.2)[0]
    assert int(weights.argmin()) == 0
    assert weights[0] < 0.1 * weights[1:].min()
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)


def test_robust_weights_are_the_stated_function_with_mean_one_and_no_graph() -> None:
    tokens = [draw(B, N, 6, seed=k).requires_grad_() for k in range(3)]
    spread = plain_disagreement([t.detach() for t in tokens])
    wanted = 1 / (1 + (spread / 0.3) ** 2)
    got = robust_weights(tokens, 0.3)
    np.testing.assert_allclose(got, wanted / wanted.mean(1, keepdims=True), rtol=1e-4)
    assert not got.requires_grad


def test_weights_of_an_image_do_not_depend_on_its_batch() -> None:
    tokens = [draw(B, N, 6, seed=k) for k in range(3)]
    whole = robust_weights(tokens, 0.3)
    np.testing.assert_allclose(robust_weights([t[1:2] for t in tokens], 0.3), whole[1:2], rtol=1e-5)


@pytest.mark.parametrize(
    "tokens",
    [[draw(B, N, 6)], [draw(B, 2, 6), draw(B, 2, 6, seed=1)], [draw(B, 1, 6), draw(B, 1, 6, seed=1)]],
)
def test_without_structure_to_compare_all_tokens_weigh_one(tokens: list[Tensor]) -> None:
    assert torch.equal(robust_weights(tokens, 0.3), torch.ones(tokens[0].shape[:2]))


@pytest.mark.parametrize("flat", [torch.zeros(B, N, 6), draw(1, 1, 6) * (1 + draw(B, N, 1).abs())])
def test_a_teacher_that_sees_no_structure_is_unrelated_not_nan(flat: Tensor) -> None:
    np.testing.assert_allclose(disagreement([draw(B, N, 6), flat]), 0.5, atol=1e-6)
