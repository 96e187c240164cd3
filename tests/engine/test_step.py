"""Steps against a plain loop, by hand, and cut into micro-batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dune_bench.engine.data import Pick
from dune_bench.engine.optimizer import ParameterGroup, default_groups
from dune_bench.engine.recipe import Recipe
from dune_bench.engine.runner import Every
from dune_bench.engine.step import StepContext
from dune_bench.engine.terms import LossTerm
from dune_bench.engine.train import train
from dune_bench.errors import TaskError, UsageError
from tests.engine.toy import SEED, Batch, ToyData, drawing_loss, recipe, toy, toy_loss


def weights(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters())


def plain_batch(step: int, size: int) -> Batch:
    """The global batch of a step, from the documented order of the data."""
    picks = []
    for position in range(step * size, (step + 1) * size):
        epoch, place = divmod(position, len(ToyData()))
        order = np.random.default_rng(np.random.SeedSequence([SEED, epoch])).permutation(len(ToyData()))
        seed = np.random.SeedSequence([SEED, position]).generate_state(1, np.uint64)[0] >> np.uint64(1)
        picks.append(Pick(int(order[place]), int(seed)))
    return ToyData().batch(picks)


def plain_loop(numbers: Recipe) -> tuple[nn.Module, list[float]]:
    """AdamW in ten lines of torch: means over the whole batch, weight decay on the head's matrix."""
    module = toy()
    no_decay = [module.norm.weight, module.norm.bias, module.head.bias]
    optimizer = torch.optim.AdamW(
        [{"params": [module.head.weight], "weight_decay": numbers.weight_decay},
         {"params": no_decay, "weight_decay": 0.0}],
        lr=numbers.lr, betas=numbers.betas, eps=numbers.eps, foreach=False,
    )  # fmt: skip
    losses = []
    for step in range(numbers.steps):
        batch = plain_batch(step, numbers.batch_size)
        answers = module(batch.inputs)
        error = (answers - batch.targets)[batch.valid].square().mean()
        loss = error + 0.3 * answers[batch.inputs[:, 0] > 0].abs().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        if numbers.clip_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), numbers.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = numbers.learning_rate(step)
        optimizer.step()
        losses.append(loss.item())
    return module, losses


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_step_is_not_another_than_plain_torch_takes(clip_norm: float | None) -> None:
    numbers = recipe(steps=30, warmup_steps=6, min_lr=1e-4, weight_decay=0.1, clip_norm=clip_norm)
    expected, losses = plain_loop(numbers)
    module = toy()
    record = train(module, toy_loss, ToyData(), numbers, folder=None, seed=SEED)
    assert [line.loss for line in record.lines] == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(weights(module), weights(expected), rtol=1e-6, atol=1e-6)


def test_micro_batches_with_other_counts_are_not_other_steps() -> None:
    results = []
    for accumulate in (1, 4):
        module = toy()
        record = train(module, toy_loss, ToyData(), recipe(accumulate=accumulate), folder=None, seed=SEED)
        results.append((weights(module), [line.loss for line in record.lines]))
    (whole, whole_losses), (cut, cut_losses) = results
    assert cut_losses == pytest.approx(whole_losses, rel=1e-6)
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)


class Counting(nn.Module):
    """Counts its forward passes in a buffer, as running statistics do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += 1
        answer: Tensor = self.inner(inputs)
        return answer


def test_counting_ahead_leaves_no_trace_in_buffers() -> None:
    module = Counting()
    train(module, toy_loss, ToyData(), recipe(steps=3, accumulate=2), folder=None, seed=SEED)
    assert module.passes == 6


def one_step_gradients() -> dict[str, Tensor]:
    module = toy()
    batch = plain_batch(0, 8)
    terms = toy_loss(module, batch, StepContext(0, 0.0, torch.Generator()))
    loss = sum(term.weight * term.total / term.count for term in terms.values())
    assert isinstance(loss, Tensor)
    loss.backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


class SeenGradients(torch.optim.AdamW):
    """Keeps the gradients that reach the optimiser."""

    def step(self, closure: Any = None) -> Any:
        self.seen = [p.grad.clone() for g in self.param_groups for p in g["params"] if p.grad is not None]
        return super().step(closure)


@pytest.mark.parametrize("clip", ["global", "per_tensor"])
def test_clipping_is_not_of_the_other_kind(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizers: list[SeenGradients] = []

    def seen(*args: Any, **options: Any) -> SeenGradients:
        optimizers.append(SeenGradients(*args, **options))
        return optimizers[-1]

    monkeypatch.setattr(torch.optim, "AdamW", seen)
    module = toy()
    groups = [ParameterGroup(("head.weight", "head.bias", "norm.weight", "norm.bias"), 0.0)]
    numbers = recipe(steps=1, clip=clip, clip_norm=2.5)
    record = train(module, toy_loss, ToyData(), numbers, folder=None, seed=SEED, parameter_groups=groups)
    gradients = one_step_gradients()
    norms = {name: g.norm().item() for name, g in gradients.items()}
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert record.lines[0].grad_norm == pytest.approx(total, rel=1e-5)
    assert min(norms.values()) < 2.5 < max(norms.values())
    for name, got in zip(groups[0].names, optimizers[0].seen, strict=True):
        size = norms[name] if clip == "per_tensor" else total
        torch.testing.assert_close(got, gradients[name] * min(1.0, 2.5 / size), rtol=1e-4, atol=1e-6)


def test_frozen_parameters_are_not_touched() -> None:
    module, before = toy(), toy()
    train(module, toy_loss, ToyData(), recipe(weight_decay=0.5), folder=None, seed=SEED)
    assert torch.equal(module.frozen.weight, before.frozen.weight)
    assert not torch.equal(module.head.weight, before.head.weight)
    assert not torch.equal(module.norm.bias, before.norm.bias)


def test_default_weight_decay_is_on_matrices_only() -> None:
    assert default_groups(toy(), 0.3) == (
        ParameterGroup(("head.weight",), 0.3),
        ParameterGroup(("norm.weight", "norm.bias", "head.bias"), 0.0),
    )


def test_scaled_group_learns_at_its_own_rate() -> None:
    module, before = toy(), toy()
    names = ("head.weight", "head.bias", "norm.weight")
    groups = [ParameterGroup(names, 0.0), ParameterGroup(("norm.bias",), 0.0, lr_scale=0.1)]
    numbers = recipe(steps=1, schedule="constant")
    train(module, toy_loss, ToyData(), numbers, folder=None, seed=SEED, parameter_groups=groups)
    # The first step of Adam moves every weight by the rate.
    moved = (module.norm.bias - before.norm.bias).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.005), rtol=1e-3, atol=0)
    moved = (module.head.bias - before.head.bias).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.05), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("head.weight", "head.bias", "norm.weight"), "norm.bias .* no parameter group"),
        (
            ("head.weight", "head.bias", "norm.weight", "norm.bias", "frozen.bias"),
            "frozen.bias .* no trainable",
        ),
        (("head.weight", "head.bias", "norm.weight", "norm.bias", "norm.bias"), "norm.bias .* more than one"),
    ],
)
def test_parameter_is_not_forgotten_in_the_groups(names: tuple[str, ...], message: str) -> None:
    groups = [ParameterGroup(names, 0.0)]
    with pytest.raises(UsageError, match=message):
        train(toy(), toy_loss, ToyData(), recipe(), folder=None, seed=SEED, parameter_groups=groups)


def test_module_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(UsageError, match="no trainable parameter"):
        train(toy().requires_grad_(False), toy_loss, ToyData(), recipe(), folder=None, seed=SEED)


def test_bfloat16_runs_the_forward_pass_and_keeps_float32_weights() -> None:
    seen = []

    def loss(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
        answers = module(batch.inputs)
        seen.append(answers.dtype)
        return {"error": LossTerm((answers.float() - batch.targets).square().sum(), answers.numel())}

    module = toy()
    numbers = recipe(steps=100, dtype="bfloat16")
    record = train(module, loss, ToyData(), numbers, folder=None, seed=SEED)
    assert set(seen) == {torch.bfloat16}
    assert module.head.weight.dtype == torch.float32
    losses = [value for _, value in record.curve("error")]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_term_that_counts_nothing_is_absent_and_not_zero() -> None:
    def loss(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
        answers = module(batch.inputs)
        nothing = answers[:0].sum()
        if context.step == 2:
            return {"error": LossTerm(nothing, 0), "rare": LossTerm(nothing, 0)}
        rare = answers.sum() if context.step == 1 else nothing
        return {
            "error": LossTerm(answers.square().sum(), answers.numel()),
            "rare": LossTerm(rare, len(answers) if context.step == 1 else 0),
        }

    module = toy()
    seen: list[Tensor] = []
    hooks = [Every(1, lambda _, step: seen.append(weights(module).detach().clone()))]
    record = train(module, loss, ToyData(), recipe(steps=4), folder=None, seed=SEED, hooks=hooks)
    assert [sorted(line.terms) for line in record.lines] == [["error"], ["error", "rare"], [], ["error"]]
    assert [line.loss is None for line in record.lines] == [False, False, True, False]
    assert torch.equal(seen[2], seen[1]), "a step that has nothing to learn from moves no weight"


def test_loss_whose_terms_change_is_refused() -> None:
    def loss(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
        name = "early" if context.step < 3 else "late"
        return {name: LossTerm(module(batch.inputs).sum(), 1)}

    with pytest.raises(TaskError, match=r"\['early'\] before and \['late'\] now"):
        train(toy(), loss, ToyData(), recipe(), folder=None, seed=SEED)


def test_two_seeds_are_not_one_and_one_seed_is_not_two() -> None:
    losses = []
    for seed in (1, 1, 2):
        torch.rand(7)  # what the caller drew before does not count
        record = train(toy(0.3), drawing_loss, ToyData(), recipe(), folder=None, seed=seed)
        losses.append([line.loss for line in record.lines])
    assert losses[0] == losses[1] != losses[2]


def test_no_two_steps_or_micro_batches_draw_the_same() -> None:
    drawn: list[tuple[float, float]] = []

    def loss(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
        if torch.is_grad_enabled():
            drawn.append((torch.rand((), generator=context.generator).item(), torch.rand(()).item()))
        return toy_loss(module, batch, context)

    train(toy(), loss, ToyData(), recipe(accumulate=2), folder=None, seed=SEED)
    assert len({own for own, _ in drawn} | {dropout for _, dropout in drawn}) == 2 * 2 * 12
