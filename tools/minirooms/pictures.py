"""Pictures of one view's truth: labels, depth, people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dune_bench.data.samples import DepthSample, HumanSample, Person, SegSample
from tools.minirooms.classes import PALETTE

Picture = NDArray[np.uint8]
_LIMBS = (
    *((5, 7), (7, 9), (6, 8), (8, 10), (5, 6), (5, 11), (6, 12)),
    *((11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
_TURBO = np.array(
    [[48, 18, 59], [70, 130, 248], [27, 229, 181], [163, 253, 60], [251, 185, 56], [222, 61, 8], [122, 4, 3]]
)
_INK, _JOINT = (255, 240, 60), (255, 60, 40)


def label_picture(sample: SegSample) -> Picture:
    """Labels over the darkened image."""
    colours = np.zeros((256, 3))
    colours[: len(PALETTE)] = PALETTE
    grey = sample.image.read().mean(axis=2, keepdims=True)
    return np.uint8(np.clip(0.75 * colours[sample.labels] + 0.25 * grey, 0, 255))


def depth_picture(sample: DepthSample) -> Picture:
    """Near is red, far is blue, by inverse depth."""
    inverse = 1.0 / np.asarray(sample.depth, dtype=np.float64)
    low, high = np.quantile(inverse, [0.01, 0.99])
    t = np.clip((inverse - low) / (high - low), 0, 1) * (len(_TURBO) - 1)
    k = np.minimum(t.astype(int), len(_TURBO) - 2)
    return np.uint8(_TURBO[k] + (t - k)[..., None] * (_TURBO[k + 1] - _TURBO[k]))


def draw_person(image: Image.Image, person: Person, offset: tuple[float, float], scale: float) -> None:
    """Visible key points and the limbs between them.  A pixel p of the sample is drawn at
    (p − offset) · scale."""
    draw = ImageDraw.Draw(image)
    at = (person.keypoints_2d - np.array(offset)) * scale
    for a, b in _LIMBS:
        if person.visible[a] and person.visible[b]:
            draw.line([tuple(at[a]), tuple(at[b])], fill=_INK, width=3)
    for x, y in at[person.visible]:
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], fill=_JOINT)


def people_picture(sample: HumanSample) -> Picture:
    """The image with everyone's visible key points."""
    image = Image.fromarray(sample.image.read())
    for person in sample.people:
        draw_person(image, person, (0.0, 0.0), 1.0)
    return np.asarray(image)


def portrait(sample: HumanSample, person: Person, side: int, draw: bool) -> Image.Image:
    """The square around a person's visible key points, `side` pixels wide, cut at the image's border;
    with key points if `draw`."""
    points = person.keypoints_2d[person.visible]
    low, high = points.min(axis=0), points.max(axis=0)
    height, width = sample.image.size
    half = min(max(0.62 * float((high - low).max()), 40.0), height / 2, width / 2)
    x, y = np.clip((low + high) / 2, half, [width - half, height - half])
    box = (x - half, y - half, x + half, y + half)
    picture = Image.fromarray(sample.image.read())
    cut = picture.resize((side, side), Image.Resampling.LANCZOS, box=box)
    if draw:
        draw_person(cut, person, (x - half, y - half), side / (2 * half))
    return cut
