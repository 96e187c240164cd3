"""From what the human head says of people to their bodies in the camera frame (PROTOCOLS §4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from dune_bench.errors import TaskError
from dune_bench.models.body_models import BodyModel, BodyOutput
from dune_bench.models.human_head import HumanOutput

SMPLX_ROTATIONS = {
    "global_orient": slice(0, 1),
    "body_pose": slice(1, 22),
    "left_hand_pose": slice(22, 37),
    "right_hand_pose": slice(37, 52),
    "jaw_pose": slice(52, 53),
}
"""Which of the head's 53 rotations are which parameters of SMPL-X; the eyes look straight ahead."""


@dataclass(frozen=True)
class PeopleMeshes:
    """P posed people, camera frame, metres.

    pelvis: (P, 3).  joints: (P, J, 3).  vertices: (P, V, 3), or None where nobody asks for them.
    """

    pelvis: Tensor
    joints: Tensor
    vertices: Tensor | None

    @classmethod
    def of(cls, model: BodyModel, bodies: BodyOutput) -> Self:
        """All joints and vertices of a model's bodies that are in the camera frame already."""
        return cls(bodies.joints[:, model.root], bodies.joints, bodies.vertices)


def smplx_people(model: BodyModel, output: HumanOutput) -> BodyOutput:
    """SMPL-X bodies in the camera frame, metres, each one's head joint at its `translation`.

    The global rotation is about the pelvis and maps the body's axes to the camera's.  Differentiable.
    Raises TaskError if the head is one for another body, or predicts what is no body (NaN).
    """
    bodies = model(smplx_parameters(model, output))
    return placed(bodies, bodies.joints[:, model.head], output.translation)


class HasNumbers(Protocol):
    """What the head says of n people but for their place: rotmat (n, rotations, 3, 3), betas (n, betas),
    expression (n, expressions)."""

    @property
    def rotmat(self) -> Tensor: ...
    @property
    def betas(self) -> Tensor: ...
    @property
    def expression(self) -> Tensor: ...


def smplx_parameters(model: BodyModel, output: HasNumbers) -> dict[str, Tensor]:
    """The model's parameters, rotations as matrices, at the body frame's origin.

    Raises TaskError if the head's counts are not those of the model.
    """
    rotmat, count = output.rotmat, SMPLX_ROTATIONS["jaw_pose"].stop
    if rotmat.shape[1] != count:
        raise TaskError(f"SMPL-X takes {count} rotations, the head predicts {rotmat.shape[1]}")
    dtype, size = next(model.buffers()).dtype, len(rotmat)
    parameters = {name: rotmat[:, part].to(dtype) for name, part in SMPLX_ROTATIONS.items()}
    for name in ("global_orient", "jaw_pose"):
        parameters[name] = parameters[name][:, 0]
    straight = torch.eye(3, dtype=dtype, device=rotmat.device).expand(size, 3, 3)
    parameters |= {"leye_pose": straight, "reye_pose": straight}
    parameters |= {"betas": output.betas.to(dtype), "expression": output.expression.to(dtype)}
    return {**parameters, "transl": rotmat.new_zeros(size, 3, dtype=dtype)}


def placed(bodies: BodyOutput, points: Tensor, at: Tensor) -> BodyOutput:
    """The bodies moved so that each one's point (P, 3) comes to lie at `at` (P, 3)."""
    shift = (at - points)[:, None]
    return BodyOutput(bodies.vertices + shift, bodies.joints + shift, bodies.keypoints + shift)
