"""A small picture of MiniRooms for the documentation.

`python -m tools.minirooms.contact_sheet OUT.png [--root DIR] [--split test] [--rooms 4]`

A row per room: the reference, its labels, its depth, its people with visible key points, two queries.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import DepthSample, HumanSample, RelocScene, SegSample
from tools.minirooms.classes import PALETTE

Picture = NDArray[np.uint8]
LIMBS = (
    (5, 7),
    (7, 9),
    (6, 8),
    (8, 10),
    (5, 6),
    (5, 11),
    (6, 12),
    (11, 12),
    (11, 13),
    (13, 15),
    (12, 14),
    (14, 16),
)
_TURBO = np.array(
    [[48, 18, 59], [70, 130, 248], [27, 229, 181], [163, 253, 60], [251, 185, 56], [222, 61, 8], [122, 4, 3]]
)


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


def people_picture(sample: HumanSample) -> Picture:
    """Key points (filled if visible) and limbs between visible ones."""
    image = Image.fromarray(sample.image.read())
    draw = ImageDraw.Draw(image)
    for person in sample.people:
        at = person.keypoints_2d
        for a, b in LIMBS:
            if person.visible[a] and person.visible[b]:
                draw.line([tuple(at[a]), tuple(at[b])], fill=(255, 240, 60), width=4)
        for point, visible in zip(at, person.visible, strict=True):
            if visible:
                box = [point[0] - 5, point[1] - 5, point[0] + 5, point[1] + 5]
                draw.ellipse(box, fill=(255, 60, 40))
    return np.asarray(image)


def sheet(data: MiniRooms, split: str, count: int, cell: int) -> Image.Image:
    """The picture, with cells of `cell` pixels a side."""
    scenes = data.samples(RelocScene, split)
    views = {
        kind: {s: i for i, s in enumerate(data.samples(kind, split).ids)}
        for kind in (SegSample, DepthSample, HumanSample)
    }
    count = min(count, len(scenes))
    chosen = [(i * len(scenes)) // count for i in range(count)]
    out = Image.new("RGB", (6 * cell, len(chosen) * cell))
    for row, number in enumerate(chosen):
        scene = scenes[number]
        assert isinstance(scene, RelocScene)
        everyone = [scene.reference, *scene.queries]
        crowded = max(everyone, key=lambda v: _shown(data, split, views[HumanSample][v.id]))
        seg = data.samples(SegSample, split)[views[SegSample][scene.reference.id]]
        depth = data.samples(DepthSample, split)[views[DepthSample][scene.reference.id]]
        people = data.samples(HumanSample, split)[views[HumanSample][crowded.id]]
        assert isinstance(seg, SegSample)
        assert isinstance(depth, DepthSample)
        assert isinstance(people, HumanSample)
        cells = [seg.image.read(), label_picture(seg), depth_picture(depth), people_picture(people)]
        cells += [scene.queries[0].image.read(), scene.queries[-1].image.read()]
        for column, picture in enumerate(cells):
            small = Image.fromarray(picture).resize((cell, cell), Image.Resampling.LANCZOS)
            out.paste(small, (column * cell, row * cell))
    return out


def _shown(data: MiniRooms, split: str, number: int) -> int:
    sample = data.samples(HumanSample, split)[number]
    assert isinstance(sample, HumanSample)
    return sum(int(person.visible.sum()) for person in sample.people)


def main() -> None:
    """Writes the sheet, as large as 400 kB allow."""
    parser = argparse.ArgumentParser(description="A contact sheet of MiniRooms.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="minirooms@0")
    parser.add_argument("--root", type=Path, help="folder with the card; default: the shipped data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--rooms", type=int, default=4)
    parser.add_argument("--limit-kb", type=int, default=400)
    options = parser.parse_args()
    data = MiniRooms(options.name, options.root)
    for cell in range(288, 63, -16):
        buffer = io.BytesIO()
        picture = sheet(data, options.split, options.rooms, cell)
        picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(buffer, "PNG", optimize=True)
        if len(buffer.getvalue()) <= options.limit_kb * 1000:
            break
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(buffer.getvalue())
    print(f"{options.out}: {picture.width} x {picture.height}, {len(buffer.getvalue())} bytes")


if __name__ == "__main__":
    main()
