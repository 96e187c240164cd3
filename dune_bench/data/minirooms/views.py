"""One room of a MiniRooms shard -> samples.  Module-level functions, so that workers can pickle them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.minirooms.index import VOID, Index, Room, RoomPerson
from dune_bench.data.minirooms.shards import read_depth, read_image, read_objects
from dune_bench.data.samples import (
    DepthSample,
    HumanSample,
    ImageRef,
    PairSample,
    Person,
    RelocScene,
    SegSample,
    View,
)
from dune_bench.errors import TaskError


@dataclass(frozen=True)
class RoomFiles:
    """A room and where its pixels are."""

    shard: Path
    split: str
    index: Index
    room: Room

    def __reduce__(self) -> tuple[object, ...]:
        # A worker is sent the room, not the whole index with every other room.
        alone = self.index.model_copy(update={"rooms": (self.room,)})
        return (RoomFiles._restore, (self.shard, self.split, alone))

    @staticmethod
    def _restore(shard: Path, split: str, index: Index) -> RoomFiles:
        return RoomFiles(shard, split, index, index.rooms[0])

    def member(self, view: int, kind: str) -> str:
        """Member name; kind: `jpg`, `objects.png` or `depth`."""
        return f"{self.room.id}/{self.room.views[view].id}.{kind}"

    def id(self, view: int) -> str:
        return f"{self.split}/{self.room.id}/{self.room.views[view].id}"


def image_ref(files: RoomFiles, view: int) -> ImageRef:
    """The handle of a view's image."""
    size = files.index.image_size
    read = partial(read_image, files.shard, files.member(view, "jpg"), size)
    return ImageRef(files.id(view), files.room.views[view].image_sha256, size, read)


def seg_sample(files: RoomFiles, view: int) -> SegSample:
    """Labels from the object map; tag `seen`: pixels whose model also stands in a training room.

    Raises TaskError for an object index that the room's table does not have.
    """
    objects = read_objects(files.shard, files.member(view, "objects.png"), files.index.image_size)
    label = np.full(256, VOID, np.uint8)
    seen, known = np.zeros(256, bool), np.zeros(256, bool)
    known[VOID] = True
    for item in files.room.objects:
        label[item.index] = files.index.label_of(item)
        seen[item.index], known[item.index] = item.seen, True
    present = np.bincount(objects.ravel(), minlength=256) > 0
    if (present & ~known).any():
        strange = int(np.flatnonzero(present & ~known)[0])
        raise TaskError(
            f"{files.shard}: member {files.member(view, 'objects.png')!r}: object {strange} is not in the "
            f"table of room {files.room.id}; get the shard again"
        )
    return SegSample(
        files.id(view), files.room.id, image_ref(files, view), label[objects], {"seen": seen[objects]}
    )


def _depth(files: RoomFiles, view: int) -> NDArray[np.float32]:
    depth = read_depth(files.shard, files.member(view, "depth"))
    height, width = files.index.image_size
    # The depth's grid covers the image exactly, so it must have the image's shape.
    if depth.shape[0] * width != depth.shape[1] * height:
        raise TaskError(
            f"{files.shard}: member {files.member(view, 'depth')!r} is {depth.shape[0]} x {depth.shape[1]}, "
            f"not the shape of the image, {height} x {width}; get the shard again"
        )
    return depth


def depth_sample(files: RoomFiles, view: int) -> DepthSample:
    """Depth on a grid of pixel centres over the same field of view as the image."""
    K = files.room.views[view].K
    return DepthSample(files.id(view), files.room.id, image_ref(files, view), _depth(files, view), K)


def posed_view(files: RoomFiles, view: int) -> View:
    """Image handle, depth and camera of a view."""
    facts = files.room.views[view]
    return View(
        id=files.id(view),
        group=files.room.id,
        image=image_ref(files, view),
        depth=_depth(files, view),
        K=facts.K,
        T_cam_world=facts.T_cam_world,
        exposure=facts.exposure,
    )


def pair_sample(files: RoomFiles, view: int) -> PairSample:
    """The reference (view 0) and one query; covisible is the share of the reference's pixels."""
    facts = files.room.views
    return PairSample(
        id=f"{files.split}/{files.room.id}/{facts[0].id}-{facts[view].id}",
        group=files.room.id,
        view1=posed_view(files, 0),
        view2=posed_view(files, view),
        covisible=facts[view].covisible_with_reference,
    )


def reloc_scene(files: RoomFiles) -> RelocScene:
    """View 0 is the reference, all others are queries."""
    queries = tuple(posed_view(files, view) for view in range(1, len(files.room.views)))
    return RelocScene(f"{files.split}/{files.room.id}", files.room.id, posed_view(files, 0), queries)


def human_sample(files: RoomFiles, view: int) -> HumanSample:
    """Everyone of whom the image shows at least a pixel."""
    facts = files.room.views[view]
    known = {person.id: person for person in files.room.people}
    people = tuple(
        _person(files, view, known[seen.person], seen.visible_fraction, seen.keypoint_visible)
        for seen in facts.people
        if seen.visible_fraction > 0
    )
    return HumanSample(
        files.id(view), files.room.id, image_ref(files, view), facts.K, people, files.index.keypoint_names
    )


def _person(
    files: RoomFiles, view: int, person: RoomPerson, fraction: float, visible: tuple[bool, ...]
) -> Person:
    facts = files.room.views[view]
    T: NDArray[np.float64] = facts.T_cam_world
    points = person.keypoints_world @ T[:3, :3].T + T[:3, 3]
    # A point behind the camera has no place in the image; it is never marked visible.
    ahead = points[:, 2:] > 0
    pixels = np.divide(points @ facts.K.T, points[:, 2:], out=np.full((len(points), 3), np.nan), where=ahead)
    return Person(
        id=f"{files.split}/{files.room.id}/{person.id}",
        body=person.body,
        T_cam_body=T @ person.T_world_body,
        keypoints_2d=pixels[:, :2],
        keypoints_3d=points,
        visible=np.asarray(visible, dtype=bool),
        visible_fraction=fraction,
        height_m=person.height_m,
    )
