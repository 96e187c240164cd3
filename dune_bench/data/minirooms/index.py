"""`index.json` of a MiniRooms shard: everything but pixels, checked once when it is read.

Schema 1.  Cameras: OpenCV axes, K in pixels of the image with centres at half-integers, `T_a_b` maps
b to a, world z up, metres.  Unknown keys are allowed, so that a generator may add facts.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dune_bench.data.minirooms.shards import read_member, shard_stamp
from dune_bench.errors import TaskError, first_problem

VOID = 255
"""Object index of pixels that belong to no object, and the ignored label."""


def _shaped(*shape: int) -> BeforeValidator:
    """Makes a finite float64 array of exactly this shape (0 takes any length; no shape takes any)."""

    def check(value: object) -> NDArray[np.float64]:
        array = np.array(value, dtype=np.float64)
        fits = all(s in (0, a) for s, a in zip(shape, array.shape, strict=False))
        if shape and (array.ndim != len(shape) or not fits):
            raise ValueError(f"expected an array of shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("expected finite numbers")
        array.setflags(write=False)
        return array

    return BeforeValidator(check)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.@-]*$")]
Numbers = Annotated[NDArray[np.float64], _shaped()]
Points = Annotated[NDArray[np.float64], _shaped(0, 3)]
Intrinsics = Annotated[NDArray[np.float64], _shaped(3, 3)]
Transform = Annotated[NDArray[np.float64], _shaped(4, 4)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)


class RoomObject(_Part):
    """One object of a room.  index: its value in the object maps.  class: index of the label (255:
    ignored) or its name.  seen: its model also stands in a training room."""

    index: int = Field(ge=0, lt=VOID)
    label: int | str = Field(alias="class")
    model: str
    seen: bool


class RoomPerson(_Part):
    """A person.  body: parameters of the body model by name.  keypoints_world: (J, 3) metres."""

    id: str
    body: dict[str, Numbers]
    T_world_body: Transform
    keypoints_world: Points
    height_m: float = Field(gt=0, lt=3)


class PersonInView(_Part):
    """How much of a person a view shows.  person: id in the room."""

    person: str
    visible_fraction: float = Field(ge=0, le=1)
    keypoint_visible: tuple[bool, ...]


class RoomView(_Part):
    """One view.  covisible_with_reference: share of the reference's pixels that this view sees."""

    id: Name
    K: Intrinsics
    T_cam_world: Transform
    fov_deg: float = Field(gt=0, lt=180)
    exposure: tuple[float, float, float]
    covisible_with_reference: float = Field(ge=0, le=1)
    rotation_deg: float = Field(ge=0, le=180)
    baseline_m: float = Field(ge=0)
    bin: str
    people: tuple[PersonInView, ...]
    image_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Room(_Part):
    """One room; its first view is the reference."""

    id: Name
    objects: tuple[RoomObject, ...]
    people: tuple[RoomPerson, ...]
    views: tuple[RoomView, ...] = Field(min_length=1)


class Index(_Part):
    """The index of one shard.  image_size: (height, width), of every image.  depth: whether views have it;
    without, a shard gives people only."""

    schema_: Literal[1] = Field(alias="schema")
    name: str
    split: str
    classes: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    generator_version: str | int
    seed: int
    image_size: tuple[int, int] = (448, 448)
    depth: bool = True
    rooms: tuple[Room, ...] = Field(min_length=1)

    def label_of(self, item: RoomObject) -> int:
        """The label of an object.  Raises KeyError for a class that is not in `classes`."""
        if isinstance(item.label, int):
            if item.label != VOID and not 0 <= item.label < len(self.classes):
                raise KeyError(item.label)
            return item.label
        if item.label not in self.classes:
            raise KeyError(item.label)
        return self.classes.index(item.label)


def read_index(shard: Path) -> Index:
    """Reads and checks `index.json` of a shard, once per process and file.

    Raises UnavailableError if the shard is not there, TaskError naming shard, entry and problem.
    """
    return _read_index(shard, shard_stamp(shard))


@lru_cache(maxsize=8)
def _read_index(shard: Path, stamp: tuple[int, int]) -> Index:
    data = read_member(shard, "index.json")
    try:
        index = Index.model_validate_json(data)
    except ValidationError as error:
        raise TaskError(f"{shard}: index.json: {first_problem(error, 'top')}") from error
    problem = _inconsistent(index)
    if problem:
        raise TaskError(f"{shard}: index.json: {problem}")
    return index


def _inconsistent(index: Index) -> str | None:
    """The first contradiction inside an index, or None."""
    rooms = [room.id for room in index.rooms]
    if len(set(rooms)) != len(rooms):
        return "a room id stands twice"
    joints = len(index.keypoint_names)
    for room in index.rooms:
        if len({v.id for v in room.views}) != len(room.views):
            return f"room {room.id}: a view id stands twice"
        if len({o.index for o in room.objects}) != len(room.objects):
            return f"room {room.id}: an object index stands twice"
        if any(len(p.keypoints_world) != joints for p in room.people):
            return f"room {room.id}: keypoints_world is not {joints} long"
        people = {person.id for person in room.people}
        for item in room.objects:
            try:
                index.label_of(item)
            except KeyError as error:
                return f"room {room.id}: object {item.index} has the unknown class {error}"
        for view in room.views:
            if not {p.person for p in view.people} <= people:
                return f"room {room.id}: view {view.id} lists people whom the room does not have"
            if any(len(p.keypoint_visible) != joints for p in view.people):
                return f"room {room.id}: view {view.id}: keypoint_visible is not {joints} long"
    return None
