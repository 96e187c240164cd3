"""Sample types: what a probe sees of a dataset.

All are frozen dataclasses with a stable `id`, unique in the dataset, and a `group` (room, scene),
the cluster of the statistics.  Images are handles, so that labels can be read without decoding
pixels.  Conventions (units, axes, pixel centres) are the README's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageRef:
    """A handle of one image: identity without pixels.

    id: stable name, unique in the dataset.  digest: sha256 (hex) of the encoded bytes, the content
    part of every feature key.  size: (height, width) in pixels.
    """

    id: str
    digest: str
    size: tuple[int, int]
    read: Callable[[], NDArray[np.uint8]] = field(repr=False, compare=False)
    """Decodes: uint8 (H, W, 3), RGB.  Raises TaskError naming the image if it cannot."""


@dataclass(frozen=True)
class SegSample:
    """labels: uint8 (H, W); 255 is ignored."""

    id: str
    group: str
    image: ImageRef
    labels: NDArray[np.uint8]
    tags: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Named pixel masks (H, W) for breakdowns, such as `seen`: pixels of furniture models that
    also occur in the training split."""


@dataclass(frozen=True)
class DepthSample:
    """depth: float32 (h, w), metres along z; <= 0 or non-finite is invalid.  It may be coarser than
    the image; both cover the same field of view.  K: float64 (3, 3) in pixels of `image`."""

    id: str
    group: str
    image: ImageRef
    depth: NDArray[np.float32]
    K: NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """One posed view.  T_cam_world: float64 (4, 4), maps world points to the camera.
    exposure: (gain, red gain, blue gain) that the renderer applied, for breakdowns by light."""

    id: str
    group: str
    image: ImageRef
    depth: NDArray[np.float32]
    K: NDArray[np.float64]
    T_cam_world: NDArray[np.float64]
    exposure: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class PairSample:
    """Two views of one scene.  covisible: fraction of view 1's valid pixels seen in view 2."""

    id: str
    group: str
    view1: View
    view2: View
    covisible: float


@dataclass(frozen=True)
class Person:
    """One person in one view.

    body: parameters of the body model by name (see `BodyModel`), camera-independent.
    T_cam_body: (4, 4) body frame -> camera.  keypoints_2d: (J, 2) pixels (x, y) of the image;
    keypoints_3d: (J, 3) metres in the camera frame; keypoint_names: J names (COCO order).
    visible: (J,) bool, the point is in the image and not hidden.  visible_fraction: share of the
    body's silhouette pixels that are neither cut nor hidden.  height_m: standing height.
    """

    id: str
    body: dict[str, NDArray[np.float64]]
    T_cam_body: NDArray[np.float64]
    keypoints_2d: NDArray[np.float64]
    keypoints_3d: NDArray[np.float64]
    visible: NDArray[np.bool_]
    visible_fraction: float
    height_m: float


@dataclass(frozen=True)
class HumanSample:
    """An image with every person in it (also those mostly hidden)."""

    id: str
    group: str
    image: ImageRef
    K: NDArray[np.float64]
    people: tuple[Person, ...]
    keypoint_names: tuple[str, ...]


@dataclass(frozen=True)
class RelocScene:
    """A scene of map-free relocalization: one posed reference view and the queries."""

    id: str
    group: str
    reference: View
    queries: tuple[View, ...]


Sample = SegSample | DepthSample | PairSample | HumanSample | RelocScene


def images_of(sample: Sample) -> tuple[ImageRef, ...]:
    """The images a sample needs features of, in a fixed order."""
    match sample:
        case PairSample():
            return (sample.view1.image, sample.view2.image)
        case RelocScene():
            return (sample.reference.image, *(q.image for q in sample.queries))
        case _:
            return (sample.image,)
