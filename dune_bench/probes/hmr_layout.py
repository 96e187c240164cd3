"""A body model's parameters as the numbers of the human head, and back to posed bodies.

The head knows rotations (the global one first), shape numbers and face numbers (`HumanHeadConfig`); which
of them is which parameter differs by body model.  The global rotation maps the body's axes to the
camera's (or to the viewing frame's), about the pelvis.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from dune_bench.data.samples import Person
from dune_bench.errors import TaskError, UsageError
from dune_bench.models.anny_release_rig import load_release_rig
from dune_bench.models.body_anny import AnnyBody
from dune_bench.models.body_models import BodyModel, BodyOutput
from dune_bench.models.human_bodies import SMPLX_ROTATIONS, placed, smplx_parameters
from dune_bench.models.rotations import nearest_rotation
from dune_bench.probes.hmr_bodies import checked_bodies
from dune_bench.probes.hmr_people import EARS

Anchor = Literal["between_ears", "head_joint"]
"""The point of a body that is detected and that lies at the head's `translation`."""

UP_FIRST = (2, 0, 1)
"""Order of anny's axes in which up stands first: it hardly varies, so that in the 6-D form a weak
prediction of the heading stays a rotation about it."""
MIRROR = (-1.0, 1.0, 1.0)
"""x runs to the left of both bodies and to the right of the camera: a mirror image negates it in each."""
SIDES = ((".L", ".R"), ("left_", "right_"))


@dataclass(frozen=True)
class BodyNumbers:
    """n people.  rotmat: (n, rotations, 3, 3), the first in the camera frame.  betas: (n, betas).
    expression: (n, expressions)."""

    rotmat: Tensor
    betas: Tensor
    expression: Tensor

    def __getitem__(self, index: Sequence[int] | Tensor) -> Self:
        return type(self)(self.rotmat[index], self.betas[index], self.expression[index])


class PosingLayout(ABC):
    """From a head's numbers to bodies: enough for a head that is not trained here."""

    def __init__(self, model: BodyModel) -> None:
        self.model = model

    @abstractmethod
    def parameters(self, numbers: BodyNumbers) -> tuple[dict[str, Tensor], Tensor]:
        """The model's parameters, rotations as matrices, and R_cam_body (n, 3, 3).  Differentiable."""

    def posed(self, numbers: BodyNumbers, at: Tensor, anchor: Anchor) -> PosedPeople:
        """Bodies in the camera frame with their anchors at `at` (n, 3), metres.  Differentiable.  Raises
        TaskError for numbers that are no bodies."""
        parameters, R_cam_body = self.parameters(numbers)
        turned = _turned(self.model(parameters), R_cam_body)
        point = anchor_points(self.model, turned, anchor)
        return PosedPeople(parameters, R_cam_body, at - point, placed(turned, point, at))


class BodyLayout(PosingLayout):
    """The way back, too.  rotations, betas, expressions: counts of the head for this model."""

    rotations: int
    betas: int
    expressions: int

    @property
    def joints(self) -> list[int]:
        """Joints that a loss looks at."""
        return list(range(len(self.model.joint_names)))

    def thinned(self, every: int) -> Self:
        """The same with every `every`-th vertex and no key points.  Raises UsageError for a body model that
        cannot be thinned."""
        if every != 1:
            raise UsageError(f"vertex_step {every}: the body model {self.model.name} takes 1 only")
        return self

    def on(self, device: torch.device) -> Self:
        """The same with a body model on the device.  This one's stays where it is: those who read data pose
        bodies, too."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).to(device)
        return other

    def head_joints(self, people: Sequence[Person], where: str) -> Tensor:
        """(n, 3) of true people, camera frame, metres.  Raises TaskError naming `where`."""
        values = checked_bodies(self.model, people, where)
        T = torch.from_numpy(np.stack([p.T_cam_body for p in people])).float()
        with torch.no_grad():
            bodies = self.model({name: value.float() for name, value in values.items()})
        joints: Tensor = bodies.moved(T).joints[:, self.model.head]
        return joints

    @abstractmethod
    def numbers(self, people: Sequence[Person], where: str) -> BodyNumbers:
        """float32.  Raises TaskError naming `where` for parameters that are not the model's."""

    @abstractmethod
    def mirrored(self, numbers: BodyNumbers) -> BodyNumbers:
        """The people in a mirror image of the picture."""


@dataclass(frozen=True)
class PosedPeople:
    """parameters: of the model.  R_cam_body: (n, 3, 3); t_cam_body: (n, 3), metres.  bodies: camera frame."""

    parameters: dict[str, Tensor]
    R_cam_body: Tensor
    t_cam_body: Tensor
    bodies: BodyOutput


def anchor_points(model: BodyModel, bodies: BodyOutput, anchor: Anchor) -> Tensor:
    """(n, 3): the middle between the ears, or the head joint."""
    if anchor == "head_joint":
        return bodies.joints[:, model.head]
    left, right = (bodies.keypoints[:, model.keypoint_names.index(ear)] for ear in EARS)
    return (left + right) / 2


def _turned(bodies: BodyOutput, R: Tensor) -> BodyOutput:
    return BodyOutput(*(x @ R.mT for x in (bodies.vertices, bodies.joints, bodies.keypoints)))


class AnnyLayout(BodyLayout):
    """rotations: the orientation (the root bone's turn included, axes in the order UP_FIRST), then `bones`.
    betas: the phenotype.  rest: (J, 3, 3), what the other bones stay at."""

    expressions = 0

    def __init__(self, model: BodyModel, bones: Sequence[int], rest: Tensor) -> None:
        super().__init__(model)
        self.bones, self.rest = list(bones), rest
        self.rotations = 1 + len(self.bones)
        self.betas = model.parameter_specs["phenotype"].shape[0]

    @property
    def joints(self) -> list[int]:
        return [self.model.root, *self.bones]

    def thinned(self, every: int) -> AnnyLayout:
        if every == 1:
            return self
        assert isinstance(self.model, AnnyBody)
        return AnnyLayout(self.model.thinned(every), self.bones, self.rest)

    @classmethod
    def of_people(cls, model: BodyModel, poses: Tensor) -> AnnyLayout:
        """Bones that move among the people, poses (n, J, 3, 3); the others stay at their mean."""
        moves = (poses - poses[:1]).abs().amax((0, 2, 3)) > 1e-5
        # Of a pair of bones both: a mirrored person moves the other one.
        moves |= moves[_other_side(model.joint_names)]
        moves[model.root] = False
        return cls(model, moves.nonzero()[:, 0].tolist(), nearest_rotation(poses.mean(0)).float())

    def numbers(self, people: Sequence[Person], where: str) -> BodyNumbers:
        if not people:
            return BodyNumbers(torch.zeros(0, self.rotations, 3, 3), torch.zeros(0, self.betas), _none(0))
        values = checked_bodies(self.model, people, where)
        R = torch.from_numpy(np.stack([p.T_cam_body[:3, :3] for p in people]))
        pose = values["pose"]
        first = (R @ pose[:, self.model.root])[..., list(UP_FIRST)]
        rotmat = torch.cat([first[:, None], pose[:, self.bones]], 1)
        return BodyNumbers(rotmat.float(), values["phenotype"].float(), _none(len(people)))

    def parameters(self, numbers: BodyNumbers) -> tuple[dict[str, Tensor], Tensor]:
        count = len(numbers.rotmat)
        pose = self.rest.to(numbers.rotmat).expand(count, -1, 3, 3).clone()
        pose[:, self.model.root] = torch.eye(3, device=pose.device)
        pose[:, self.bones] = numbers.rotmat[:, 1:]
        root = pose.new_zeros(count, 3)
        order = np.argsort(UP_FIRST).tolist()
        return {"phenotype": numbers.betas, "pose": pose, "root": root}, numbers.rotmat[:, 0][..., order]

    def mirrored(self, numbers: BodyNumbers) -> BodyNumbers:
        mirror = torch.tensor(MIRROR, device=numbers.rotmat.device)
        body = mirror[list(UP_FIRST)]
        first = mirror[:, None] * numbers.rotmat[:, :1] * body
        others = mirror[:, None] * numbers.rotmat[:, 1:] * mirror
        names = [self.model.joint_names[bone] for bone in self.bones]
        rotmat = torch.cat([first, others[:, _other_side(names)]], 1)
        return BodyNumbers(rotmat, numbers.betas, numbers.expression)


class SmplxLayout(BodyLayout):
    """As Multi-HMR orders them (`SMPLX_ROTATIONS`); the eyes look straight ahead."""

    rotations = SMPLX_ROTATIONS["jaw_pose"].stop

    def __init__(self, model: BodyModel) -> None:
        super().__init__(model)
        self.betas = model.parameter_specs["betas"].shape[0]
        self.expressions = model.parameter_specs["expression"].shape[0]

    def numbers(self, people: Sequence[Person], where: str) -> BodyNumbers:
        if not people:
            empty = torch.zeros(0, self.rotations, 3, 3)
            return BodyNumbers(empty, torch.zeros(0, self.betas), torch.zeros(0, self.expressions))
        values = checked_bodies(self.model, people, where)
        R = torch.from_numpy(np.stack([p.T_cam_body[:3, :3] for p in people]))
        parts = [values[name].reshape(len(people), -1, 3, 3) for name in SMPLX_ROTATIONS]
        parts[0] = R[:, None] @ parts[0]
        rotmat = torch.cat(parts, 1)
        return BodyNumbers(rotmat.float(), values["betas"].float(), values["expression"].float())

    def parameters(self, numbers: BodyNumbers) -> tuple[dict[str, Tensor], Tensor]:
        straight = torch.eye(3, device=numbers.rotmat.device).expand(len(numbers.rotmat), 3, 3)
        return smplx_parameters(self.model, numbers), straight

    def mirrored(self, numbers: BodyNumbers) -> BodyNumbers:
        """Shape and face numbers are kept: both are, nearly, of symmetric directions."""
        mirror = torch.tensor(MIRROR, device=numbers.rotmat.device)
        names = list(self.model.joint_names[: SMPLX_ROTATIONS["body_pose"].stop])
        hand = range(SMPLX_ROTATIONS["left_hand_pose"].stop - SMPLX_ROTATIONS["left_hand_pose"].start)
        names += [f"{side}_finger{i}" for side in ("left", "right") for i in hand] + ["jaw"]
        rotmat = (mirror[:, None] * numbers.rotmat * mirror)[:, _other_side(names)]
        return BodyNumbers(rotmat, numbers.betas, numbers.expression)


class AnnyReleaseLayout(PosingLayout):
    """anny's bodies from the numbers of Multi-HMR's Anny release: the rotations of its 163 bones, and the
    phenotype as betas.  Raises TaskError for another body model."""

    def __init__(self, model: BodyModel) -> None:
        super().__init__(model)
        if not isinstance(model, AnnyBody):
            raise TaskError(f"heads of Multi-HMR's Anny release pose the body model anny, not {model.name}")
        self.body, self.rig = model, load_release_rig()

    def parameters(self, numbers: BodyNumbers) -> tuple[dict[str, Tensor], Tensor]:
        return self.rig.parameters(self.body, numbers.rotmat, numbers.betas)


def new_layout(model: BodyModel, people: Sequence[Person], where: str) -> BodyLayout:
    """The layout to train on these people.  Raises TaskError for another body model, or without people."""
    if model.name == "smplx":
        return SmplxLayout(model)
    if not people:
        raise TaskError(f"{where}: nobody must be found in it: there is nobody to learn from")
    return AnnyLayout.of_people(_known(model), checked_bodies(model, people, where)["pose"])


def layout_facts(layout: BodyLayout) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """What a stored head needs of its layout: tensors, and JSON."""
    if isinstance(layout, AnnyLayout):
        return {"layout.rest": layout.rest}, {"bones": layout.bones}
    return {}, {}


def stored_layout(
    model: BodyModel, tensors: Mapping[str, Tensor], facts: Mapping[str, list[int]]
) -> BodyLayout:
    """The inverse of `layout_facts`."""
    if model.name == "smplx":
        return SmplxLayout(model)
    return AnnyLayout(_known(model), facts["bones"], tensors["layout.rest"])


def _known(model: BodyModel) -> BodyModel:
    if model.name != "anny":
        raise TaskError(f"the human head has no layout for the body model {model.name}: use anny or smplx")
    return model


def _other_side(names: Sequence[str]) -> list[int]:
    """For each name the index of its counterpart on the other side of the body; itself in the middle."""
    found = []
    for name in names:
        other = name
        for left, right in SIDES:
            if left in name:
                other = name.replace(left, right)
            elif right in name:
                other = name.replace(right, left)
        found.append(names.index(other))
    return found


def _none(count: int) -> Tensor:
    return torch.zeros(count, 0)
