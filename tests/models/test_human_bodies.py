"""From predicted people to SMPL-X bodies in front of the camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dune_bench.errors import TaskError
from dune_bench.models.body_models import BodyModel, load_body_model
from dune_bench.models.human_bodies import PeopleMeshes, smplx_parameters, smplx_people
from dune_bench.models.human_head import HumanOutput
from dune_bench.models.rotations import rotvec_to_matrix


@pytest.fixture(scope="module")
def smplx(smplx_file: Path) -> BodyModel:
    return load_body_model("smplx", smplx_file, dtype=torch.float64)


def people(count: int = 2) -> HumanOutput:
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator, dtype=torch.float64)

    return HumanOutput(
        cells=torch.zeros(count, 3, dtype=torch.int64),
        offset=normal(2),
        loc=normal(2),
        rotmat=rotvec_to_matrix(0.5 * normal(53, 3)),
        betas=normal(10),
        expression=normal(10),
        dist_raw=normal(),
        dist=normal().exp(),
        translation=normal(3) + torch.tensor([0.0, 0.0, 4.0]),
    )


def test_head_joint_is_where_it_was_found(smplx: BodyModel) -> None:
    output = people()
    bodies = smplx_people(smplx, output)
    assert torch.allclose(bodies.joints[:, smplx.head], output.translation)


def test_global_rotation_turns_the_body_about_its_pelvis(smplx: BodyModel) -> None:
    output = people()
    upright = output.rotmat.clone()
    upright[:, 0] = torch.eye(3, dtype=torch.float64)
    turned, still = (
        PeopleMeshes.of(smplx, smplx_people(smplx, replace(output, rotmat=rotmat)))
        for rotmat in (output.rotmat, upright)
    )
    assert turned.vertices is not None
    assert still.vertices is not None
    centred = still.vertices - still.pelvis[:, None]
    assert torch.allclose(turned.vertices - turned.pelvis[:, None], centred @ output.rotmat[:, 0].mT)


def test_hands_are_not_swapped(smplx: BodyModel) -> None:
    output = people(1)
    neutral = torch.eye(3, dtype=torch.float64).repeat(1, 53, 1, 1)
    straight = smplx_people(smplx, replace(output, rotmat=neutral)).joints
    for index, moved in ((22, "left_index2"), (37, "right_index2"), (16, "left_wrist")):
        bent = neutral.clone()
        bent[:, index] = output.rotmat[:, 0]
        shift = (smplx_people(smplx, replace(output, rotmat=bent)).joints - straight).norm(dim=-1)[0]
        names = {name for name, far in zip(smplx.joint_names, shift.tolist(), strict=True) if far > 1e-9}
        side = moved.partition("_")[0]
        assert moved in names
        assert not any(name.startswith("left" if side == "right" else "right") for name in names)


def test_gradients_reach_everything_that_was_predicted(smplx: BodyModel) -> None:
    output = people()
    leaves = {
        name: getattr(output, name).clone().requires_grad_()
        for name in ("rotmat", "betas", "expression", "translation")
    }
    weights = torch.randn(smplx.vertex_count, 3, generator=torch.Generator().manual_seed(1)).double()
    (smplx_people(smplx, replace(output, **leaves)).vertices * weights).sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all()), name
        assert bool((leaf.grad.flatten(1).abs().max(1).values > 0).all()), name


def test_head_for_another_body_is_refused(smplx: BodyModel) -> None:
    output = people()
    with pytest.raises(TaskError, match="SMPL-X takes 53 rotations, the head predicts 52"):
        smplx_parameters(smplx, replace(output, rotmat=output.rotmat[:, 1:]))
    with pytest.raises(TaskError, match="'betas' has shape"):
        smplx_people(smplx, replace(output, betas=output.betas[:, :9]))


def test_not_a_number_is_not_a_body(smplx: BodyModel) -> None:
    output = people()
    output.betas[1, 0] = torch.nan
    with pytest.raises(TaskError, match="'betas' holds NaN"):
        smplx_people(smplx, output)


def test_nobody_is_no_body(smplx: BodyModel) -> None:
    nobody = HumanOutput(**{name: value[:0] for name, value in vars(people()).items()})
    assert smplx_people(smplx, nobody).vertices.shape == (0, smplx.vertex_count, 3)
