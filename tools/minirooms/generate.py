"""Makes one room after another: layout, people, cameras, pictures, labels, and its record.

A finished room is a folder that was renamed into place, so a killed run resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dune_bench.data.minirooms.depth_codec import encode_depth
from dune_bench.errors import TaskError
from tools.minirooms import render
from tools.minirooms.cameras import Camera, Photographer, pixel_grid, six_views
from tools.minirooms.catalogue import Model, Picker, Pools, load_catalogue, split_pools
from tools.minirooms.crowd import Crowd, Placed
from tools.minirooms.layout import make_room
from tools.minirooms.meshes import Part, load_parts
from tools.minirooms.people_views import people_views
from tools.minirooms.rays import RayCaster
from tools.minirooms.relief import Relief, relief_of
from tools.minirooms.room import Room
from tools.minirooms.scene import Figure, furnished
from tools.minirooms.visibility import Silhouette, keypoints_visible

GENERATOR_VERSION = 2
SPLITS = ("train", "test")
PEOPLE = "people"
"""Rooms of more people, seen by fewer views that seek them out, without depth: for learning bodies.
Their furniture is that of training rooms."""
_STREAMS = (*SPLITS, PEOPLE)
_PEOPLE_IN_A_ROOM = {"train": (2, 4), "test": (2, 4), PEOPLE: (4, 6)}
_JPEG_QUALITY = {"train": 92, "test": 92, PEOPLE: 88}
_ATTEMPTS = 12
_SAMPLES = 5


@dataclass(frozen=True)
class Recipe:
    """What decides the rooms.  size: pixels a side; labelled: with labels, depth and people's truth."""

    seed: int
    size: int
    labelled: bool
    furniture: Path


@dataclass(frozen=True)
class RoomJob:
    """Room `number` of a split; `id` names its folder."""

    split: str
    number: int

    @property
    def id(self) -> str:
        return f"{self.split}_{self.number:03d}"

    @property
    def views(self) -> int:
        return 2 if self.split == PEOPLE else 6


@cache
def _pools(furniture: Path, seed: int) -> Pools:
    return split_pools(load_catalogue(furniture), seed)


@cache
def _factory() -> Any:
    from tools.minirooms.people import BodyFactory  # anny takes seconds to load

    return BodyFactory()


class Furniture:
    """Meshes and upper surfaces of models, each read once per process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[str, list[Part]] = {}
        self._reliefs: dict[str, Relief] = {}

    def parts(self, model: Model) -> list[Part]:
        if model.id not in self._parts:
            self._parts[model.id] = load_parts(self._folder, model)
        return self._parts[model.id]

    def relief(self, model: Model) -> Relief:
        if model.id not in self._reliefs:
            self._reliefs[model.id] = relief_of(self.parts(model), model.size)
        return self._reliefs[model.id]


@cache
def _furniture(folder: Path) -> Furniture:
    return Furniture(folder)


@dataclass(frozen=True)
class Staged:
    """A room ready for its photographs."""

    room: Room
    people: list[Placed]
    figures: list[Figure]
    caster: RayCaster
    views: list[Camera]


def stage(recipe: Recipe, job: RoomJob, attempt: int) -> Staged:
    """Layout, people and cameras of one attempt at a room.  Raises TaskError if it does not work out."""
    rng = np.random.default_rng([recipe.seed, _STREAMS.index(job.split), job.number, attempt])
    furniture = _furniture(recipe.furniture)
    picker = Picker(_pools(recipe.furniture, recipe.seed), job.split, rng)
    room = make_room(job.id, picker, furniture.relief, rng)
    daylight = float(np.exp(rng.uniform(np.log(0.8), np.log(4.5))))
    builder = furnished(room, lambda item: furniture.parts(item.model), rng, daylight)
    empty = RayCaster(builder.build())
    least, most = _PEOPLE_IN_A_ROOM[job.split]
    wanted = int(rng.integers(least, most + 1))
    people = Crowd(room, _factory(), furniture.relief, empty.shoot, rng).fill(wanted)
    figures = []
    for placed in people:
        vertices, faces, rgb = placed.body.render_mesh()
        figures.append(Figure(placed.id, placed.world(vertices), faces, rgb))
        builder.figure(figures[-1])
    caster = RayCaster(builder.build())
    interest = [[i.x, i.y, i.z + i.model.size[2] / 2] for i in room.items]
    for placed in people:
        chest = placed.world(placed.body.vertices).mean(axis=0)
        interest += [list(chest + np.array([0, 0, 0.2]))] * 4
    photographer = Photographer(room, caster.labels, np.array(interest), rng, recipe.size)
    if job.split == PEOPLE:
        views = people_views(photographer, np.array([placed.head for placed in people]), job.views)
    else:
        views = six_views(photographer, job.number)
    return Staged(room, people, figures, caster, views)


def staged(recipe: Recipe, job: RoomJob) -> Staged:
    """The first attempt that works out.  Raises TaskError after a dozen."""
    reasons: list[str] = []
    for attempt in range(_ATTEMPTS):
        try:
            return stage(recipe, job, attempt)
        except TaskError as error:
            reasons.append(str(error))
    raise TaskError(f"{job.id}: {_ATTEMPTS} attempts failed, the last: {reasons[-1]}")


def make(recipe: Recipe, job: RoomJob, work: Path) -> Path:
    """Renders a room into `work`/<id>, atomically; returns at once if it is there already."""
    final = work / job.id
    if final.is_dir():
        return final
    # A worker of a killed run may still be at this room: its unfinished folder is never ours.
    partial = work / f"{job.id}.{os.getpid()}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    ready = staged(recipe, job)
    images = [
        render.radiance(ready.caster.built.scene, view, recipe.size, _SAMPLES, seed=1000 * job.number + k)
        for k, view in enumerate(ready.views)
    ]
    base = render.base_exposure(images)
    silhouettes = [Silhouette(figure) for figure in ready.figures] if recipe.labelled else []
    records = []
    for number, (view, image) in enumerate(zip(ready.views, images, strict=True)):
        exposure = render.keep_exposure(image, base, view.exposure)
        encoded = render.jpeg(render.develop(image, base, exposure), _JPEG_QUALITY[job.split])
        (partial / f"{number}.jpg").write_bytes(encoded)
        record = _view_record(number, view, exposure, encoded)
        if recipe.labelled:
            record["people"] = _truth(recipe, ready, view, number, silhouettes, partial)
            if job.split != PEOPLE:
                (partial / f"{number}.depth").write_bytes(encode_depth(_depth(recipe, ready, view)))
        records.append(record)
    (partial / "room.json").write_text(json.dumps(_room_record(ready, records)))
    if final.is_dir():
        shutil.rmtree(partial)
    else:
        partial.rename(final)
    return final


def _view_record(
    number: int, view: Camera, exposure: tuple[float, float, float], encoded: bytes
) -> dict[str, Any]:
    return {
        "id": str(number),
        "K": view.K.tolist(),
        "T_cam_world": view.T_cam_world.tolist(),
        "fov_deg": view.fov_deg,
        "exposure": list(exposure),
        "covisible_with_reference": view.covisible,
        "rotation_deg": view.rotation_deg,
        "baseline_m": view.baseline_m,
        "bin": view.bin,
        "image_sha256": hashlib.sha256(encoded).hexdigest(),
    }


def _truth(
    recipe: Recipe, ready: Staged, view: Camera, number: int, silhouettes: list[Silhouette], folder: Path
) -> list[dict[str, Any]]:
    """Writes the object map of a view; returns what it shows of each person."""
    size = recipe.size
    _, index = ready.caster.objects(view.K, view.T_cam_world, pixel_grid(size, size))
    objects = np.where(index < 0, 255, index).reshape(size, size)
    (folder / f"{number}.objects.png").write_bytes(_png(objects.astype(np.uint8)))
    rows = []
    first = len(ready.caster.built.objects) - len(ready.people)
    for k, (placed, silhouette) in enumerate(zip(ready.people, silhouettes, strict=True)):
        owner = first + k
        whole = silhouette.pixels(view, size)
        shown = float((objects == owner).sum())
        joints = placed.world(placed.body.keypoints)
        visible = keypoints_visible(ready.caster, view, objects, owner, joints, size)
        rows.append(
            {
                "person": placed.id,
                "visible_fraction": round(min(1.0, shown / whole), 4) if whole else 0.0,
                "keypoint_visible": visible.tolist(),
            }
        )
    return rows


def _depth(recipe: Recipe, ready: Staged, view: Camera) -> NDArray[np.float32]:
    """(size / 2, size / 2) metres along z."""
    side = recipe.size // 2
    z, _ = ready.caster.objects(view.K, view.T_cam_world, pixel_grid(recipe.size, side))
    return z.reshape(side, side).astype(np.float32)


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _room_record(ready: Staged, views: list[dict[str, Any]]) -> dict[str, Any]:
    objects = ready.caster.built.objects
    if len(objects) > 254:
        raise TaskError(f"{ready.room.id}: {len(objects)} objects do not fit an 8-bit map")
    return {
        "id": ready.room.id,
        "theme": ready.room.theme,
        "objects": [{"index": o.index, "class": o.label, "model": o.model} for o in objects],
        "people": [_person_record(placed) for placed in ready.people],
        "views": views,
    }


def _person_record(placed: Placed) -> dict[str, Any]:
    body = placed.body
    return {
        "id": placed.id,
        "action": body.action,
        "body": {name: np.asarray(values).tolist() for name, values in body.body.items()},
        "T_world_body": placed.T_world_body.tolist(),
        "keypoints_world": placed.world(body.keypoints).tolist(),
        "keypoint_names": list(body.keypoint_names),
        "height_m": body.height_m,
    }
