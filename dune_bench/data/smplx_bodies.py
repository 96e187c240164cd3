"""Annotated SMPL-X people -> `Person`: key points from the body model, pose apart from the place.

`Person.body` has the body upright at its own origin (no global rotation, no translation), and `T_cam_body`
has both, as in every dataset: what a picture tells of a pose does not depend on where the camera is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.samples import Person
from dune_bench.data.smplx_annotations import AnnotatedPerson, person_name
from dune_bench.geometry.cameras import project
from dune_bench.models.body_models import BodyModel, BodyOutput, load_body_model
from dune_bench.models.rotations import rotvec_to_matrix

Floats = NDArray[np.float64]
PLACE = ("global_orient", "transl")


@lru_cache(maxsize=2)
def body_model(path: Path) -> BodyModel:
    """The model of a file, read once a process.  Raises what `load_body_model` raises."""
    return load_body_model("smplx", path)


def people_of(
    model: BodyModel, annotated: Sequence[AnnotatedPerson], K: Floats, size: tuple[int, int], where: str
) -> tuple[Person, ...]:
    """The people of one image.  size: (height, width).  where: what ids begin with.

    A key point is visible if it lies in the image, in front of the camera, and is not annotated as hidden.
    Without `visible_fraction` the share of the mesh's vertices in the image stands for it: what is cut
    counts, what is hidden does not.
    """
    if not annotated:
        return ()
    bodies = [_body(model, person) for person in annotated]
    output, heights = _posed(model, bodies)
    T = _poses(annotated, output.joints[:, model.root])
    moved = output.moved(torch.from_numpy(T).to(output.joints.dtype))
    keypoints, vertices = moved.keypoints.double().numpy(), moved.vertices.double().numpy()
    people = []
    for i, person in enumerate(annotated):
        pixels, inside = _seen(K, keypoints[i], size)
        visible = inside if person.visible is None else inside & np.array(person.visible)
        fraction = person.visible_fraction
        if fraction is None:
            fraction = float(_seen(K, vertices[i], size)[1].mean())
        name = f"{where}/{person_name(person, i)}"
        people.append(Person(name, bodies[i], T[i], pixels, keypoints[i], visible, fraction, heights[i]))
    return tuple(people)


def _body(model: BodyModel, person: AnnotatedPerson) -> dict[str, Floats]:
    return {
        name: np.zeros(3) if name in PLACE else np.asarray(getattr(person, name))
        for name in model.parameter_specs
    }


def _posed(model: BodyModel, bodies: Sequence[dict[str, Floats]]) -> tuple[BodyOutput, list[float]]:
    """The bodies at their origin, and their standing heights in metres: those of the T-pose, along y."""
    count = len(bodies)
    parameters = model.neutral(2 * count)
    for name, value in parameters.items():
        stacked = torch.from_numpy(np.stack([body[name] for body in bodies])).to(value.dtype)
        value[:count] = stacked
        if name == "betas":
            value[count:] = stacked
    with torch.no_grad():
        output = model(parameters)
    upright: Tensor = output.vertices[count:, :, 1]
    heights = (upright.amax(1) - upright.amin(1)).double().tolist()
    return BodyOutput(output.vertices[:count], output.joints[:count], output.keypoints[:count]), heights


def _poses(annotated: Sequence[AnnotatedPerson], pelvis: Tensor) -> Floats:
    """T_cam_body (n, 4, 4).  x -> R (x − pelvis) + pelvis + transl: SMPL-X turns about the pelvis, which is
    not its origin."""
    R = rotvec_to_matrix(torch.from_numpy(np.stack([p.global_orient for p in annotated]))).numpy()
    centre = pelvis.double().numpy()
    T = np.tile(np.eye(4), (len(annotated), 1, 1))
    T[:, :3, :3] = R
    moved = centre + np.stack([p.transl for p in annotated])
    T[:, :3, 3] = moved - np.einsum("nij,nj->ni", R, centre)
    return T


def _seen(K: Floats, points: Floats, size: tuple[int, int]) -> tuple[Floats, NDArray[np.bool_]]:
    """Pixels (n, 2) of camera points (n, 3), NaN behind the camera, and which lie in the image."""
    pixels, _ = project(K, points)
    # A comparison with NaN is false: behind the camera is outside.
    return pixels, np.asarray(((pixels >= 0) & (pixels <= (size[1], size[0]))).all(-1))
