"""Who is in an image: where heads are, who must be found, what a body is worth as regression targets.

Frames: camera (OpenCV axes, metres), body (the body model's own), and the *ray frame* of a head: the
camera turned about its centre, first about its vertical axis and then about the new horizontal one,
until it looks at the head.  A picture of a person changes with the orientation relative to the viewing
ray, not to the optical axis; so that is what is regressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import HumanSample, Person
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import check_intrinsics, project
from dune_bench.models.body_models import ROTATION_TOLERANCE

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
HEAD = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
EARS = ("left_ear", "right_ear")


@dataclass(frozen=True)
class People:
    """The people of one image in front of the camera, nearest head first.

    people: n of them.  heads: (n, 3) camera frame, metres, the middle between the ears.  pixels: (n, 2)
    its projection in pixels of the image.  keypoints: (n, J, 2) all key points projected; one behind
    the camera takes the place of the person's farthest one (only the box matters: such a person does not
    count).  counts: (n,) must be found; the others are neither hits nor misses.
    """

    people: tuple[Person, ...]
    heads: Floats
    pixels: Floats
    keypoints: Floats
    counts: Bools


def people_of(sample: HumanSample, min_visible: float) -> People:
    """The rule of who counts: the head's middle is in the image, at least one of its five key points is
    visible, no key point is behind the camera, and at least `min_visible` of the body shows.

    People whose head is behind the camera are left out.  Raises TaskError naming the sample for key
    points without ears, or values that are not finite.
    """
    check_sample(sample)
    parts = [p for p in sample.people if head_points(p.keypoints_3d, sample.keypoint_names)[2] > 0]
    points = (
        np.stack([p.keypoints_3d for p in parts]) if parts else np.zeros((0, len(sample.keypoint_names), 3))
    )
    heads = head_points(points, sample.keypoint_names)
    order = np.argsort(heads[:, 2], kind="stable")
    parts, points, heads = [parts[i] for i in order], points[order], heads[order]
    pixels, _ = project(sample.K, heads)
    keypoints, depth = project(sample.K, points)
    height, width = sample.image.size
    inside = ((pixels >= 0) & (pixels < (width, height))).all(-1)
    face = [sample.keypoint_names.index(name) for name in HEAD]
    shown = np.array([p.visible[face].any() and p.visible_fraction >= min_visible for p in parts], bool)
    counts = inside & shown & (depth > 0).all(-1)
    return People(tuple(parts), heads, pixels, _without_gaps(keypoints, depth), counts)


def check_sample(sample: HumanSample) -> None:
    """Raises TaskError naming the sample unless camera and key points are usable numbers."""
    missing = [name for name in HEAD if name not in sample.keypoint_names]
    if missing:
        raise TaskError(
            f"sample {sample.id} has no key point {missing[0]!r}: people are found by their heads"
        )
    try:
        check_intrinsics(sample.K)
    except TaskError as error:
        raise TaskError(f"sample {sample.id}: {error}") from error
    shape = (len(sample.keypoint_names), 3)
    for person in sample.people:
        if person.keypoints_3d.shape != shape or not np.isfinite(person.keypoints_3d).all():
            raise TaskError(f"sample {sample.id}: key points of {person.id} are not {shape} finite numbers")
        if not is_pose(person.T_cam_body):
            raise TaskError(f"sample {sample.id}: the pose of {person.id} is not a rigid motion (4, 4)")


def is_pose(T: Floats) -> bool:
    """T is (4, 4), finite, with a rotation and the last row (0, 0, 0, 1)."""
    if T.shape != (4, 4) or not np.isfinite(T).all() or not (T[3] == (0.0, 0.0, 0.0, 1.0)).all():
        return False
    R = T[:3, :3]
    return bool(np.abs(R.T @ R - np.eye(3)).max() <= ROTATION_TOLERANCE and np.linalg.det(R) > 0)


def head_points(keypoints: Floats, names: Sequence[str]) -> Floats:
    """(..., J, 3) key points -> (..., 3), the middle between the ears: inside the head, whichever way
    it faces."""
    left, right = (keypoints[..., names.index(ear), :] for ear in EARS)
    return np.asarray((left + right) / 2)


def ray_frames(rays: Floats) -> Floats:
    """R_cam_ray (..., 3, 3) of rays (..., 3) with z = 1: columns right, down, forward of the ray frame
    in camera axes."""
    forward = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    right = np.stack([forward[..., 2], np.zeros_like(forward[..., 0]), -forward[..., 0]], -1)
    right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward], -1)


def _without_gaps(keypoints: Floats, depth: Floats) -> Floats:
    stand_in = keypoints[np.arange(len(keypoints)), depth.argmax(-1)][:, None]
    return np.where((depth > 0)[..., None], keypoints, stand_in)
