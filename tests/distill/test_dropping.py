"""Who teaches which image, against the rules said in plain words, image by image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dune_bench.distill.dropping import (
    check_dropping,
    coefficients,
    equal_images,
    image_uniforms,
    shares,
    total_and_count,
)
from dune_bench.errors import UsageError

HOMES: dict[str, str | None] = {"generic": "dinov2", "geometry": "mast3r", "people": "multihmr"}
GROUPS = ("dinov2", "mast3r", "multihmr")


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, str | None], Tensor, Tensor]:
    """Losses of 1 to 5 teachers on 1 to 6 images, homes (some groups have two teachers, some none), groups,
    uniforms."""
    teachers, images = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    values = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0]), min_size=images, max_size=images)
    losses = {f"t{i}": torch.tensor(draw(values)) for i in range(teachers)}
    homes: dict[str, str | None] = {name: draw(st.sampled_from(GROUPS)) for name in losses}
    groups = torch.tensor(draw(st.lists(st.integers(0, 2), min_size=images, max_size=images)))
    return losses, homes, groups, image_uniforms(torch.arange(images) + draw(st.integers(0, 999)), teachers)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_lowest_loss_always_keeps_the_teacher_with_the_largest_loss(
    batch: tuple[dict[str, Tensor], dict[str, str | None], Tensor, Tensor], p: float
) -> None:
    losses, homes, groups, random = batch
    kept = coefficients(losses, homes, GROUPS, groups, "lowest_loss", p, random)
    for i in range(len(groups)):
        values = [float(loss[i]) for loss in losses.values()]
        worst = values.index(max(values))
        for t, name in enumerate(losses):
            wanted = t == worst or float(random[i, t]) >= p
            assert float(kept[name][i]) == float(wanted)
    assert all(c.dtype == torch.float32 for c in kept.values())


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(["none", "own_data", "own+generic_data"]))
def test_other_methods_go_by_the_images_group_alone(
    batch: tuple[dict[str, Tensor], dict[str, str | None], Tensor, Tensor], method: str
) -> None:
    losses, homes, groups, _ = batch
    kept = coefficients(losses, homes, GROUPS, groups, method, 0.0)
    for i, (name, home) in itertools.product(range(len(groups)), homes.items()):
        group = GROUPS[int(groups[i])]
        own, generic = home == group, group == "dinov2"
        wanted = {"none": True, "own_data": own, "own+generic_data": own or generic}[method]
        assert float(kept[name][i]) == float(wanted)


def test_half_of_the_others_are_dropped_each_on_its_own() -> None:
    images = 4000
    losses = {"a": torch.full((images,), 2.0), "b": torch.ones(images), "c": torch.ones(images)}
    random = image_uniforms(torch.arange(images), 3)
    homes: dict[str, str | None] = dict.fromkeys(losses)
    groups = torch.zeros(images, dtype=torch.long)
    kept = coefficients(losses, homes, GROUPS, groups, "lowest_loss", 0.5, random)
    assert kept["a"].mean() == 1
    for share, wanted in ((kept["b"], 0.5), (kept["c"], 0.5), (kept["b"] * kept["c"], 0.25)):
        assert float(share.mean()) == pytest.approx(wanted, abs=0.04)


def test_a_number_equal_to_p_keeps_so_that_p_zero_drops_nobody() -> None:
    losses, groups = {"a": torch.ones(1), "b": torch.zeros(1)}, torch.zeros(1, dtype=torch.long)
    homes: dict[str, str | None] = dict.fromkeys(losses)
    for p in (0.0, 0.5):
        kept = coefficients(losses, homes, GROUPS, groups, "lowest_loss", p, torch.full((1, 2), p))
        assert kept["b"].tolist() == [1]
    assert coefficients(losses, homes, GROUPS, groups, "lowest_loss", 0.0)["b"].tolist() == [1]


def test_numbers_of_an_image_do_not_depend_on_its_batch() -> None:
    seeds = torch.tensor([5, 2**62, 7, 5])
    whole = image_uniforms(seeds, 3)
    assert torch.equal(whole[1:3], image_uniforms(seeds[1:3], 3))
    assert torch.equal(whole[0], whole[3])
    assert not torch.equal(whole[0], whole[2])
    assert ((whole >= 0) & (whole < 1)).all()
    assert image_uniforms(seeds[:0], 3).shape == (0, 3)


def test_a_teacher_of_a_fourth_group_and_an_image_of_no_teacher() -> None:
    losses = {"generic": torch.ones(3), "plants": torch.ones(3)}
    homes: dict[str, str | None] = {"generic": "dinov2", "plants": "flora"}
    groups, names = torch.tensor([0, 1, 2]), ("dinov2", "flora", "multihmr")
    kept = coefficients(losses, homes, names, groups, "own_data", 0.0)
    assert kept["generic"].tolist() == [1, 0, 0]
    assert kept["plants"].tolist() == [0, 1, 0]


def test_an_image_that_kept_three_teachers_counts_three_times_unless_told_otherwise() -> None:
    losses = {"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([2.0, 0.0]), "c": torch.tensor([3.0, 0.0])}
    kept = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([1.0, 0.0]), "c": torch.tensor([1.0, 0.0])}
    total, count = total_and_count(losses, kept)
    assert (float(total), float(count)) == (11, 4)
    total, count = total_and_count(losses, equal_images(kept))
    assert float(total) == pytest.approx(2 + 5)
    assert float(count) == pytest.approx(2)


def test_an_image_without_a_teacher_has_no_weight_and_no_nan() -> None:
    nothing = {"a": torch.zeros(2), "b": torch.tensor([0.0, 1.0])}
    equal = equal_images(nothing)
    assert equal["a"].tolist() == [0, 0]
    assert equal["b"].tolist() == [0, 1]
    assert float(shares({"a": torch.zeros(2)})["a"]) == 0


def test_halves_of_a_batch_sum_to_the_whole() -> None:
    losses = {name: torch.rand(6, generator=torch.Generator().manual_seed(len(name))) for name in HOMES}
    seeds, groups = torch.arange(6), torch.tensor([0, 1, 2, 0, 1, 2])

    def both(rows: slice) -> tuple[Tensor, Tensor]:
        some = {name: loss[rows] for name, loss in losses.items()}
        random = image_uniforms(seeds[rows], 3)
        return total_and_count(
            some, coefficients(some, HOMES, GROUPS, groups[rows], "lowest_loss", 0.5, random)
        )

    halves = zip(both(slice(0, 3)), both(slice(3, 6)), strict=True)
    for whole, (first, second) in zip(both(slice(0, 6)), halves, strict=True):
        np.testing.assert_allclose(float(whole), float(first + second), rtol=1e-6)


def test_a_loss_that_is_not_a_number_is_not_hidden_by_dropping_it() -> None:
    losses = {"a": torch.tensor([1.0]), "b": torch.tensor([torch.nan])}
    total, _ = total_and_count(losses, {"a": torch.ones(1), "b": torch.zeros(1)})
    assert total.isnan()


def test_coefficients_have_no_graph_and_the_total_has() -> None:
    losses = {name: torch.tensor([1.0, 3.0, 2.0, 0.5]).requires_grad_() for name in HOMES}
    groups = torch.zeros(4, dtype=torch.long)
    kept = coefficients(losses, HOMES, GROUPS, groups, "lowest_loss", 0.5, image_uniforms(groups, 3))
    assert not any(c.requires_grad for c in kept.values())
    total_and_count(losses, kept)[0].backward()  # type: ignore[no-untyped-call]
    for name, loss in losses.items():
        assert loss.grad is not None
        assert torch.equal(loss.grad, kept[name])


@pytest.mark.parametrize(
    ("method", "p", "homes", "groups", "message"),
    [
        ("lowest_los", 0.5, HOMES, GROUPS, "did you mean lowest_loss"),
        ("none", 0.5, HOMES, GROUPS, "p is 0.5, set it to 0"),
        ("own_data", 0.1, HOMES, GROUPS, "p is 0.1, set it to 0"),
        ("lowest_loss", 1.5, HOMES, GROUPS, "between 0 and 1"),
        ("lowest_loss", float("nan"), HOMES, GROUPS, "between 0 and 1"),
        ("own_data", 0, {"extra": None}, GROUPS, "teacher extra has no home group.*dinov2, mast3r"),
        ("own_data", 0, HOMES, ("dinov2",), "teacher geometry has the home group mast3r"),
        ("own+generic_data", 0, HOMES, ("mast3r",), "teacher generic has the home group dinov2"),
    ],
)
def test_impossible_dropping_is_refused(
    method: str, p: float, homes: dict[str, str | None], groups: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_dropping(method, p, homes, groups)


def test_teacher_without_a_home_teaches_on_generic_images() -> None:
    losses, homes = {"extra": torch.ones(3)}, {"extra": None}
    kept = coefficients(losses, homes, GROUPS, torch.arange(3), "own+generic_data", 0.0)
    assert kept["extra"].tolist() == [1, 0, 0]


def test_random_numbers_of_another_shape_are_refused() -> None:
    losses, groups = {"a": torch.ones(2)}, torch.zeros(2, dtype=torch.long)
    for random in (None, torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="random numbers"):
            coefficients(losses, {"a": None}, GROUPS, groups, "lowest_loss", 0.5, random)
