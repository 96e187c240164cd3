"""What holds for every body model behind the interface: the built-in, the licensed and a toy one."""

from __future__ import annotations

import pytest
import torch

from dune_bench.errors import TaskError, UsageError
from dune_bench.models import body_models
from dune_bench.models.body_models import COCO_KEYPOINTS, BodyModel, load_body_model
from dune_bench.models.rotations import rotvec_to_matrix
from tests.models import toy_body
from tests.models.conftest import random_parameters


def test_outputs_have_the_declared_shapes(body: BodyModel) -> None:
    out = body(body.neutral(2))
    assert out.vertices.shape == (2, body.vertex_count, 3)
    assert out.joints.shape == (2, len(body.joint_names), 3)
    assert out.keypoints.shape == (2, len(COCO_KEYPOINTS), 3)
    assert body.faces.dtype == torch.int64
    assert int(body.faces.max()) < body.vertex_count
    assert body.joint_names[body.root] == body.root_joint
    assert body.joint_names[body.head] == body.head_joint


def test_a_batch_equals_its_people_one_by_one(body: BodyModel) -> None:
    parameters = random_parameters(body, 3, seed=0)
    together = body(parameters)
    for i in range(3):
        alone = body({name: value[i : i + 1] for name, value in parameters.items()})
        torch.testing.assert_close(alone.vertices[0], together.vertices[i])
        torch.testing.assert_close(alone.joints[0], together.joints[i])
        torch.testing.assert_close(alone.keypoints[0], together.keypoints[i])


def test_matrices_and_rotation_vectors_are_the_same_body(body: BodyModel) -> None:
    parameters = random_parameters(body, 2, seed=1)
    matrices = {
        name: rotvec_to_matrix(value) if body.parameter_specs[name].rotation else value
        for name, value in parameters.items()
    }
    torch.testing.assert_close(body(matrices).vertices, body(parameters).vertices)


def test_gradients_match_finite_differences(body: BodyModel) -> None:
    parameters = {k: v.requires_grad_(True) for k, v in random_parameters(body, 1, seed=2).items()}
    out = body(parameters)
    generator = torch.Generator().manual_seed(3)
    chosen = torch.randn(out.vertices.shape, generator=generator, dtype=torch.float64) / body.vertex_count

    def loss(values: dict[str, torch.Tensor]) -> torch.Tensor:
        moved = body(values)
        return (moved.vertices * chosen).sum() + moved.joints.sum() + moved.keypoints.square().sum()

    grads = torch.autograd.grad(loss(parameters), list(parameters.values()))
    with torch.no_grad():
        for (name, value), grad in zip(parameters.items(), grads, strict=True):
            step = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            step *= 1e-6 / step.norm()
            up = loss({**parameters, name: value + step})
            down = loss({**parameters, name: value - step})
            assert ((up - down) / 2).item() == pytest.approx((grad * step).sum().item(), rel=1e-4, abs=1e-12)
            assert grad.abs().max() > 0, f"{name} moves nothing"


def test_moving_bodies_is_a_rigid_motion(body: BodyModel) -> None:
    out = body(random_parameters(body, 2, seed=4))
    T = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    T[:, :3, :3] = rotvec_to_matrix(torch.tensor([[0.1, 2, 0], [0, 0, -1]], dtype=torch.float64))
    T[:, :3, 3] = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    moved = out.moved(T)
    for b in range(2):
        by_hand = torch.stack([T[b, :3, :3] @ x + T[b, :3, 3] for x in out.joints[b]])
        torch.testing.assert_close(moved.joints[b], by_hand)
        torch.testing.assert_close(out.moved(T[b]).vertices[b], moved.vertices[b])
        torch.testing.assert_close(out.moved(T[b]).keypoints[b], moved.keypoints[b])


def test_missing_and_unknown_parameters_are_one_line(body: BodyModel) -> None:
    parameters = body.neutral(1)
    name = next(iter(parameters))
    parameters["thetas"] = parameters.pop(name)
    with pytest.raises(TaskError, match=f"no {name} and unknown thetas") as caught:
        body(parameters)
    assert "\n" not in str(caught.value)


def test_wrong_shape_batch_and_type_are_refused(body: BodyModel) -> None:
    for name, spec in body.parameter_specs.items():
        good = body.neutral(2)
        wrong = torch.zeros(2, *spec.shape, 5, dtype=torch.float64)
        with pytest.raises(TaskError, match=rf"{name}.*has shape.*not \(B"):
            body({**good, name: wrong})
        with pytest.raises(TaskError, match="different batch sizes"):
            body({**good, name: body.neutral(3)[name]})
        with pytest.raises(TaskError, match="not a floating-point"):
            body({**good, name: good[name].long()})
    with pytest.raises(TaskError, match=r"has shape \(\)"):
        body({**good, name: torch.tensor(1.0)})


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_parameters_are_refused_not_posed(body: BodyModel, bad: float) -> None:
    for name in body.parameter_specs:
        parameters = body.neutral(2)
        parameters[name].view(-1)[-1] = bad
        with pytest.raises(TaskError, match=f"{name}.*NaN or infinite"):
            body(parameters)


@pytest.mark.parametrize("fault", ["scaled", "mirrored", "sheared", "zero"])
def test_non_rotations_are_refused_and_located(body: BodyModel, fault: str) -> None:
    name = next(k for k, spec in body.parameter_specs.items() if spec.rotation and spec.shape)
    parameters = body.neutral(2)
    matrices = rotvec_to_matrix(parameters[name])
    matrices[1, 2] = {
        "scaled": 1.1 * torch.eye(3),
        "mirrored": torch.diag(torch.tensor([1.0, 1.0, -1.0])),
        "sheared": torch.tensor([[1.0, 0.1, 0], [0, 1, 0], [0, 0, 1]]),
        "zero": torch.zeros(3, 3),
    }[fault].double()
    with pytest.raises(TaskError, match=rf"{name}'\[1, 2\] is not a rotation") as caught:
        body({**parameters, name: matrices})
    assert "\n" not in str(caught.value)


def test_float32_rotations_pass(body: BodyModel) -> None:
    name = next(k for k, spec in body.parameter_specs.items() if spec.rotation)
    parameters = random_parameters(body, 2, seed=5)
    single = rotvec_to_matrix(parameters[name].float()).double()
    torch.testing.assert_close(
        body({**parameters, name: single}).vertices, body(parameters).vertices, atol=1e-5, rtol=0
    )


def test_unknown_model_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="unknown body model 'smpl': use one of anny, smplx"):
        load_body_model("smpl")


def test_a_registered_model_loads_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_models, "_BUILDERS", dict(body_models._BUILDERS))
    body_models.register_body_model("stick", toy_body.build)
    assert load_body_model("stick").name == "stick"
    with pytest.raises(UsageError, match="exists already"):
        body_models.register_body_model("anny", toy_body.build)
