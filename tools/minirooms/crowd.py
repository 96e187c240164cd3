"""Puts people into a room: on free floor or on a seat, through nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from tools.minirooms.footprints import Box, collides
from tools.minirooms.layout import ReliefOf
from tools.minirooms.relief import Relief
from tools.minirooms.room import Item, Room

if TYPE_CHECKING:
    from tools.minirooms.people import BodyFactory, PosedBody

F64 = NDArray[np.float64]
Rng = np.random.Generator
Shoot = Callable[[F64, F64], tuple[F64, NDArray[np.int64]]]

_SEAT_HEIGHTS = (0.30, 0.54)
_SINK = 0.035
"""How far (m) thighs may sink into a cushion."""
_STANDING = ("standing", "walking", "reaching")
_LEAST = 2
_FACE = 5
"""COCO's first key points are those of the face."""
_SLIDES = (0.0, 0.04, 0.08, 0.12, 0.16)
"""How far (m) from the backrest somebody may sit."""


@dataclass(frozen=True)
class Placed:
    """A person in the room.  T_world_body: (4, 4), a yaw and a translation."""

    id: str
    body: PosedBody
    T_world_body: F64

    def world(self, points: F64) -> F64:
        """Points (N, 3) of the body frame in the world."""
        return np.asarray(points @ self.T_world_body[:3, :3].T + self.T_world_body[:3, 3])

    @property
    def head(self) -> F64:
        """(3,) the middle of the eyes, ears and nose in the world."""
        return np.asarray(self.world(self.body.keypoints[:_FACE]).mean(axis=0))

    @property
    def box(self) -> Box:
        """The smallest upright box of the body's own axes around it."""
        v = self.body.vertices
        low, high = v.min(0), v.max(0)
        middle = self.world(((low + high) / 2)[None])[0]
        yaw = math.atan2(self.T_world_body[1, 0], self.T_world_body[0, 0])
        half = (high - low) / 2
        top = middle[2] + half[2]
        return Box(float(middle[0]), float(middle[1]), float(half[0]), float(half[1]), yaw, 0.0, float(top))


def pose_matrix(x: float, y: float, yaw: float) -> F64:
    """(4, 4): turn by yaw about z, then move on the floor."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def edges_hit(vertices: F64, faces: NDArray[np.int64], shoot: Shoot) -> bool:
    """Whether any edge of a mesh crosses a surface of the scene (exact but for touching)."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]]), axis=1), axis=0)
    start = vertices[edges[:, 0]]
    along = vertices[edges[:, 1]] - start
    length = np.linalg.norm(along, axis=1)
    keep = length > 1e-6
    distance, index = shoot(start[keep], along[keep] / length[keep, None])
    return bool(((index >= 0) & (distance < length[keep])).any())


def _seat_place(relief: Relief, body: PosedBody, height: float, x: float) -> float | None:
    """The pelvis' y in the seat's frame with the back at the backrest, or None if there is no room."""
    back_y, reach = relief.half_depth - 0.02, 0.05
    for y in np.arange(-0.05, relief.half_depth, 0.0125):
        cells = relief.patch(x, float(y), reach)
        if cells.size and cells.max() > height + 0.12:
            back_y = float(y) + reach - 0.025
            break
    upper = body.vertices[(body.vertices[:, 2] > height + 0.08) & (np.abs(body.vertices[:, 0]) < 0.2)]
    y = back_y - float(upper[:, 1].max()) - 0.01
    return y if -relief.half_depth + 0.1 < y < relief.half_depth - 0.05 else None


def _sinks(relief: Relief, vertices: F64, height: float) -> bool:
    """Whether vertices (seat frame) are inside the seat, taken as solid below its upper surface."""
    column = np.floor((vertices[:, 0] + relief.half_width) / 0.025).astype(int)
    row = np.floor((vertices[:, 1] + relief.half_depth) / 0.025).astype(int)
    ny, nx = relief.heights.shape
    inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
    surface = relief.heights[row[inside], column[inside]]
    z = vertices[inside, 2]
    deep = z < surface - _SINK
    # Legs under an open seat are judged by the exact edge test; here only what is above it counts.
    return bool((deep & (z > height - 0.1)).mean() > 0.012) if len(z) else False


class Crowd:
    """Places people one by one.  `shoot` sees the room without people."""

    def __init__(self, room: Room, factory: BodyFactory, relief_of: ReliefOf, shoot: Shoot, rng: Rng) -> None:
        self.room, self.factory, self.relief_of, self.shoot, self.rng = room, factory, relief_of, shoot, rng
        self.people: list[Placed] = []
        self._taken: set[int] = set()

    def fill(self, wanted: int) -> list[Placed]:
        """Up to `wanted` people.  Raises TaskError if fewer than two fit."""
        for _ in range(wanted + 3):
            if len(self.people) == wanted:
                break
            placed = self._sit() if self.rng.uniform() < 0.45 else None
            placed = placed or self._stand()
            if placed is not None:
                self.people.append(placed)
                self.room.bodies.append(placed.box)
        if len(self.people) < _LEAST:
            raise TaskError(f"{self.room.id}: only {len(self.people)} people fit, {_LEAST} are needed")
        return self.people

    def _name(self) -> str:
        return f"person{len(self.people)}"

    def _stand(self) -> Placed | None:
        action = _STANDING[int(self.rng.integers(3))]
        body = self.factory.sample(self.rng, action, None)  # type: ignore[arg-type]
        width, depth, height = self.room.size
        if float(body.vertices[:, 2].max()) > height - 0.05:
            return None
        boxes = [item.box for item in self.room.items] + [body.grown(0.2) for body in self.room.bodies]
        for _ in range(60):
            x, y = float(self.rng.uniform(0.3, width - 0.3)), float(self.rng.uniform(0.3, depth - 0.3))
            placed = Placed(self._name(), body, pose_matrix(x, y, float(self.rng.uniform(0, 2 * math.pi))))
            box = placed.box
            if not self.room.contains(box, 0.05) or collides(box.grown(0.02), boxes):
                continue
            if not edges_hit(placed.world(body.vertices) + np.array([0, 0, 0.004]), body.faces, self.shoot):
                return placed
        return None

    def _sit(self) -> Placed | None:
        seats = [
            (number, item, relief, height)
            for number, item in enumerate(self.room.items)
            if item.model.label in {"seat", "sofa"}
            and item.z == 0
            and number not in self._taken
            and (relief := self.relief_of(item.model)) is not None
            and (height := relief.seat_height()) is not None
            and _SEAT_HEIGHTS[0] <= height <= _SEAT_HEIGHTS[1]
        ]
        for position in self.rng.permutation(len(seats))[:3]:
            number, item, relief, height = seats[int(position)]
            try:
                body = self.factory.sample(self.rng, "sitting", height)
            except RuntimeError:
                continue  # nobody natural fits this seat; another one is tried
            placed = self._sit_on(number, item, relief, height, body)
            if placed is not None:
                self._taken.add(number)
                return placed
        return None

    def _sit_on(
        self, number: int, item: Item, relief: Relief, height: float, body: PosedBody
    ) -> Placed | None:
        """Back at the backrest if the legs are free, else a little further to the front."""
        spread = max(0.0, relief.half_width - 0.45)
        for x in (float(self.rng.uniform(-spread, spread)), 0.0):
            back = _seat_place(relief, body, height, x)
            if back is None:
                continue
            for forward in _SLIDES:
                y = back - forward
                if y < -relief.half_depth + 0.1:
                    break
                placed = self._on(item, body, x, y)
                if self._fits(number, relief, height, placed, np.array([x, y, 0.0])):
                    return placed
        return None

    def _fits(self, number: int, relief: Relief, height: float, placed: Placed, shift: F64) -> bool:
        body = placed.body
        if _sinks(relief, body.vertices + shift, height):
            return False
        others = [i.box for k, i in enumerate(self.room.items) if k != number and i.z > 0.5]
        if not self.room.contains(placed.box, 0.02) or collides(placed.box, self.room.bodies + others):
            return False
        lower = body.vertices[:, 2] < height - 0.08
        legs = body.faces[lower[body.faces].all(axis=1)]
        vertices = placed.world(body.vertices) + np.array([0, 0, 0.004])
        return not edges_hit(vertices, legs, self.shoot) and not self._meets_others(number, vertices, body)

    def _on(self, item: Item, body: PosedBody, x: float, y: float) -> Placed:
        T = item.world_from_model @ np.array([[1, 0, 0, x], [0, 1, 0, y], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        return Placed(self._name(), body, T)

    def _meets_others(self, seat: int, vertices: F64, body: PosedBody) -> bool:
        """Whether the upper body crosses anything but the seat itself."""
        first_item = 2 + len(self.room.segments)

        def shoot_others(origins: F64, directions: F64) -> tuple[F64, NDArray[np.int64]]:
            distance, index = self.shoot(origins, directions)
            return distance, np.where(index == first_item + seat, -1, index)

        return edges_hit(vertices, body.faces, shoot_others)
