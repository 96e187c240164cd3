"""Losses and gradients of a student's teachers, on cases whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dune_bench.distill.augment import evaluation_view
from dune_bench.distill.batch import DistillBatch
from dune_bench.distill.conflict import Conflict, gradient_conflict
from dune_bench.distill.interference import (
    WHOLE,
    InterferenceOptions,
    TrainedStudent,
    block_cosines,
    domains_of,
    interference,
    load_trained,
    mean_and_error,
)
from dune_bench.distill.objective import Objective
from dune_bench.distill.student import Student
from dune_bench.distill.train import first_student
from dune_bench.errors import TaskError, UsageError
from tests.distill.pictures import fill
from tests.distill.small import SIZE, ToyTeacher, pictures, recipe, run, teachers

OPTIONS = InterferenceOptions(limit=4, batches=3, batch_size=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("student")
    run(place, base)
    return place


@pytest.fixture
def trained(folder: Path) -> TrainedStudent:
    return load_trained(folder, device="cpu", teachers=teachers())


class Said:
    """An objective whose losses are functions of the encoder's parameters."""

    def __init__(self, **losses: Callable[[Mapping[str, Tensor]], Tensor]) -> None:
        self._losses = losses

    def image_losses(
        self, student: Student, batch: DistillBatch, momentum: float | None
    ) -> dict[str, Tensor]:
        named = dict(student.encoder.named_parameters())
        return {name: loss(named)[None] for name, loss in self._losses.items()}


def cosines_of(**losses: Callable[[Mapping[str, Tensor]], Tensor]) -> dict[str, float]:
    student = first_student(recipe(), teachers())
    batch = DistillBatch(torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1).long(), torch.zeros(1).long())
    conflict = gradient_conflict(student, cast(Objective, Said(**losses)), batch)
    return {row.block: row.cosine for row in block_cosines("s", [conflict])}


def first_block(named: Mapping[str, Tensor]) -> Tensor:
    return named["blocks.0.attn.proj.weight"].sum()


def second_block(named: Mapping[str, Tensor]) -> Tensor:
    return named["blocks.1.attn.proj.weight"].sum()


def test_opposite_gradients_have_cosine_minus_one() -> None:
    found = cosines_of(a=first_block, b=lambda named: -3 * first_block(named))
    assert found[WHOLE] == pytest.approx(-1)
    assert found["1"] == pytest.approx(-1)
    assert (found["embed"], found["2"]) == (0, 0)  # no gradient there


def test_gradients_on_other_blocks_are_orthogonal() -> None:
    found = cosines_of(a=first_block, b=second_block)
    assert set(found.values()) == {0.0}


def test_conflict_of_one_block_is_seen_behind_the_agreement_of_the_whole() -> None:
    """By hand: a = (1, 3), b = (-1, 3) on two blocks of as many entries: cosine 8 / 10."""
    found = cosines_of(
        a=lambda named: first_block(named) + 3 * second_block(named),
        b=lambda named: -first_block(named) + 3 * second_block(named),
    )
    assert found[WHOLE] == pytest.approx(0.8)
    assert (found["1"], found["2"]) == (pytest.approx(-1), pytest.approx(1))


def test_mean_and_error_over_batches_by_hand() -> None:
    conflicts = [Conflict({}, {"a|b": c}, {"1": {"a|b": -c}}) for c in (0.1, 0.2, 0.6)]
    whole, block = block_cosines("s", conflicts)
    assert (whole.block, whole.batches, whole.cosine) == (WHOLE, 3, pytest.approx(0.3))
    assert whole.se == pytest.approx(math.sqrt(0.07 / 3))  # variance (0.04 + 0.01 + 0.09) / 2
    assert (block.first, block.second, block.cosine) == ("a", "b", pytest.approx(-0.3))
    assert mean_and_error([0.5]) == (0.5, None)
    assert block_cosines("s", []) == ()


def test_losses_are_those_of_held_out_images_and_moving_statistics(
    trained: TrainedStudent, base: Path, tmp_path: Path
) -> None:
    fill(tmp_path / "b", 3)
    domains = domains_of(trained.recipe, base, {"b": tmp_path / "b"})
    assert [(d.group.name, d.held_out, len(d.group)) for d in domains] == [("a", False, 5), ("b", True, 3)]
    losses, cosines = interference("s", trained, domains, OPTIONS)
    assert [(r.teacher, r.domain, r.images) for r in losses] == [
        ("one", "a", 4),
        ("two", "a", 4),
        ("one", "b", 3),
        ("two", "b", 3),
    ]
    pixels = [domains[1].group.sources[0].read(n) for n in range(3)]
    images = torch.stack([evaluation_view(p, SIZE) for p in pixels])
    student = trained.student
    with torch.no_grad():
        said = student(images)["two"].patch
        target = ToyTeacher("two", 9).tokens(images, 14).patch
        norm: Any = student.teacher_norms["two"]
        statistics = norm.normalizers["patch"]
        target = (target - statistics.mean) / statistics.std.clamp(min=1e-3)
        cosine = (1 - F.cosine_similarity(said, target, dim=-1)).mean(1)
        smooth = F.smooth_l1_loss(said, target, reduction="none").mean((1, 2))
    row = losses[3]
    assert row.cosine == pytest.approx(float(cosine.mean()), rel=1e-4)
    assert row.cosine_se == pytest.approx(float(cosine.std() / math.sqrt(3)), rel=1e-3)
    assert row.smooth_l1 == pytest.approx(float(smooth.mean()), rel=1e-4)
    assert {r.block for r in cosines} == {WHOLE, "embed", "1", "2"}
    assert all(-1 <= r.cosine <= 1 and r.batches == 3 and r.se is not None for r in cosines)


def test_nothing_of_the_student_changes(trained: TrainedStudent, base: Path) -> None:
    before = {name: value.clone() for name, value in trained.student.state_dict().items()}
    interference("s", trained, domains_of(trained.recipe, base, {}), OPTIONS)
    after = trained.student.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.grad is not None for p in trained.student.parameters())


def test_loaded_student_is_the_trained_one(folder: Path, trained: TrainedStudent) -> None:
    from dune_bench.encoders.dune_files import read_student

    state, there = trained.student.state_dict(), read_student(folder).state
    assert all(torch.equal(state[name], value) for name, value in there.items())
    assert not trained.student.training


def test_minirooms_is_held_out_as_its_test_split(base: Path) -> None:
    rooms = {"sources": [{"kind": "minirooms"}]}
    made = recipe(data={"groups": {"rooms": rooms, "a": {"sources": [{"kind": "folder", "path": "a"}]}}},
                  teachers=[{"name": "one"}])  # fmt: skip
    rooms_test, other = domains_of(made, base, {})
    assert rooms_test.held_out
    assert not other.held_out
    assert "test" in rooms_test.group.sources[0].describe(0) or len(rooms_test.group) > 0


def test_one_teacher_has_no_pairs(base: Path, tmp_path: Path) -> None:
    from dune_bench.distill.train import distill

    one = (ToyTeacher("one", 6),)
    made = recipe(teachers=[{"name": "one", "cls": False}])
    distill(made, tmp_path, base=base, device="cpu", teachers=one)
    trained = load_trained(tmp_path, device="cpu", teachers=one)
    losses, cosines = interference("s", trained, domains_of(made, base, {}), OPTIONS)
    assert len(losses) == 2
    assert cosines == ()


def test_folder_without_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no recipe.yaml: name the folder of a dune-bench distill"):
        load_trained(tmp_path)


def test_teacher_that_breaks_is_named_and_never_averaged(folder: Path, base: Path) -> None:
    broken = (ToyTeacher("one", 6, True, "a"), ToyTeacher("two", 9, False, "b", broken=-1.0))
    trained = load_trained(folder, device="cpu", teachers=broken)
    with pytest.raises(TaskError, match="s: its loss to teacher two on a is not finite: teacher two"):
        interference("s", trained, domains_of(trained.recipe, base, {}), OPTIONS)
