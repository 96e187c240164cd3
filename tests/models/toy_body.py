"""A third body model in forty lines: a stick figure that only the interface knows about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from dune_bench.models.body_models import BodyModel, BodyOutput, Parameter
from dune_bench.models.skinning import KinematicTree, skin


class StickBody(BodyModel):
    """Pelvis, neck and head on one line; 17 vertices along it are the key points too."""

    name: ClassVar[str] = "stick"
    joint_names = ("pelvis", "neck", "head")
    root_joint, head_joint = "pelvis", "head"

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.parameter_specs = {
            "height": Parameter((), neutral=1.7),
            "pose": Parameter((3,), rotation=True),
            "place": Parameter((3,)),
        }
        self._tree = KinematicTree([-1, 0, 1])
        self.register_buffer("_along", torch.linspace(0, 0.5, 17, dtype=dtype))
        self.register_buffer("_joints", torch.tensor([0.0, 0.3, 0.42], dtype=dtype))
        self.register_buffer("_weights", torch.eye(3, dtype=dtype)[[0] * 10 + [1] * 4 + [2] * 3])
        self.register_buffer("faces", torch.tensor([[0, 1, 2]]))

    @property
    def vertex_count(self) -> int:
        return len(self._along)

    def _pose(self, parameters: Mapping[str, Tensor]) -> BodyOutput:
        up = parameters["height"][:, None, None] * torch.eye(3, dtype=self._along.dtype)[2]
        rest, heads = up * self._along[:, None], up * self._joints[:, None]
        offsets = torch.cat([parameters["place"][:, None], heads[:, 1:] - heads[:, :-1]], 1)
        turned, positions = self._tree.pose(parameters["pose"], offsets)
        vertices = skin(rest, self._weights, turned, heads, positions)
        return BodyOutput(vertices, positions, vertices)


def build(path: Path | None, dtype: torch.dtype) -> BodyModel:
    """The stick figure needs no file."""
    del path
    return StickBody(dtype)
