"""The human head in both modes: against plain loops, its gradients, and who may influence whom."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.models.human_head import (
    HumanHead,
    HumanHeadConfig,
    HumanOutput,
    MeanPerson,
    local_maxima,
    new_head,
    scores,
)
from dune_bench.models.rotations import rotation_defect
from tests.models import human_head_loops

SHAPE: dict[str, Any] = {
    "encoder_dim": 5,
    "patch": 7,
    "rotations": 3,
    "betas": 2,
    "expressions": 4,
    "width": 8,
    "depth": 2,
    "heads": 2,
    "head_dim": 3,
    "mlp": 6,
}
CLEAN = HumanHeadConfig(**SHAPE, grid=(3, 4))
COMPAT = HumanHeadConfig(**SHAPE, grid=(4, 4), compat=True)
SMALL_DATA = HumanHeadConfig(
    **SHAPE,
    grid=(3, 4),
    standardised=True,
    viewing_frame=True,
    windows=((-0.1, -0.3, 0.4, 0.2), (-0.9, 0.6, -0.6, 0.9)),
    places=False,
)
"""With all that the protocol for few people adds."""
CELLS = [[2, 0, 1], [0, 1, 1], [0, 2, 3], [2, 2, 0], [0, 0, 0]]
"""Three people in image 0, two in image 2, nobody in image 1; not in order."""


def mean_person(config: HumanHeadConfig) -> MeanPerson:
    eye = torch.eye(3).expand(config.rotations, 3, 3)
    return MeanPerson(eye, torch.zeros(config.betas), 0.7, torch.zeros(config.expressions))


def lively(config: HumanHeadConfig, seed: int = 0) -> HumanHead:
    """A head whose every parameter matters, float64."""
    head = new_head(config, mean_person(config), torch.Generator().manual_seed(seed)).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        if config.standardised:
            head.token_mean.fill_(0.2)
            head.token_std.fill_(1.7)
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        head.mean_betas.fill_(0.4)
    return head


def inputs(config: HumanHeadConfig, batch: int = 3, seed: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, config.encoder_dim, *config.grid, generator=generator, dtype=torch.float64)
    K = torch.tensor([[30.0, 0.4, 13.0], [0.0, 33.0, 11.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    zoom = torch.tensor([1.0, 1.0, 0.0])[:, None] * torch.arange(batch)[:, None, None]
    return tokens, K + zoom * torch.eye(3)


@pytest.mark.parametrize("config", [CLEAN, COMPAT, SMALL_DATA], ids=["clean", "compat", "small data"])
def test_batched_head_is_not_another_function_than_the_loops(config: HumanHeadConfig) -> None:
    head, (tokens, K) = lively(config), inputs(config)
    with torch.no_grad():
        logits, output = head(tokens, K, torch.tensor(CELLS))
    assert np.allclose(logits, human_head_loops.logits(head, tokens.numpy()), rtol=1e-9, atol=1e-9)
    expected = human_head_loops.people(head, tokens.numpy(), K.numpy(), CELLS)
    for i, person in enumerate(expected):
        for name, value in person.items():
            got = getattr(output, name)[i].numpy()
            assert np.allclose(got, value, rtol=1e-8, atol=1e-9), (i, name)


@pytest.mark.parametrize("config", [CLEAN, COMPAT, SMALL_DATA], ids=["clean", "compat", "small data"])
def test_no_parameter_is_left_without_gradient(config: HumanHeadConfig) -> None:
    head, (tokens, K) = lively(config), inputs(config)
    logits, output = head(tokens, K, torch.tensor(CELLS))
    total = logits.square().sum()
    for field in fields(HumanOutput):
        if field.name != "cells":
            total = total + getattr(output, field.name).square().sum()
    total.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.abs().max() > 0), name


HEAD = lively(CLEAN)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 30.0))
def test_predicted_rotations_do_not_leave_the_rotation_group(seed: int, scale: float) -> None:
    tokens, K = inputs(CLEAN, seed=seed)
    with torch.no_grad():
        output = HEAD.regress(scale * tokens, K, torch.tensor(CELLS))
    assert float(rotation_defect(output.rotmat).max()) < 1e-9


def test_people_of_other_images_do_not_matter() -> None:
    head, (tokens, K) = lively(CLEAN), inputs(CLEAN)
    cells = torch.tensor(CELLS)
    with torch.no_grad():
        together = head.regress(tokens, K, cells)
        alone = head.regress(tokens[2:], K[2:], torch.tensor([[0, 0, 1], [0, 2, 0]]))
        mates = head.regress(tokens[2:], K[2:], torch.tensor([[0, 0, 1]]))
    assert torch.allclose(together.betas[[0, 3]], alone.betas, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(alone.betas[:1], mates.betas, rtol=1e-6), "people of one image see each other"


def test_order_of_people_does_not_matter() -> None:
    head, (tokens, K) = lively(COMPAT), inputs(COMPAT)
    order = torch.tensor([3, 0, 4, 2, 1])
    with torch.no_grad():
        first = head.regress(tokens, K, torch.tensor(CELLS))
        second = head.regress(tokens, K, torch.tensor(CELLS)[order])
    for field in fields(HumanOutput):
        assert torch.allclose(
            getattr(first, field.name)[order].double(), getattr(second, field.name).double(), rtol=1e-10
        )


def test_nobody_is_not_an_error_and_keeps_the_graph() -> None:
    head, (tokens, K) = lively(CLEAN), inputs(CLEAN)
    output = head.regress(tokens, K, torch.zeros(0, 3, dtype=torch.int64))
    assert len(output) == 0
    assert output.rotmat.shape == (0, 3, 3, 3)
    assert output.expression.shape == (0, 4)
    sum(getattr(output, f.name).sum() for f in fields(HumanOutput) if f.name != "cells").backward()
    assert float(head.decoders["pose"].weight.grad.abs().max()) == 0


def test_body_without_a_face_has_no_expression_decoder() -> None:
    config = CLEAN.model_copy(update={"expressions": 0})
    head = lively(config)
    assert "expression" not in head.decoders
    assert head.regress(*inputs(config), torch.tensor(CELLS)).expression.shape == (5, 0)


def test_distance_grows_with_the_focal_length() -> None:
    """Physical rule: the same tokens through twice the focal length, the rays being the same."""
    head, (tokens, K) = lively(CLEAN), inputs(CLEAN)
    with torch.no_grad():
        head.transformer.embed.weight.zero_()  # the prediction itself must not see the rays
        for layer in head.transformer.layers:
            layer.cross_attention.to_kv.weight.zero_()
        near = head.regress(tokens, K, torch.tensor(CELLS))
        scale = torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
        far = head.regress(tokens, K * scale, torch.tensor(CELLS))
    assert torch.allclose(far.dist, 2 * near.dist)


def test_autocast_does_not_shorten_metres_and_angles() -> None:
    head, (tokens, K) = lively(CLEAN).float(), inputs(CLEAN)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, output = head(tokens.bfloat16(), K.float(), torch.tensor(CELLS))
    for field in fields(HumanOutput):
        if field.name != "cells":
            assert getattr(output, field.name).dtype == torch.float32, field.name
    assert logits.dtype == torch.float32
    assert float(rotation_defect(output.rotmat).max()) < 1e-5


def test_new_head_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    first, second = (
        new_head(CLEAN, mean_person(CLEAN), torch.Generator().manual_seed(3)).state_dict() for _ in range(2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(bool(value.isfinite().all()) for value in first.values())


def test_first_prediction_is_nearly_the_mean_person() -> None:
    head = new_head(CLEAN, mean_person(CLEAN), torch.Generator().manual_seed(3))
    tokens, K = inputs(CLEAN)
    with torch.no_grad():
        output = head.regress(tokens, K.float(), torch.tensor(CELLS))
    assert float((output.rotmat - torch.eye(3)).abs().max()) < 0.2
    assert float((output.dist_raw - 0.7).abs().max()) < 0.2


def test_find_keeps_maxima_that_reach_the_threshold() -> None:
    logits = torch.full((2, 3, 4), -5.0)
    logits[0, 1, 1], logits[0, 1, 2], logits[1, 2, 3], logits[1, 0, 0] = 2.0, 1.5, 0.0, -1.0
    cells, score = lively(CLEAN).find(logits, 0.5)
    assert cells.tolist() == [[0, 1, 1], [1, 2, 3]]
    assert torch.allclose(score, torch.tensor([0.8807971, 0.5]))


def test_saturated_neighbours_do_not_double_a_person() -> None:
    """The clamp makes scores equal; the released models then keep both, the clean mode the larger one."""
    logits = torch.full((1, 4, 4), -20.0)
    logits[0, 1, 1], logits[0, 1, 2] = 12.0, 11.0
    assert lively(COMPAT).find(logits, 0.3)[0].tolist() == [[0, 1, 1], [0, 1, 2]]
    assert lively(CLEAN).find(logits[:, :3], 0.3)[0].tolist() == [[0, 1, 1]]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-3, 3), min_size=20, max_size=20))
def test_local_maxima_are_those_of_brute_force(values: list[int]) -> None:
    grid = np.array(values, dtype=np.float64).reshape(1, 4, 5)
    found = local_maxima(torch.from_numpy(grid))
    for r, c in np.ndindex(4, 5):
        around = grid[0, max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2]
        assert bool(found[0, r, c]) == bool(grid[0, r, c] == around.max())


def test_scores_stay_inside_the_open_interval() -> None:
    assert scores(torch.tensor([-50.0, 0.0, 50.0])).tolist() == pytest.approx([1e-4, 0.5, 1 - 1e-4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": (3, 5, 4, 3)}, r"tokens have shape \(3, 5, 4, 3\), not \(B, 5, 3, 4\)"),
        ({"tokens": (3, 6, 3, 4)}, "another encoder or input size"),
        ({"K": (2, 3, 3)}, r"K has shape \(2, 3, 3\), not \(3, 3, 3\)"),
        ({"cells": [[0, 3, 0]]}, "outside the batch's token grids"),
        ({"cells": [[3, 0, 0]]}, "outside the batch's token grids"),
        ({"cells": [[0, -1, 0]]}, "outside the batch's token grids"),
        ({"cells": [[0, 0]]}, "not int64"),
    ],
)
def test_inputs_of_another_head_are_refused(change: dict[str, Any], message: str) -> None:
    tokens, K = inputs(CLEAN)
    tokens = torch.zeros(change["tokens"]) if "tokens" in change else tokens
    K = torch.ones(change["K"]) if "K" in change else K
    with pytest.raises(TaskError, match=message):
        lively(CLEAN).regress(tokens, K, torch.tensor(change.get("cells", CELLS)))


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValidationError, match="rectangles need compat: false"):
        HumanHeadConfig(encoder_dim=4, patch=14, grid=(3, 4), compat=True)
    with pytest.raises(ValidationError, match="at least one row"):
        HumanHeadConfig(encoder_dim=4, patch=14, grid=(0, 4))
    with pytest.raises(ValidationError, match="widht"):
        HumanHeadConfig(encoder_dim=4, patch=14, grid=(4, 4), widht=7)  # type: ignore[call-arg]


def test_mean_person_is_what_residuals_are_added_to() -> None:
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mean = replace(mean_person(CLEAN), rotmat=turn.expand(3, 3, 3), betas=torch.tensor([0.5, -0.25]))
    head = new_head(CLEAN, mean, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for decoder in head.decoders.values():
            decoder.weight.zero_()
        tokens, K = inputs(CLEAN)
        output = head.regress(tokens, K.float(), torch.tensor(CELLS))
    assert torch.allclose(output.rotmat, turn.expand(5, 3, 3, 3), atol=1e-6)
    assert torch.allclose(output.betas, torch.tensor([0.5, -0.25]).expand(5, 2))


def test_the_released_models_do_not_get_what_they_never_had() -> None:
    for extra in (
        {"standardised": True},
        {"viewing_frame": True},
        {"windows": ((-0.1, -0.1, 0.1, 0.1),)},
        {"places": False},
    ):
        with pytest.raises(ValidationError, match="compat: the released models have places"):
            HumanHeadConfig(**SHAPE, grid=(4, 4), compat=True, **extra)


def test_dropout_is_for_training_alone() -> None:
    config = SMALL_DATA.model_copy(update={"token_dropout": 0.5, "dropout": 0.5})
    head, (tokens, K) = lively(config), inputs(config)
    cells = torch.tensor(CELLS)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        one, two = (head.train().regress(tokens, K, cells).betas for _ in range(2))
        assert not torch.equal(one, two)
        one, two = (head.eval().regress(tokens, K, cells).betas for _ in range(2))
        assert torch.equal(one, two)
