"""SMPL-X (Pavlakos et al., CVPR 2019) from the user's licensed `.npz`, with its own forward pass.

The file comes from https://smpl-x.is.tue.mpg.de after registration; nothing of it ships here
(`smplx_files` finds it).  Frame: metres, y up, facing +z, x to the person's left.  Hands are flat at zero
(`flat_hand_mean=True`, no PCA), as in Multi-HMR (PROTOCOLS §4.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dune_bench.errors import UsageError
from dune_bench.models.body_files import Array, Shapes, check_indices, read_npz
from dune_bench.models.body_models import BodyModel, BodyOutput, Parameter
from dune_bench.models.skinning import KinematicTree, skin

VERTICES, FACES, JOINTS = 10475, 20908, 55
POSE_FEATURES = (JOINTS - 1) * 9
SHAPES: Shapes = {
    "v_template": (VERTICES, 3),
    "f": (FACES, 3),
    "shapedirs": (VERTICES, 3, "K"),
    "posedirs": (VERTICES, 3, POSE_FEATURES),
    "J_regressor": (JOINTS, VERTICES),
    "weights": (VERTICES, JOINTS),
    "kintree_table": (2, JOINTS),
}
_EXPRESSION_AT = {400: 300, 20: 10}
"""Columns of `shapedirs` -> where expression starts: the full files and the first release's."""
HINT = (
    "register at https://smpl-x.is.tue.mpg.de, download the SMPL-X model (.npz), and name the folder of its "
    "SMPLX_NEUTRAL.npz: `dune-bench prepare smplx --root DIR`"
)

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
JOINT_NAMES = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle"),
    *("right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("jaw", "left_eye_ball", "right_eye_ball"),
    *(f"{side}_{finger}{k}" for side in ("left", "right") for finger in _FINGERS for k in (1, 2, 3)),
)
FACE_VERTICES = {"nose": 9120, "left_eye": 9448, "right_eye": 9929, "left_ear": 6, "right_ear": 616}
"""COCO points that are vertices of the mesh; the other twelve are joints of the same name."""


class SmplxBody(BodyModel):
    """SMPL-X: 10,475 vertices, 55 joints.

    Parameters: `betas`, `expression` (10 each unless asked otherwise), `global_orient` (), `body_pose`
    (21,), `jaw_pose` (), `leye_pose` (), `reye_pose` (), `left_hand_pose` (15,), `right_hand_pose` (15,)
    rotations relative to the parent, `transl` (3,) metres.
    """

    name: ClassVar[str] = "smplx"
    joint_names = JOINT_NAMES
    root_joint = "pelvis"
    head_joint = "head"

    _template: Tensor
    _shape: Tensor
    _joint_template: Tensor
    _joint_shape: Tensor
    _corrective: Tensor
    _weights: Tensor

    def __init__(
        self,
        arrays: Mapping[str, Array],
        betas: int,
        expressions: int,
        tree: KinematicTree,
        dtype: torch.dtype,
    ) -> None:
        """arrays: as SHAPES.  betas, expressions: how many shape and expression coefficients to use."""
        super().__init__()
        self.parameter_specs = {
            "betas": Parameter((betas,)),
            "expression": Parameter((expressions,)),
            "global_orient": Parameter((), rotation=True),
            "body_pose": Parameter((21,), rotation=True),
            **{name: Parameter((), rotation=True) for name in ("jaw_pose", "leye_pose", "reye_pose")},
            "left_hand_pose": Parameter((15,), rotation=True),
            "right_hand_pose": Parameter((15,), rotation=True),
            "transl": Parameter((3,)),
        }
        self._tree = tree
        template = arrays["v_template"].astype(np.float64)
        start = _EXPRESSION_AT[arrays["shapedirs"].shape[-1]]
        columns = [*range(betas), *range(start, start + expressions)]
        shape = np.moveaxis(arrays["shapedirs"][..., columns].astype(np.float64), -1, 0)
        regressor = arrays["J_regressor"].astype(np.float64)

        def keep(name: str, array: Array) -> None:
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)).to(dtype))

        keep("_template", template)
        keep("_shape", shape.reshape(len(columns), -1))
        # Joints are linear in the shape too: regress them once, not on every call.
        keep("_joint_template", regressor @ template)
        keep("_joint_shape", (regressor @ shape).reshape(len(columns), -1))
        keep("_corrective", np.moveaxis(arrays["posedirs"], -1, 0).reshape(POSE_FEATURES, -1))
        keep("_weights", arrays["weights"])
        self.register_buffer("faces", torch.from_numpy(arrays["f"].astype(np.int64)))

    @property
    def vertex_count(self) -> int:
        return len(self._template)

    def _pose(self, parameters: Mapping[str, Tensor]) -> BodyOutput:
        shape = torch.cat([parameters["betas"], parameters["expression"]], -1)
        size = len(shape)
        heads = self._joint_template + (shape @ self._joint_shape).reshape(size, JOINTS, 3)
        rotations = _all_rotations(parameters)
        eye = torch.eye(3, dtype=shape.dtype, device=shape.device)
        bend = (rotations[:, 1:] - eye).flatten(1)
        moved = shape @ self._shape + bend @ self._corrective
        vertices = self._template + moved.reshape(size, *self._template.shape)
        offsets = torch.cat([heads[:, :1], heads[:, 1:] - heads[:, list(self._tree.parents[1:])]], 1)
        turned, positions = self._tree.pose(rotations, offsets)
        vertices = skin(vertices, self._weights, turned, heads, positions)
        shift = parameters["transl"][:, None]
        vertices, positions = vertices + shift, positions + shift
        return BodyOutput(vertices, positions, self._keypoints(vertices, positions))

    def _keypoints(self, vertices: Tensor, joints: Tensor) -> Tensor:
        body = [JOINT_NAMES.index(name) for name in self.keypoint_names if name not in FACE_VERTICES]
        face = [FACE_VERTICES[name] for name in self.keypoint_names if name in FACE_VERTICES]
        return torch.cat([vertices[:, face], joints[:, body]], 1)


def _all_rotations(parameters: Mapping[str, Tensor]) -> Tensor:
    """(B, 55, 3, 3) in the order of JOINT_NAMES."""
    single = {"global_orient", "jaw_pose", "leye_pose", "reye_pose"}
    order = ("global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose", "left_hand_pose")
    parts = [
        parameters[name][:, None] if name in single else parameters[name]
        for name in (*order, "right_hand_pose")
    ]
    return torch.cat(parts, 1)


def read_smplx(
    path: Path, dtype: torch.dtype = torch.float32, betas: int = 10, expressions: int = 10
) -> SmplxBody:
    """The model of a licensed `SMPLX_*.npz`.  Nothing pickled in it is ever loaded.

    Raises UnavailableError without the file; UsageError for missing keys, wrong shapes, pickled arrays,
    or more coefficients than the file has.
    """
    arrays = read_npz(path, SHAPES, HINT)
    columns = arrays["shapedirs"].shape[-1]
    if columns not in _EXPRESSION_AT:
        raise UsageError(f"{path}: 'shapedirs' has {columns} directions, not 400 or 20: not a SMPL-X file")
    most = (_EXPRESSION_AT[columns], columns - _EXPRESSION_AT[columns])
    if not (0 < betas <= most[0] and 0 < expressions <= most[1]):
        raise UsageError(f"{path} has {most[0]} shape and {most[1]} expression coefficients: ask for no more")
    check_indices(path, "f", arrays["f"], VERTICES)
    parents = [int(p) for p in arrays["kintree_table"][0]]
    try:
        # The root's parent is stored as −1 in an unsigned type.
        tree = KinematicTree([-1, *parents[1:]])
    except ValueError as error:
        raise UsageError(f"{path}: 'kintree_table' is no tree ({error}): the file is damaged") from error
    return SmplxBody(arrays, betas, expressions, tree, dtype)
