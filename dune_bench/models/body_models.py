"""One interface for parametric human bodies: named parameters -> vertices, joints, COCO key points.

A model declares its parameters and implements `_pose`; the sealed `forward` checks everything that
comes in, so that a wrong shape, a NaN or a matrix that is no rotation is one clear line and not a wrong
number.  `load_body_model("anny")` needs no file; `load_body_model("smplx")` reads the user's licensed
`.npz`, from a path or from where `dune-bench prepare smplx` recorded it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from dune_bench.errors import TaskError, UsageError
from dune_bench.models.rotations import rotation_defect, rotvec_to_matrix

COCO_KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
"""The 17 COCO key points, in COCO order: `keypoints` of every model."""

ROTATION_TOLERANCE = 1e-3
"""Largest |RᵀR − I| of a matrix that passes as a rotation: float32 sums, not modelling errors."""


@dataclass(frozen=True)
class Parameter:
    """One named input of a model.

    shape: without the batch axis.  rotation: each element of `shape` is a rotation, given as a rotation
    vector (B, *shape, 3) in radians or as a matrix (B, *shape, 3, 3); else the tensor is (B, *shape).
    """

    shape: tuple[int, ...]
    rotation: bool = False
    neutral: float = 0.0
    """Value of the neutral body; rotations are the identity."""

    def wanted(self) -> str:
        """The shapes it accepts, in words."""
        dims = ", ".join(("B", *map(str, self.shape)))
        if self.rotation:
            return f"({dims}, 3) rotation vectors or ({dims}, 3, 3) matrices"
        return f"({dims},)" if not self.shape else f"({dims})"


@dataclass(frozen=True)
class BodyOutput:
    """A batch of posed bodies, metres, in the model's body frame (or wherever `moved` took them).

    vertices: (B, V, 3).  joints: (B, J, 3), in the order of `joint_names`.  keypoints: (B, 17, 3) COCO.
    """

    vertices: Tensor
    joints: Tensor
    keypoints: Tensor

    def moved(self, T: Tensor) -> Self:
        """The bodies after a rigid motion x -> R x + t.  T: (4, 4) or (B, 4, 4), e.g. T_cam_body."""
        R, t = T[..., :3, :3], T[..., None, :3, 3]
        return type(self)(*(x @ R.mT + t for x in (self.vertices, self.joints, self.keypoints)))


class BodyModel(nn.Module, ABC):
    """A parametric body.  Differentiable in every parameter; moves with `.to(device, dtype)`.

    Subclasses set the attributes below in `__init__` and implement `_pose`.
    """

    name: ClassVar[str]
    parameter_specs: Mapping[str, Parameter]
    joint_names: tuple[str, ...]
    keypoint_names: tuple[str, ...] = COCO_KEYPOINTS
    root_joint: str
    """The pelvis: root-aligned errors put it at the origin."""
    head_joint: str
    """The joint that detection of people localises."""
    faces: Tensor
    """int64 (F, 3), counter-clockwise seen from outside."""

    @abstractmethod
    def _pose(self, parameters: Mapping[str, Tensor]) -> BodyOutput:
        """Bodies of checked parameters: rotations come as matrices (B, *shape, 3, 3)."""

    @property
    @abstractmethod
    def vertex_count(self) -> int:
        """V."""

    @property
    def root(self) -> int:
        """Index of the root joint."""
        return self.joint_names.index(self.root_joint)

    @property
    def head(self) -> int:
        """Index of the head joint."""
        return self.joint_names.index(self.head_joint)

    def forward(self, parameters: Mapping[str, Tensor]) -> BodyOutput:
        """Bodies of the named parameters, each as its `Parameter` says, with one batch size B.

        Raises TaskError naming the parameter if one is missing, unknown, of another shape or batch
        size, not finite, or (for matrices) not a rotation.
        """
        return self._pose(self.checked(parameters))

    def neutral(self, batch: int = 1) -> dict[str, Tensor]:
        """The neutral body's parameters (rotation vectors), to be changed by the caller."""
        reference = next(self.buffers())
        return {
            name: torch.full(
                (batch, *spec.shape, *((3,) if spec.rotation else ())),
                0.0 if spec.rotation else spec.neutral,
                dtype=reference.dtype,
                device=reference.device,
            )
            for name, spec in self.parameter_specs.items()
        }

    def checked(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters with rotations as matrices (B, *shape, 3, 3).  Raises as `forward` does."""
        specs = self.parameter_specs
        missing, unknown = sorted(specs.keys() - parameters), sorted(parameters.keys() - specs)
        if missing or unknown:
            faults = (("no", missing), ("unknown", unknown))
            wrong = " and ".join(f"{what} {', '.join(names)}" for what, names in faults if names)
            raise TaskError(f"{self.name} body: {wrong} among the parameters; it takes {', '.join(specs)}")
        values = {name: self._value(name, parameters[name]) for name in specs}
        sizes = {name: len(value) for name, value in values.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise TaskError(f"{self.name} body: parameters of different batch sizes: {listed}")
        return values

    def _value(self, name: str, value: Tensor) -> Tensor:
        spec, where = self.parameter_specs[name], f"{self.name} body: {name!r}"
        shape = tuple(value.shape[1:])
        vectors = spec.rotation and shape == (*spec.shape, 3)
        matrices = spec.rotation and shape == (*spec.shape, 3, 3)
        if value.ndim == 0 or not (vectors or matrices or (not spec.rotation and shape == spec.shape)):
            raise TaskError(f"{where} has shape {tuple(value.shape)}, not {spec.wanted()}")
        if not value.is_floating_point():
            raise TaskError(f"{where} is {value.dtype}, not a floating-point tensor")
        if not value.isfinite().all():
            raise TaskError(f"{where} holds NaN or infinite values")
        if vectors:
            return rotvec_to_matrix(value)
        if matrices:
            self._refuse_non_rotations(where, value)
        return value

    def _refuse_non_rotations(self, where: str, matrices: Tensor) -> None:
        defect = rotation_defect(matrices.detach())
        if (worst := float(defect.max()) if defect.numel() else 0.0) <= ROTATION_TOLERANCE:
            return
        index = torch.unravel_index(defect.argmax(), defect.shape)
        place = ", ".join(str(int(i)) for i in index)
        reason = "it mirrors" if worst == torch.inf else f"|RᵀR − I| = {worst:.2g}"
        raise TaskError(
            f"{where}[{place}] is not a rotation ({reason}): give orthonormal matrices with determinant +1, "
            "or rotation vectors"
        )


Builder = Callable[[Path | None, torch.dtype], BodyModel]
"""Makes a model from the user's file (None: the built-in one) in a dtype."""

_BUILDERS: dict[str, str | Builder] = {
    "anny": "dune_bench.models.body_anny:build",
    "smplx": "dune_bench.models.smplx_files:build",
}


def register_body_model(name: str, build: Builder) -> None:
    """Makes a further model loadable by name.  Raises UsageError if the name is taken."""
    if name in _BUILDERS:
        raise UsageError(f"a body model named {name!r} exists already: choose another name")
    _BUILDERS[name] = build


def load_body_model(
    name: str, path: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> BodyModel:
    """The body model of that name, on the CPU.

    path: the model file where the name needs one; None: the built-in or the recorded one.
    Raises UsageError for an unknown name or a damaged file, UnavailableError for one that is not there.
    """
    if name not in _BUILDERS:
        raise UsageError(f"unknown body model {name!r}: use one of {', '.join(sorted(_BUILDERS))}")
    build = _BUILDERS[name]
    if isinstance(build, str):
        module, attribute = build.split(":")
        build = getattr(import_module(module), attribute)
    model: BodyModel = build(None if path is None else Path(path), dtype)
    return model
