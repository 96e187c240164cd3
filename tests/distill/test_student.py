"""The student: sizes, names, first values, and starting from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dune_bench.distill.projectors import LadderConfig, TransformerConfig
from dune_bench.distill.student import Student, Taught, build_student, resampled, start_from
from dune_bench.distill.weighting import TeacherWeights
from dune_bench.encoders.dune_files import dune_card, save_folder
from dune_bench.encoders.vit import VisionTransformer, VitConfig
from dune_bench.errors import UsageError

TINY = VitConfig(width=12, depth=2, heads=2, registers=2, table=2)
TAUGHT = (Taught("one", 6, True), Taught("two", 9, False))


def student(arch: VitConfig | str = TINY, seed: int = 0, ema: float | None = None) -> Student:
    generator = torch.Generator().manual_seed(seed)
    names = [teacher.name for teacher in TAUGHT]
    return build_student(arch, TAUGHT, TransformerConfig(), TeacherWeights(names), generator, ema)


@pytest.mark.parametrize(("width", "heads", "count"), [(768, 12, 86_318_592), (384, 6, 21_925_632)])
def test_parameter_counts_of_dunes_students(width: int, heads: int, count: int) -> None:
    """With the final norm and the mask token, which never get a gradient."""
    with torch.device("meta"):
        encoder = VisionTransformer(VitConfig(width=width, depth=12, heads=heads, registers=4, table=32))
    assert sum(p.numel() for p in encoder.parameters()) == count


def test_recipes_have_the_published_shapes() -> None:
    from dune_bench.distill.recipe import load_recipe

    for name, width, table in (("dune_vitb14_448", 768, 32), ("dune_vits14_336", 384, 24)):
        arch = load_recipe(name).student.arch
        assert arch is not None
        assert (arch.width, arch.table, arch.registers, arch.depth) == (width, table, 4, 12)


def test_what_gets_no_gradient_is_not_trained() -> None:
    module = student()
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder.norm.weight", "encoder.norm.bias", "encoder.mask_token"}
    said = module(torch.rand(2, 3, 28, 28))
    sum(t.patch.sum() + t.cls.sum() for t in said.values()).backward()
    assert {n for n, p in module.named_parameters() if p.grad is None} == frozen


def test_first_values_follow_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = student().state_dict(), student().state_dict(), student(seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.pos_embed"], other["encoder.pos_embed"])
    assert first["encoder.pos_embed"].std() == pytest.approx(0.02, rel=0.4)
    assert first["encoder.cls_token"].abs().max() < 1e-5
    assert (first["encoder.blocks.0.ls1.gamma"] == 1e-4).all()
    assert 0.5 < first["encoder.patch_embed.proj.weight"].abs().max() * (3 * 14 * 14) ** 0.5 <= 1


def test_registers_do_not_reach_projectors() -> None:
    module = student()
    layers = module.layers(torch.rand(2, 3, 28, 42), (1, 2))
    assert layers[2].shape == (2, 1 + 6, 12)
    raw = module.encoder((torch.zeros(1, 3, 28, 28)), (2,))[2]
    black = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 28, 28)
    ours = module.layers(black, (2,))[2]
    torch.testing.assert_close(ours, raw[:, [0, 3, 4, 5, 6]])


def test_state_names_are_those_of_the_files() -> None:
    names = set(student(ema=0.9).parts())
    assert {name.split(".")[0] for name in names} == {"encoder", "projectors", "teacher_norms"}
    for name in (
        "encoder.blocks.1.attn.qkv.weight",
        "projectors.one.blocks.0.ls2.gamma",
        "projectors.two.linear.bias",
        "teacher_norms.one.normalizers.cls.mean",
        "teacher_norms.two.normalizers.patch.std",
    ):
        assert name in names


def test_average_follows_by_the_formula_and_is_what_is_exported() -> None:
    module = student(ema=0.75)
    start = module.encoder.cls_token.detach().clone()
    with torch.no_grad():
        module.encoder.cls_token += 1
    module.follow()
    with torch.no_grad():
        module.encoder.cls_token += 1
    # 1/4 of +1 is in the average; ahead: a quarter of the way from there to +2.
    expected = start + 0.25 + 0.25 * (2 - 0.25)
    torch.testing.assert_close(module.parts()["encoder.cls_token"], expected)


def test_timm_students_have_tokens_and_gradients() -> None:
    before = torch.get_rng_state()
    module = student("vit_tiny_patch16_224")
    assert torch.equal(torch.get_rng_state(), before)
    said = module(torch.rand(1, 3, 48, 48))
    assert said["two"].patch.shape == (1, 9, 9)
    sum(t.patch.sum() + t.cls.sum() for t in said.values()).backward()
    missing = {n for n, p in module.named_parameters() if p.requires_grad and p.grad is None}
    assert not missing


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_223"])
def test_timm_models_that_cannot_learn_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        student(name)


def test_second_stage_starts_from_the_first_with_its_table_resampled(tmp_path: Path) -> None:
    first = student(seed=1)
    save_folder(tmp_path, dune_card("first", TINY, first.parts()), first.parts())
    second = student(TINY.model_copy(update={"table": 3}), ema=0.9)
    start_from(second, tmp_path)
    assert second.encoder.pos_embed.shape == (1, 10, 12)
    given, taken = first.parts(), second.parts()
    torch.testing.assert_close(taken["encoder.pos_embed"][:, 0], given["encoder.pos_embed"][:, 0])
    for name in set(given) - {"encoder.pos_embed"}:
        torch.testing.assert_close(taken[name], given[name], msg=name)


def test_resampled_table_is_the_same_at_its_own_size_and_smooth_elsewhere() -> None:
    table = torch.rand(1, 5, 3)
    assert resampled(table, 5) is table
    flat = torch.full((1, 5, 3), 2.0)
    torch.testing.assert_close(resampled(flat, 26), torch.full((1, 26, 3), 2.0))


def test_checkpoint_of_another_student_is_refused_in_one_line(tmp_path: Path) -> None:
    first = student()
    save_folder(tmp_path, dune_card("first", TINY, first.parts()), first.parts())
    generator = torch.Generator().manual_seed(0)
    taught = (Taught("one", 6, True), Taught("three", 4, False))
    other = build_student(TINY, taught, TransformerConfig(), TeacherWeights(["one"]), generator)
    before = {name: value.clone() for name, value in other.parts().items()}
    with pytest.raises(UsageError, match=r"projectors.three.* missing.*init_parts: encoder") as refused:
        start_from(other, tmp_path)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in other.parts().items())
    start_from(other, tmp_path, encoder_only=True)
    assert torch.equal(other.encoder.cls_token, first.encoder.cls_token)


def test_ladder_reads_every_block() -> None:
    generator = torch.Generator().manual_seed(0)
    module = build_student(TINY, TAUGHT, LadderConfig(), TeacherWeights(["one", "two"]), generator)
    assert module(torch.rand(2, 3, 28, 28))["two"].patch.shape == (2, 4, 9)


def test_teacher_that_is_called_like_a_method_is_refused() -> None:
    generator = torch.Generator()
    with pytest.raises(UsageError, match="teacher keys: this name is taken"):
        build_student(TINY, (Taught("keys", 3, False),), TransformerConfig(), TeacherWeights([]), generator)
