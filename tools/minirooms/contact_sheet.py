"""Pictures of MiniRooms for the documentation.

`python -m tools.minirooms.contact_sheet rooms|people|truth|views OUT.jpg [--name NAME] [--root DIR]`

rooms: the reference views of rooms.  people: everyone where seen best, without and with the visible key
points.  truth: a row per room: the reference, its labels, its depth, its people, two queries.
views: single views with the visible key points of their people.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from PIL import Image, ImageDraw

from dune_bench.cli.prepare import resolve_version
from dune_bench.data.base import Lazy
from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import (
    DepthSample,
    HumanSample,
    ImageRef,
    Person,
    RelocScene,
    Sample,
    SegSample,
)
from dune_bench.registry.lookup import load_registry
from tools.minirooms.classes import PALETTE
from tools.minirooms.pictures import Picture, depth_picture, label_picture, people_picture, portrait

S = TypeVar("S", bound=Sample)
_GAP = 4
_LEGEND = 26


def spaced(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices, evenly spaced over `count`."""
    wanted = min(count, wanted)
    return [(i * count) // wanted for i in range(wanted)]


def grid(cells: list[list[Image.Image]]) -> Image.Image:
    """Rows of equal cells with white gaps."""
    width, height = cells[0][0].size
    columns = max(len(row) for row in cells)
    size = (columns * (width + _GAP) - _GAP, len(cells) * (height + _GAP) - _GAP)
    out = Image.new("RGB", size, (255, 255, 255))
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            out.paste(cell, (j * (width + _GAP), i * (height + _GAP)))
    return out


def rooms_sheet(data: MiniRooms, split: str, count: int) -> Image.Image:
    """Reference views, six in a row."""
    scenes = _samples(data, RelocScene, split)
    small = [_cell(scenes[i].reference.image.read(), 220) for i in spaced(len(scenes), count)]
    return grid([small[i : i + 6] for i in range(0, len(small), 6)])


def people_sheet(data: MiniRooms, split: str, count: int) -> Image.Image:
    """Everyone where most of the body shows; below each row the same with key points."""
    best: dict[str, tuple[HumanSample, Person]] = {}
    for sample in _samples(data, HumanSample, split):
        for person in sample.people:
            known = best.get(person.id)
            if person.visible.sum() >= 8 and (known is None or _shown(person) > _shown(known[1])):
                best[person.id] = (sample, person)
    everyone = list(best.values())
    chosen = [everyone[i] for i in spaced(len(everyone), count)]
    rows = []
    for i in range(0, len(chosen), 8):
        for draw in (False, True):
            rows.append([portrait(sample, person, 168, draw) for sample, person in chosen[i : i + 8]])
    return grid(rows)


def views_sheet(data: MiniRooms, split: str, count: int) -> Image.Image:
    """Views with key points, six in a row."""
    samples = _samples(data, HumanSample, split)
    small = [_cell(people_picture(samples[i]), 220) for i in spaced(len(samples), count)]
    return grid([small[i : i + 6] for i in range(0, len(small), 6)])


def _shown(person: Person) -> float:
    return person.visible_fraction + 0.02 * int(person.visible.sum())


def truth_sheet(data: MiniRooms, split: str, count: int) -> Image.Image:
    """A row per room, and the colours of the classes."""
    scenes = _samples(data, RelocScene, split)
    labels, depths = _by_id(data, SegSample, split), _by_id(data, DepthSample, split)
    humans = _by_id(data, HumanSample, split)
    rows = []
    for number in spaced(len(scenes), count):
        scene = scenes[number]
        here = scene.reference.id
        views = [humans(view.id) for view in (scene.reference, *scene.queries)]
        crowded = max(views, key=lambda sample: sum(int(p.visible.sum()) for p in sample.people))
        pictures = [_read(scene.reference.image), label_picture(labels(here)), depth_picture(depths(here))]
        pictures += [people_picture(crowded), *(_read(scene.queries[k].image) for k in (0, -1))]
        rows.append([_cell(picture, 220) for picture in pictures])
    return _with_legend(grid(rows), data.classes)


def _with_legend(sheet: Image.Image, classes: tuple[str, ...]) -> Image.Image:
    out = Image.new("RGB", (sheet.width, sheet.height + _LEGEND), (255, 255, 255))
    out.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(out)
    step = sheet.width / len(classes)
    for k, (name, colour) in enumerate(zip(classes, PALETTE, strict=True)):
        x, y = round(k * step), sheet.height + 8
        draw.rectangle([x, y, x + 12, y + 12], fill=colour, outline=(0, 0, 0))
        draw.text((x + 17, y + 1), name, fill=(0, 0, 0))
    return out


def opened(name: str, root: Path | None) -> MiniRooms:
    """A version of MiniRooms; of a name without version the newest that is registered."""
    return MiniRooms(resolve_version(load_registry(), name), root)


def _read(image: ImageRef) -> Picture:
    return image.read()


def _cell(picture: Picture, side: int) -> Image.Image:
    return Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)


def _samples(data: MiniRooms, kind: type[S], split: str) -> Lazy[S]:
    return cast("Lazy[S]", data.samples(cast("type[Sample]", kind), split))


def _by_id(data: MiniRooms, kind: type[S], split: str) -> Callable[[str], S]:
    samples = _samples(data, kind, split)
    index = {name: i for i, name in enumerate(samples.ids)}
    return lambda name: samples[index[name]]


SHEETS = {
    "rooms": (rooms_sheet, 24),
    "people": (people_sheet, 24),
    "truth": (truth_sheet, 5),
    "views": (views_sheet, 18),
}
"""Kind -> (what draws it, how many rooms, people or views)."""


def main(argv: list[str] | None = None) -> None:
    """Writes one sheet; the suffix of OUT decides the format."""
    parser = argparse.ArgumentParser(description="A contact sheet of MiniRooms.")
    parser.add_argument("kind", choices=sorted(SHEETS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="minirooms", help="with or without its version")
    parser.add_argument("--root", type=Path, help="folder with the card; default: the shipped data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--count", type=int, help="rooms, people or views at most")
    options = parser.parse_args(argv)
    make, count = SHEETS[options.kind]
    picture = make(opened(options.name, options.root), options.split, options.count or count)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(options.out, quality=88)
    print(f"{options.out}: {picture.width} x {picture.height}, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
