"""Bodies as regression targets and back: parameters, orientation and distance <-> one row of numbers.

A row is [orientation 6, the model's rotations 6 each, its other parameters, log z/f]:
* orientation: the body's frame in the head's ray frame (see `hmr_people`), as its up axis and a level
  one.  Up comes first: it hardly varies, so that a weak prediction of the heading stays a rotation about it.
* rotations: 6-D form (PROTOCOLS §12), matrices' first two columns.
* log z/f: depth of the head in metres over the focal length in pixels at network size.  The size of a
  head on the token grid tells z/f, not z.
Position is not regressed: the head's ray and depth place the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.samples import Person
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Size, rays, scale_intrinsics
from dune_bench.models.body_models import BodyModel
from dune_bench.models.rotations import rotation_from_6d, rotation_to_6d
from dune_bench.probes.hmr_people import ray_frames

Floats = NDArray[np.float64]
UP_FIRST = {"smplx": (1, 2, 0)}
"""Body model -> columns of its orientation in the order in which the 6-D form takes them: up, forward."""
AXES = (2, 0, 1)
"""The same of every other model, whose z runs up: up, left."""
GROUPS = ("orientation", "pose", "shape", "distance")


@dataclass(frozen=True)
class View:
    """The camera of an image at network size.  K: in network pixels; size: of the image."""

    K: Floats
    size: Size
    network: Size

    @classmethod
    def of(cls, K: Floats, size: Size, network: Size) -> View:
        return cls(scale_intrinsics(K, size, network), size, network)

    @property
    def log_focal(self) -> float:
        """log of the geometric mean of both focal lengths, network pixels."""
        return float(np.log(self.K[0, 0] * self.K[1, 1]) / 2)

    def rays(self, pixels: Floats) -> Floats:
        """Rays (n, 3) with z = 1 through network pixels (n, 2)."""
        return rays(self.K, pixels)

    def hints(self, pixels: Floats) -> Floats:
        """(n, 3) what the camera alone tells of a head at network pixels (n, 2): x/z, y/z, log f."""
        return np.concatenate([self.rays(pixels)[:, :2], np.full((len(pixels), 1), self.log_focal)], 1)


class BodyRows:
    """Bodies of one model as rows."""

    def __init__(self, model: BodyModel) -> None:
        self.model = model
        self.axes = UP_FIRST.get(model.name, AXES)
        specs = model.parameter_specs
        self.rotations = [name for name, spec in specs.items() if spec.rotation]
        self.others = [name for name, spec in specs.items() if not spec.rotation]
        pose = sum(6 * int(np.prod(specs[name].shape)) for name in self.rotations)
        shape = sum(int(np.prod(specs[name].shape)) for name in self.others)
        ends = np.cumsum([0, 6, pose, shape, 1])
        parts = zip(GROUPS, ends[:-1], ends[1:], strict=True)
        self.groups = {name: slice(int(start), int(stop)) for name, start, stop in parts}
        self.width = int(ends[-1])

    def encode(self, people: Sequence[Person], heads: Floats, view: View, where: str) -> Tensor:
        """(n, width) float64.  heads: (n, 3) camera frame, metres, in front of the camera.

        Raises TaskError naming `where` if body parameters are not the model's.
        """
        if not people:
            return torch.zeros(0, self.width, dtype=torch.float64)
        values = checked_bodies(self.model, people, where)
        R_cam_ray = ray_frames(heads / heads[:, 2:])
        R_ray_body = R_cam_ray.transpose(0, 2, 1) @ np.stack([p.T_cam_body[:3, :3] for p in people])
        orientation = rotation_to_6d(torch.from_numpy(R_ray_body[:, :, self.axes]))
        pose = [rotation_to_6d(values[name]).flatten(1) for name in self.rotations]
        shape = [values[name].flatten(1) for name in self.others]
        distance = torch.from_numpy(np.log(heads[:, 2:])) - view.log_focal
        return torch.cat([orientation, *pose, *shape, distance], 1)

    def decode(self, rows: Tensor, pixels: Floats, view: View, depth_range: tuple[float, float]) -> PosedRows:
        """Bodies of rows (n, width) whose heads are at network pixels (n, 2).

        Depth is clamped to the range, metres.  Raises TaskError for rows that are no bodies (not finite,
        or a 6-D form without extent).
        """
        if not bool(rows.isfinite().all()):
            raise TaskError("a predicted body is not finite")
        parts = {name: rows[:, part] for name, part in self.groups.items()}
        z = np.exp(np.clip(parts["distance"][:, 0].numpy() + view.log_focal, *np.log(depth_range)))
        through = view.rays(pixels)
        six = rotation_from_6d(parts["orientation"]).numpy()[:, :, np.argsort(self.axes)]
        if not np.isfinite(six).all():
            raise TaskError("a predicted orientation is no rotation")
        R_cam_body = ray_frames(through) @ six
        return PosedRows(self._parameters(parts), R_cam_body, through * z[:, None])

    def _parameters(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        specs, parameters = self.model.parameter_specs, {}
        for names, group in ((self.rotations, "pose"), (self.others, "shape")):
            start = 0
            for name in names:
                shape = (*specs[name].shape, *((6,) if group == "pose" else ()))
                stop = start + int(np.prod(shape))
                value = parts[group][:, start:stop].reshape(-1, *shape)
                parameters[name] = rotation_from_6d(value) if group == "pose" else value
                start = stop
        return parameters


@dataclass(frozen=True)
class PosedRows:
    """Decoded bodies.  parameters: of the model, batch n.  R_cam_body: (n, 3, 3).  heads: (n, 3) where
    their heads are, camera frame, metres."""

    parameters: dict[str, Tensor]
    R_cam_body: Floats
    heads: Floats


def checked_bodies(model: BodyModel, people: Sequence[Person], where: str) -> dict[str, Tensor]:
    """The people's parameters as the model wants them, float64, rotations as matrices.  Raises TaskError
    naming `where`, the person and the parameter."""
    rows = []
    for person in people:
        # A copy: arrays of a dataset may be read-only, which torch does not support.
        values = {name: torch.from_numpy(np.array(v, np.float64))[None] for name, v in person.body.items()}
        try:
            rows.append(model.checked(values))
        except TaskError as error:
            raise TaskError(f"{where}, {person.id}: {error}") from error
    return {name: torch.cat([row[name] for row in rows]) for name in model.parameter_specs}
