"""The loss as the engine gets it: against the original's golden values and a plain restatement."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dune_bench.distill.batch import DistillBatch, Tokens
from dune_bench.distill.conflict import gradient_conflict
from dune_bench.distill.objective import LOSS, PART, SHARE, Dropping, Objective
from dune_bench.distill.projectors import TransformerConfig
from dune_bench.distill.student import Student, Taught, build_student
from dune_bench.distill.teacher_norm import TeacherNorm, momentum_at
from dune_bench.distill.weighting import TeacherWeights, Weighting, teacher_weights
from dune_bench.encoders.vit import VitConfig
from dune_bench.engine.step import StepContext
from dune_bench.engine.terms import LossTerm
from tests.distill.small import ToyTeacher, teachers
from tests.distill.test_golden import (
    GOLDEN,
    GROUP_OF_DATASET,
    GROUPS,
    HOMES,
    METHODS,
    Golden,
    tokens,
)

TINY = VitConfig(width=12, depth=2, heads=2, registers=1, table=2)


def context(step: int = 0, progress: float = 0.0) -> StepContext:
    return StepContext(step, progress, torch.Generator().manual_seed(9))


def batch(size: int = 6) -> DistillBatch:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(size, 3, 28, 28, generator=generator)
    return DistillBatch(images, torch.arange(size) % 2, torch.arange(size) + 50)


def student(weighting: Weighting | None = None, seed: int = 2) -> Student:
    taught = [Taught(t.name, t.width, t.has_cls) for t in teachers()]
    weights = teacher_weights(weighting or Weighting(), [t.name for t in teachers()])
    module = build_student(TINY, taught, TransformerConfig(), weights, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        # Blocks that take part, so that what they compute is compared.
        for name, parameter in module.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
    return module


def objective(**changes: Any) -> Objective:
    return replace(Objective(teachers(), ("a", "b")), **changes)


def value(terms: dict[str, LossTerm]) -> Tensor:
    """As the engine: Σ weight · Σ total / Σ count."""
    return torch.stack([t.weight * t.total / max(float(t.count), 1e-30) for t in terms.values()]).sum()


class Recorded(nn.Module):
    """A student that says what was stored."""

    patch = 14

    def __init__(self, golden: Golden, step: int) -> None:
        super().__init__()
        said = {t: tokens(golden, step, t, "student") for t in HOMES}
        raw = {t: tokens(golden, step, t, "teacher") for t in HOMES}
        self.said, self.raw, self.weighting = said, raw, TeacherWeights(list(HOMES))
        self.teacher_norms = nn.ModuleDict({t: TeacherNorm(16, x.cls is not None) for t, x in raw.items()})

    def forward(self, images: Tensor) -> dict[str, Tokens]:
        return self.said

    def follow(self) -> None:
        pass


@pytest.mark.parametrize("counts", ["batch", "process"])
@pytest.mark.parametrize("method", METHODS)
def test_golden_totals_coefficients_and_averages(method: str, counts: str) -> None:
    with np.load(GOLDEN) as file:
        golden = {name: file[name] for name in file.files}
    name, p = method.split(":")
    asked = [ToyTeacher(t, 16, t.startswith("dino"), home) for t, home in HOMES.items()]
    rule = Dropping(method=name, p=float(p), counts=counts)
    groups = torch.tensor([GROUP_OF_DATASET[str(d)] for d in golden["dataset_of_image"]])
    for step in range(4):
        module = Recorded(golden, step)
        given = DistillBatch(torch.zeros(6, 3, 42, 42), groups, groups, module.raw)
        terms = Objective(asked, GROUPS, dropping=rule)(module, given, context(step))
        assert float(value(terms)) == pytest.approx(float(golden[f"{step}/{method}/total"]), abs=1e-6)
        for teacher in HOMES:
            share = terms[SHARE + teacher]
            coefficient = float(share.total) / float(share.count)
            assert coefficient == pytest.approx(float(golden[f"{step}/{method}/{teacher}/coeff"]), abs=1e-6)
            plain = terms[LOSS + teacher]
            mean = golden[f"{step}/{teacher}/loss_per_image"].mean()
            assert float(plain.total) / float(plain.count) == pytest.approx(float(mean), abs=1e-6)


def restated(
    module: Student, given: DistillBatch, kept: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch in float64 from the tensors alone, and its leaves."""
    leaves = {n: p.detach().double().requires_grad_(p.requires_grad) for n, p in module.named_parameters()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ leaves[f"{name}.weight"].T + leaves[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * leaves[f"{name}.weight"] + leaves[f"{name}.bias"]

    def block(x: Tensor, name: str, heads: int) -> Tensor:
        width = x.shape[-1]
        q, k, v = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").split(width, -1)
        parts = []
        for h in range(heads):
            at = slice(h * width // heads, (h + 1) * width // heads)
            scores = q[..., at] @ k[..., at].transpose(1, 2) / math.sqrt(width / heads)
            parts.append(scores.softmax(-1) @ v[..., at])
        attended = linear(torch.cat(parts, -1), f"{name}.attn.proj")
        x = x + leaves[f"{name}.ls1.gamma"] * attended
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return x + leaves[f"{name}.ls2.gamma"] * linear(hidden, f"{name}.mlp.fc2")

    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)
    patches = F.unfold((given.images.double() - mean) / std, 14, stride=14).transpose(1, 2)
    x = patches @ leaves["encoder.patch_embed.proj.weight"].flatten(1).T
    x = x + leaves["encoder.patch_embed.proj.bias"]
    size = len(x)
    x = torch.cat([leaves["encoder.cls_token"].expand(size, -1, -1), x], 1) + leaves["encoder.pos_embed"]
    x = torch.cat([x[:, :1], leaves["encoder.register_tokens"].expand(size, -1, -1), x[:, 1:]], 1)
    for number in range(2):
        x = block(x, f"encoder.blocks.{number}", 2)
    x = torch.cat([x[:, :1], x[:, 2:]], 1)
    total, count = torch.zeros((), dtype=torch.float64), 0.0
    for teacher in teachers():
        said = linear(block(x, f"projectors.{teacher.name}.blocks.0", 2), f"projectors.{teacher.name}.linear")
        raw = teacher.tokens(given.images, 14)
        rows = raw.patch.double().flatten(0, 1)
        target = (raw.patch.double() - rows.mean(0)) / rows.std(0)
        loss = distance(said[:, 1:], target).mean(1)
        if raw.cls is not None:
            cls = raw.cls.double()
            loss = (loss + distance(said[:, 0], (cls - cls.mean(0)) / cls.std(0))) / 2
        total = total + (kept[teacher.name].double() * loss).sum()
        count += float(kept[teacher.name].sum())
    return total / count, leaves


def distance(said: Tensor, target: Tensor) -> Tensor:
    cosine = (said * target).sum(-1) / (said.norm(dim=-1) * target.norm(dim=-1))
    error = (said - target).abs()
    smooth = torch.where(error < 1, 0.5 * error.square(), error - 0.5).mean(-1)
    return 0.5 * (1 - cosine) + 0.5 * smooth


def test_gradient_equals_a_plain_restatement() -> None:
    module, given = student(), batch()
    objective_ = objective()
    losses = {n: x.detach() for n, x in objective_.image_losses(module, given, None).items()}
    kept = objective_._kept(losses, given, context())
    assert 0 < sum(float(c.sum()) for c in kept.values()) < 12, "some are dropped"
    loss = value(objective_(module, given, context()))
    loss.backward()
    expected, leaves = restated(module, given, kept)
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
    worst = 0.0
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            wanted = leaves[name].grad
            # Relative to the tensor's largest entry where that is above 1.
            scale = max(1.0, float(wanted.abs().max()))
            error = float((parameter.grad.double() - wanted).abs().max()) / scale
            worst = max(worst, error)
            assert error < 1e-6, name
    print(f"largest difference of a gradient: {worst:.2g}")


def test_parts_sum_to_the_loss_and_the_rest_weighs_nothing() -> None:
    terms = objective()(student(), batch(), context())
    parts = [t for name, t in terms.items() if name.startswith(PART)]
    assert len({float(t.count) for t in parts}) == 1
    total = sum(float(t.total.detach()) for t in parts)
    assert total / float(parts[0].count) == pytest.approx(float(value(terms).detach()))
    for name, term in terms.items():
        assert term.weight == float(name.startswith(PART))
        assert term.total.requires_grad == name.startswith(PART)


def test_random_numbers_are_the_images_or_the_processs() -> None:
    ones = {"one": torch.zeros(6), "two": torch.ones(6)}
    image = objective()
    kept = image._kept(ones, batch(), context())["one"]
    later = StepContext(7, 0.5, torch.Generator().manual_seed(1))
    assert torch.equal(image._kept(ones, batch(), later)["one"], kept)
    process = objective(dropping=Dropping(draw="process"))
    drawn = torch.rand((6, 2), generator=torch.Generator().manual_seed(9))[:, 0] >= 0.5
    assert torch.equal(process._kept(ones, batch(), context())["one"], drawn.float())


def test_images_that_kept_more_teachers_can_count_the_same() -> None:
    ones = {"one": torch.zeros(6), "two": torch.ones(6)}
    kept = objective(dropping=Dropping(equal_images=True))._kept(ones, batch(), context())
    assert (kept["one"] + kept["two"]).tolist() == [1.0] * 6


def test_momentum_is_the_published_cosine_by_default() -> None:
    for progress in (0.0, 0.3, 0.99):
        assert objective().momentum_at(progress) == pytest.approx(momentum_at(progress))
    assert objective(momentum=(0.5, 0.1)).momentum_at(0.0) == 0.5


def test_learned_and_fixed_weights_change_the_parts_alone() -> None:
    plain = objective()(student(), batch(), context())
    fixed = student(Weighting(kind="fixed", weights={"one": 2.0, "two": 0.5}))
    terms = objective()(fixed, batch(), context())
    for name, factor in (("one", 2.0), ("two", 0.5)):
        torch.testing.assert_close(terms[PART + name].total, factor * plain[PART + name].total)
        torch.testing.assert_close(terms[LOSS + name].total, plain[LOSS + name].total)
    learned = student(Weighting(kind="uncertainty"))
    terms = objective()(learned, batch(), context())
    value(terms).backward()
    s = learned.weighting.log_variances.grad
    # d/ds of exp(−s)·ℓ + s at 0 is 1 − ℓ.
    for number, name in enumerate(("one", "two")):
        part, count = terms[PART + name], float(terms[PART + name].count)
        kept, before = float(terms[SHARE + name].total), float(plain[PART + name].total.detach())
        assert float(s[number]) == pytest.approx((kept - before) / count, abs=1e-6)
        assert part.weight == 1


def test_robust_weights_change_losses_but_not_without_disagreement() -> None:
    usual = objective().image_losses(student(), batch(), None)
    robust = objective(robust=0.2).image_losses(student(), batch(), None)
    assert not torch.allclose(usual["two"], robust["two"])
    relaxed = objective(robust=1e6).image_losses(student(), batch(), None)
    torch.testing.assert_close(usual["two"], relaxed["two"])


def test_average_moves_once_a_step_and_not_in_a_count() -> None:
    calls: list[int] = []
    module, loss = student(), objective()
    module.follow = lambda: calls.append(1)  # type: ignore[method-assign]
    with torch.no_grad():
        loss(module, batch(), context(0))
    assert not calls
    for step in (0, 0, 1):
        loss(module, batch(), context(step))
    assert len(calls) == 2


def test_teacher_without_finite_tokens_becomes_a_loss_that_stops_the_engine() -> None:
    given = batch()
    bright = given.images.mean((1, 2, 3))
    limit = float(bright.sort().values[-2:].mean())
    broken = (teachers()[0], ToyTeacher("two", 9, broken=limit, home="b"))
    loss = objective(teachers=broken)
    terms = loss(student(), given, context())
    bad = {name for name, term in terms.items() if not math.isfinite(float(term.total.detach()))}
    assert {"loss/two", "part/two"} <= bad
    assert "loss/one" not in bad
    assert loss.suspects == {50 + int(bright.argmax())}
    assert loss.faults == ["teacher two: encoder two: non-finite features"]


def test_gradient_conflict_is_the_cosine_of_the_gradients_and_leaves_no_trace() -> None:
    module, given, loss = student(), batch(), objective()
    for name, norm in module.teacher_norms.items():
        norm(next(t for t in teachers() if t.name == name).tokens(given.images, 14), 1.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = gradient_conflict(module, loss, given)
    after = module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(m.training for m in module.modules())
    vectors = {}
    for name in ("one", "two"):
        module.zero_grad()
        loss.image_losses(module, given, None)[name].mean().backward()
        vectors[name] = [p.grad.flatten().double() for p in module.encoder.parameters() if p.requires_grad]
    whole = {name: torch.cat(parts) for name, parts in vectors.items()}
    cosine = float(F.cosine_similarity(whole["one"], whole["two"], dim=0))
    assert found.cosines["one|two"] == pytest.approx(cosine, abs=1e-4)
    assert found.norms["one"] == pytest.approx(float(whole["one"].norm()), rel=1e-4)
    assert list(found.by_block) == ["embed", "1", "2"]


def test_stored_tokens_are_used_and_no_teacher_is_asked() -> None:
    given = batch()
    stored = {t.name: t.tokens(given.images, 14) for t in teachers()}
    live = objective()(student(), given, context())
    silent = tuple(replace(t, broken=0.0) for t in teachers())
    terms = objective(teachers=silent)(student(), replace(given, stored=stored), context())
    assert {n: float(t.total.detach()) for n, t in terms.items()} == {
        n: float(t.total.detach()) for n, t in live.items()
    }
