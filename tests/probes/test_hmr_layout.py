"""Bodies as the human head's numbers: nothing of a person is lost, and a mirror image is one."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from dune_bench.data.samples import Person
from dune_bench.errors import TaskError
from dune_bench.models.body_models import BodyModel
from dune_bench.models.body_smplx import read_smplx
from dune_bench.models.rotations import rotvec_to_matrix
from dune_bench.probes.hmr_layout import (
    AnnyLayout,
    BodyLayout,
    SmplxLayout,
    anchor_points,
    layout_facts,
    new_layout,
    stored_layout,
)
from dune_bench.probes.hmr_people import head_points
from tests.models.synthetic_smplx import synthetic_arrays, write
from tests.models.toy_body import StickBody
from tests.probes.hmr_world import crowd, model

PEOPLE = [person for sample in crowd(4, seed=2) for person in sample.people]


@cache
def smplx(tmp: str) -> BodyModel:
    from pathlib import Path

    path = write(Path(tmp) / "SMPLX_NEUTRAL.npz", synthetic_arrays(np.random.default_rng(0)))
    return read_smplx(path, torch.float32)


@pytest.fixture(scope="module")
def smplx_layout(tmp_path_factory: pytest.TempPathFactory) -> SmplxLayout:
    return SmplxLayout(smplx(str(tmp_path_factory.mktemp("smplx"))))


def anny_layout() -> AnnyLayout:
    found = new_layout(model(), PEOPLE, "people")
    assert isinstance(found, AnnyLayout)
    return found


def heads(people: list[Person]) -> torch.Tensor:
    points = np.stack([p.keypoints_3d for p in people])
    return torch.from_numpy(head_points(points, model().keypoint_names)).float()


def smplx_person(layout: BodyLayout, seed: int) -> Person:
    rng = np.random.default_rng(seed)
    body = {
        name: rng.normal(0, 0.3, (*spec.shape, *((3,) if spec.rotation else ())))
        for name, spec in layout.model.parameter_specs.items()
    }
    body |= {name: np.zeros(3) for name in ("leye_pose", "reye_pose")}
    T = np.eye(4)
    T[:3, :3] = rotvec_to_matrix(torch.from_numpy(rng.normal(size=3))).numpy()
    T[:3, 3] = (0.2, -0.1, 3.0)
    none = np.zeros((17, 3))
    return Person(f"p{seed}", body, T, none[:, :2], none, np.ones(17, bool), 1.0, 1.7)


def test_true_people_are_the_same_after_the_numbers() -> None:
    layout = anny_layout()
    posed = layout.posed(layout.numbers(PEOPLE, "people"), heads(PEOPLE), "between_ears")
    for i, person in enumerate(PEOPLE):
        body = model()({k: torch.from_numpy(v)[None].float() for k, v in person.body.items()})
        true = body.moved(torch.from_numpy(person.T_cam_body).float()).vertices[0]
        assert float((posed.bodies.vertices[i] - true).norm(dim=-1).max()) < 1e-4


def test_smplx_people_are_the_same_after_the_numbers(smplx_layout: SmplxLayout) -> None:
    people = [smplx_person(smplx_layout, seed) for seed in range(3)]
    bodies = [
        smplx_layout.model({k: torch.from_numpy(v)[None].float() for k, v in p.body.items()}).moved(
            torch.from_numpy(p.T_cam_body).float()
        )
        for p in people
    ]
    at = torch.cat([body.joints[:, smplx_layout.model.head] for body in bodies])
    posed = smplx_layout.posed(smplx_layout.numbers(people, "people"), at, "head_joint")
    for i, body in enumerate(bodies):
        assert float((posed.bodies.vertices[i] - body.vertices[0]).norm(dim=-1).max()) < 1e-4


@pytest.mark.parametrize("anchor", ["between_ears", "head_joint"])
def test_a_body_does_not_lie_beside_its_anchor(anchor: str) -> None:
    layout = anny_layout()
    at = torch.tensor([[0.3, -0.2, 4.0]]).repeat(len(PEOPLE), 1)
    posed = layout.posed(layout.numbers(PEOPLE, "people"), at, anchor)  # type: ignore[arg-type]
    assert torch.allclose(anchor_points(model(), posed.bodies, anchor), at, atol=1e-5)  # type: ignore[arg-type]
    # The pose that is stored gives the same body.
    T = torch.eye(4).repeat(len(PEOPLE), 1, 1)
    T[:, :3, :3], T[:, :3, 3] = posed.R_cam_body, posed.t_cam_body
    assert torch.allclose(model()(posed.parameters).moved(T).vertices, posed.bodies.vertices, atol=1e-4)


def test_the_mirror_image_of_a_person_is_not_somebody_else() -> None:
    layout = anny_layout()
    numbers, at = layout.numbers(PEOPLE, "people"), heads(PEOPLE)
    other = at * torch.tensor([-1.0, 1.0, 1.0])
    one = layout.posed(numbers, at, "between_ears").bodies.keypoints
    two = layout.posed(layout.mirrored(numbers), other, "between_ears").bodies.keypoints
    names = model().keypoint_names
    swap = [
        names.index(n.replace("left", "right") if "left" in n else n.replace("right", "left")) for n in names
    ]
    assert float((two[:, swap] * torch.tensor([-1.0, 1.0, 1.0]) - one).norm(dim=-1).max()) < 0.01
    # Against doing nothing, or turning the pose without exchanging the sides.
    assert float((two * torch.tensor([-1.0, 1.0, 1.0]) - one).norm(dim=-1).max()) > 0.1


def test_mirroring_twice_is_no_change(smplx_layout: SmplxLayout) -> None:
    for layout, people in (
        (anny_layout(), PEOPLE),
        (smplx_layout, [smplx_person(smplx_layout, 7), smplx_person(smplx_layout, 8)]),
    ):
        numbers = layout.numbers(people, "people")
        twice = layout.mirrored(layout.mirrored(numbers))
        assert torch.equal(twice.rotmat, numbers.rotmat)


def test_bones_that_never_move_are_not_learned() -> None:
    still = [Person(**{**vars(p), "body": {**p.body, "pose": p.body["pose"].copy()}}) for p in PEOPLE]
    for person in still:
        person.body["pose"][41:] = (0.1, 0.2, 0.3)
    layout = new_layout(model(), still, "people")
    assert layout.rotations == 1 + 40, "the root's turn is the body's orientation"
    posed = layout.posed(layout.numbers(still, "people"), heads(still), "between_ears")
    expected = rotvec_to_matrix(torch.tensor([0.1, 0.2, 0.3]))
    assert torch.allclose(posed.parameters["pose"][0, 60], expected, atol=1e-5)


def test_a_person_who_moves_one_arm_can_be_mirrored() -> None:
    names = model().joint_names
    waving = [Person(**{**vars(p), "body": {**p.body, "pose": np.zeros((len(names), 3))}}) for p in PEOPLE]
    for i, one in enumerate(waving):
        one.body["pose"][names.index("upperarm01.L")] = (0.0, 0.1 * i, 0.0)
    layout = new_layout(model(), waving, "people")
    assert isinstance(layout, AnnyLayout)
    assert {names[bone] for bone in layout.bones} == {"upperarm01.L", "upperarm01.R"}
    numbers = layout.numbers(waving, "people")
    other = layout.mirrored(numbers)
    assert torch.allclose(other.rotmat[3, 1 + 0], torch.eye(3)) != torch.allclose(
        other.rotmat[3, 1 + 1], torch.eye(3)
    )


def test_a_stored_layout_is_the_same() -> None:
    layout = anny_layout()
    again = stored_layout(model(), *layout_facts(layout))
    assert isinstance(again, AnnyLayout)
    assert again.bones == layout.bones
    assert torch.equal(again.rest, layout.rest)


def test_gradients_reach_every_number() -> None:
    layout = anny_layout()
    numbers = layout.numbers(PEOPLE[:2], "people")
    values = [numbers.rotmat.clone().requires_grad_(), numbers.betas.clone().requires_grad_()]
    at = heads(PEOPLE[:2]).requires_grad_()
    posed = layout.posed(type(numbers)(*values, numbers.expression), at, "between_ears")
    posed.bodies.vertices.square().sum().backward()
    for value in (*values, at):
        assert value.grad is not None
        assert bool((value.grad.flatten(1) != 0).any(1).all())


def test_nobody_and_another_body_model_are_one_line() -> None:
    with pytest.raises(TaskError, match="nobody must be found in it"):
        new_layout(model(), (), "the training split")
    with pytest.raises(TaskError, match="no layout for the body model stick"):
        new_layout(StickBody(torch.float32), PEOPLE, "x")
