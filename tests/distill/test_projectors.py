"""Projectors: published parameter counts, names of released files, what each token may see."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from dune_bench.distill.projectors import (
    LadderConfig,
    MlpConfig,
    Projector,
    ProjectorConfig,
    StudentShape,
    TransformerConfig,
    fresh_projector,
)
from dune_bench.encoders.dune import TransformerProjector
from dune_bench.errors import UsageError
from dune_bench.registry.cards import Card, parse_card
from tests.encoders.released import listed_shapes

BASE, SMALL = StudentShape(768, 12, 12), StudentShape(384, 12, 6)
TINY = StudentShape(width=12, depth=3, heads=2)
OUT, N = 10, 5
CONFIGS: tuple[ProjectorConfig, ...] = (
    TransformerConfig(),
    MlpConfig(hidden=16),
    LadderConfig(hidden=16, branch_hidden=6),
)


class Recipe(Card):
    projector: ProjectorConfig = TransformerConfig()


def numbers(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(config: ProjectorConfig, shape: StudentShape, out: int = 1024, has_cls: bool = True) -> Projector:
    with torch.device("meta"):
        return config.build(shape, out, has_cls)


def fresh(config: ProjectorConfig, has_cls: bool = True, seed: int = 0) -> Projector:
    return fresh_projector(config, TINY, OUT, has_cls, torch.Generator().manual_seed(seed))


def stirred(config: ProjectorConfig, has_cls: bool = True) -> Projector:
    """With weights under which every part has a say."""
    projector, generator = fresh(config, has_cls), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return projector


def layers(seed: int = 0) -> dict[int, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(2, 1 + N, TINY.width, generator=generator) for n in range(1, TINY.depth + 1)}


@pytest.mark.parametrize(("shape", "count"), [(BASE, 7_876_864), (SMALL, 2_169_472)])
def test_tp_has_the_published_number_of_parameters(shape: StudentShape, count: int) -> None:
    assert numbers(on_meta(TransformerConfig(), shape)) == count


def test_sp_and_lp_have_the_parameters_of_their_description() -> None:
    mlp = 768 * 3072 + 3072 + 3072 * 1024 + 1024
    branch = 2 * 768 + 768 * 768 + 768 + 768 * 1024 + 1024
    assert numbers(on_meta(MlpConfig(), BASE)) == mlp
    assert numbers(on_meta(LadderConfig(), BASE)) == 2 * (12 * branch + mlp)
    assert numbers(on_meta(LadderConfig(), BASE, has_cls=False)) == 12 * branch + mlp


@pytest.mark.parametrize(("size", "shape"), [("small", SMALL), ("base", BASE)])
def test_tp_has_the_names_of_released_files(size: str, shape: StudentShape) -> None:
    prefix = "projectors.mast3r_vitlarge_16."
    listed = {n.removeprefix(prefix): s for n, s in listed_shapes(size).items() if n.startswith(prefix)}
    ours = on_meta(TransformerConfig(), shape).state_dict()
    assert {name: tuple(value.shape) for name, value in ours.items()} == listed


def test_tp_is_the_projector_that_evaluation_uses() -> None:
    ours = stirred(TransformerConfig(blocks=2))
    released = TransformerProjector(TINY.width, TINY.heads, 2, OUT)
    released.load_state_dict(ours.state_dict())
    seen = layers()
    assert torch.equal(ours(seen), released(seen[TINY.depth]))


def test_sp_is_linear_gelu_linear_on_each_token() -> None:
    projector, seen = stirred(MlpConfig(hidden=16)), layers()
    p = dict(projector.named_parameters())
    hidden = seen[TINY.depth] @ p["fc1.weight"].T + p["fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(projector(seen), hidden @ p["fc2.weight"].T + p["fc2.bias"])


def plain_ladder(p: Mapping[str, Tensor], seen: dict[int, Tensor]) -> Tensor:
    x = seen[TINY.depth] @ p["last.fc1.weight"].T + p["last.fc1.bias"]
    out = (x * 0.5 * (1 + torch.erf(x / 2**0.5))) @ p["last.fc2.weight"].T + p["last.fc2.bias"]
    for i in range(TINY.depth):
        x = seen[i + 1]
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        x = x * p[f"branches.{i}.norm.weight"] + p[f"branches.{i}.norm.bias"]
        x = (x @ p[f"branches.{i}.down.weight"].T + p[f"branches.{i}.down.bias"]).clamp(min=0)
        out = out + x @ p[f"branches.{i}.up.weight"].T + p[f"branches.{i}.up.bias"]
    return out


def test_lp_sums_a_branch_of_every_block_with_heads_of_their_own_for_class_and_patches() -> None:
    projector, seen = stirred(LadderConfig(hidden=16, branch_hidden=6)), layers()
    out = projector(seen)
    for kind, rows in (("cls", slice(0, 1)), ("patch", slice(1, None))):
        prefix = f"heads.{kind}."
        p = {n.removeprefix(prefix): v for n, v in projector.named_parameters() if n.startswith(prefix)}
        torch.testing.assert_close(out[:, rows], plain_ladder(p, {n: x[:, rows] for n, x in seen.items()}))


def test_lp_starts_as_its_mlp_on_the_last_block() -> None:
    projector, seen = fresh(LadderConfig(hidden=16, branch_hidden=6)), layers()
    other = layers(1) | {TINY.depth: seen[TINY.depth]}
    assert torch.equal(projector(seen), projector(other))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@pytest.mark.parametrize("has_cls", [True, False])
def test_every_parameter_and_every_layer_gets_a_gradient(config: ProjectorConfig, has_cls: bool) -> None:
    """Also where no class token is taught: several processes would wait for it for ever."""
    projector = stirred(config, has_cls)
    seen = {n: x.requires_grad_() for n, x in layers().items() if n in projector.layers}
    out = projector(seen)
    assert out.shape == (2, 1 + N, OUT)
    (out if has_cls else out[:, 1:]).square().sum().backward()
    idle = [name for name, p in projector.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle
    assert all(x.grad is not None and x.grad.any() for x in seen.values())
    assert list(projector.layers) == sorted(projector.layers)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_fresh_weights_follow_from_the_generator_alone(config: ProjectorConfig) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (fresh(config, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert all(value.isfinite().all() for value in first.values())
    for name, value in first.items():
        leaf = name.split(".")[-1]
        if leaf == "bias":
            assert not value.any()
        elif leaf == "gamma":
            assert (value == 1e-4).all()
        elif "norm" in name:
            assert (value == 1).all()
        else:
            assert "up" in name or 0.01 < float(value.std()) < 0.03


def test_kinds_and_their_options_in_a_recipe() -> None:
    recipe = parse_card({"projector": {"kind": "lp", "hidden": 5}}, Recipe, "recipe r.yaml")
    assert recipe.projector == LadderConfig(hidden=5)
    assert Recipe().projector.build(TINY, OUT, True).layers == (3,)


@pytest.mark.parametrize(
    "content", [{"kind": "mlp"}, {"kind": "tp", "hidden": 5}, {"kind": "sp", "hidden": 0}, {"hidden": 5}]
)
def test_unknown_kinds_and_options_of_other_kinds_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"r\.yaml"):
        parse_card({"projector": content}, Recipe, "recipe r.yaml")
