"""Furnishes a room: doors, windows, furniture along walls and around tables, things on top, lamps.

Everything is drawn from one generator, so a seed gives one room.  Nothing overlaps: each thing's box
is tested against all others before it is placed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np

from tools.minirooms.catalogue import Model, Picker
from tools.minirooms.footprints import Box, collides
from tools.minirooms.relief import Relief
from tools.minirooms.room import Item, Panel, Room, Segment, facing, make_shell

ReliefOf = Callable[[Model], Relief | None]
Rng = np.random.Generator

THEMES = ("living", "bedroom", "kitchen", "office", "studio")

# What stands along the walls and in the middle, in the order of placing: (class, how many at most).
_ALONG: dict[str, tuple[tuple[str, int], ...]] = {
    "living": (("sofa", 2), ("storage", 2), ("seat", 1), ("appliance", 1)),
    "bedroom": (("bed", 1), ("storage", 2), ("table", 1), ("sofa", 1), ("appliance", 1)),
    "kitchen": (("appliance", 2), ("storage", 3), ("seat", 1)),
    "office": (("table", 2), ("storage", 2), ("sofa", 1), ("appliance", 1)),
    "studio": (("bed", 1), ("sofa", 1), ("appliance", 1), ("storage", 1)),
}
_EXTRAS = ("storage", "seat", "table", "appliance", "sofa", "bed")
_MIDDLE: dict[str, tuple[int, int]] = {
    "living": (1, 2),
    "bedroom": (0, 2),
    "kitchen": (1, 4),
    "office": (1, 2),
    "studio": (1, 2),
}


_FLOOR_TOYS = re.compile(r"ball|Teddy|horse|Vase|toy|train|Gift|Xylophone|Car model")


class Furnisher:
    """Places things in one room.  `obstacles` are boxes that must stay free, such as door swings."""

    def __init__(self, room: Room, picker: Picker, relief_of: ReliefOf, rng: Rng) -> None:
        self.room, self.picker, self.relief_of, self.rng = room, picker, relief_of, rng
        self.obstacles: list[Box] = []

    def _free(self, box: Box, margin: float = 0.0) -> bool:
        taken = [item.box for item in self.room.items] + self.obstacles
        return self.room.contains(box) and not collides(box.grown(margin), taken)

    def _segment(self, longer_than: float) -> Segment | None:
        walls = [segment for segment in self.room.segments if segment.length > longer_than]
        if not walls:
            return None
        lengths = np.array([segment.length for segment in walls])
        return walls[int(self.rng.choice(len(walls), p=lengths / lengths.sum()))]

    def opening(self, use: str) -> bool:
        """A door or window in a wall, with its free zone; a window gets a luminous pane."""
        model = self.picker.pick("opening", (use,), limit=2.0)
        if model is None or model.size[2] > self.room.size[2] - 0.1:
            return False
        width, _, height = model.size
        for _ in range(20):
            wall = self._segment(width + 0.3)
            if wall is None:
                return False
            along = float(self.rng.uniform(width / 2 + 0.1, wall.length - width / 2 - 0.1))
            sill = 0.0 if use == "door" or height > 1.9 else min(0.9, self.room.size[2] - height - 0.15)
            x, y = wall.at(along, 0.0)
            zone_x, zone_y = wall.at(along, 0.25)
            yaw = facing(wall.normal)
            reach = 0.45 if use == "door" or sill == 0.0 else 0.25
            zone = Box(zone_x, zone_y, width / 2 + 0.05, reach, yaw, sill, sill + height)
            if collides(zone, self.obstacles):
                continue
            self.room.items.append(Item(model, x, y, sill, yaw))
            self.obstacles.append(zone)
            if use == "window":
                self.room.panels.append(_pane(wall, along, sill, model))
            return True
        return False

    def along_wall(self, model: Model, z: float = 0.0, gap: float = 0.03) -> Item | None:
        """Back to a wall, facing the room."""
        width, depth, _ = model.size
        for _ in range(40):
            wall = self._segment(width + 0.1)
            if wall is None:
                return None
            along = float(self.rng.uniform(width / 2, wall.length - width / 2))
            if self.rng.uniform() < 0.35:  # corners first: real rooms fill up from there
                along = width / 2 + 0.03 if self.rng.uniform() < 0.5 else wall.length - width / 2 - 0.03
            x, y = wall.at(along, depth / 2 + gap)
            item = Item(model, x, y, z, facing(wall.normal))
            if self._free(item.box):
                self.room.items.append(item)
                return item
        return None

    def in_the_middle(self, model: Model, clearance: float) -> Item | None:
        """Anywhere on the floor with `clearance` metres around it, at a right or slight angle."""
        width, depth, _ = self.room.size
        for _ in range(40):
            x, y = float(self.rng.uniform(0.3, width - 0.3)), float(self.rng.uniform(0.3, depth - 0.3))
            yaw = float(self.rng.integers(4)) * math.pi / 2 + float(self.rng.normal(0, 0.06))
            item = Item(model, x, y, 0.0, yaw)
            if self._free(item.box, clearance):
                self.room.items.append(item)
                return item
        return None

    def seats_around(self, table: Item, count: int) -> None:
        """Up to `count` seats of one model at the table's sides, facing it."""
        model = self.picker.pick("seat", limit=0.75)
        if model is None:
            return
        half = (table.model.size[0] / 2, table.model.size[1] / 2)
        sides = [(0, -1), (0, 1), (-1, 0), (1, 0)]
        order = self.rng.permutation(4)
        for number in range(count):
            sx, sy = sides[int(order[number % 4])]
            reach = (half[1] if sx == 0 else half[0]) + model.size[1] / 2 + float(self.rng.uniform(0.02, 0.2))
            slide = float(self.rng.uniform(-0.3, 0.3)) * (half[0] if sx == 0 else half[1])
            local = np.array([sx * reach if sx else slide, sy * reach if sy else slide])
            c, s = math.cos(table.yaw), math.sin(table.yaw)
            x, y = table.x + c * local[0] - s * local[1], table.y + s * local[0] + c * local[1]
            towards = (-(c * sx - s * sy), -(s * sx + c * sy))
            yaw = facing(towards) + float(self.rng.normal(0, 0.12))
            item = Item(model, x, y, 0.0, yaw)
            if self._free(item.box):
                self.room.items.append(item)

    def on_top(self, model: Model) -> Item | None:
        """On a flat upper surface of a table, storage or big appliance, not through anything."""
        supports = [
            i for i in self.room.items if i.model.label in {"table", "storage", "appliance"} and i.z == 0
        ]
        half = max(model.size[:2]) / 2
        for _ in range(30):
            if not supports:
                return None
            support = supports[int(self.rng.integers(len(supports)))]
            relief = self.relief_of(support.model)
            width, depth, _ = support.model.size
            if relief is None or width / 2 < half or depth / 2 < half:
                continue
            x = float(self.rng.uniform(-1, 1)) * (width / 2 - half)
            y = float(self.rng.uniform(-1, 1)) * (depth / 2 - half)
            height = relief.flat_height(x, y, half * 0.8)
            if height is None or not 0.3 < height < 1.45:
                continue
            c, s = math.cos(support.yaw), math.sin(support.yaw)
            yaw = support.yaw + float(self.rng.normal(0, 0.3))
            item = Item(model, support.x + c * x - s * y, support.y + s * x + c * y, height + 0.001, yaw)
            others = [i.box for i in self.room.items if i is not support] + self.obstacles
            if self.room.contains(item.box) and not collides(item.box, others):
                self.room.items.append(item)
                return item
        return None

    def on_wall(self, model: Model) -> Item | None:
        """Hung on a wall at its usual height."""
        height = self.room.size[2]
        z = model.elevation if model.elevation > 0.8 else float(self.rng.uniform(1.3, 1.6))
        z = min(z, height - model.size[2] - 0.05)
        return self.along_wall(model, z=z, gap=0.005)

    def from_ceiling(self, model: Model) -> Item | None:
        """Hung from the ceiling, clear of heads."""
        width, depth, height = self.room.size
        z = height - model.size[2]
        for _ in range(20):
            x, y = float(self.rng.uniform(0.25, 0.75)) * width, float(self.rng.uniform(0.25, 0.75)) * depth
            item = Item(model, x, y, z, float(self.rng.integers(4)) * math.pi / 2)
            if z > 1.7 and self._free(item.box):
                self.room.items.append(item)
                return item
        return None

    def poster(self) -> bool:
        """A picture on a wall."""
        w, h = float(self.rng.uniform(0.2, 0.55)), float(self.rng.uniform(0.2, 0.5))
        for _ in range(20):
            wall = self._segment(2 * w + 0.3)
            if wall is None:
                return False
            along = float(self.rng.uniform(w + 0.1, wall.length - w - 0.1))
            z = float(self.rng.uniform(1.25 + h / 2, max(1.3 + h / 2, self.room.size[2] - h - 0.2)))
            x, y = wall.at(along, 0.02)
            box = Box(x, y, w, 0.015, facing(wall.normal), z - h, z + h)
            if self.room.contains(box) and self._free(box):
                dx, dy = wall.direction
                # Seen from the room, the wall's direction runs to the left.
                self.room.panels.append(Panel((x, y, z), (-dx * w, -dy * w, 0), (0, 0, h), "poster"))
                self.obstacles.append(box)
                return True
        return False


def _pane(wall: Segment, along: float, sill: float, model: Model) -> Panel:
    width, _, height = model.size
    x, y = wall.at(along, 0.02)
    dx, dy = wall.direction
    half_w, half_h = width / 2 - 0.03, height / 2 - 0.03
    return Panel((x, y, sill + height / 2), (-dx * half_w, -dy * half_w, 0), (0, 0, half_h), "pane")


def _lights(furnisher: Furnisher) -> None:
    rng, room = furnisher.rng, furnisher.room
    width, depth, height = room.size
    warm = float(rng.uniform(-1, 1))
    colour = np.array([1 + 0.18 * warm, 1.0, 1 - 0.28 * warm]) * float(rng.uniform(6, 12))
    for _ in range(int(rng.integers(1, 3))):
        a, b = float(rng.uniform(0.15, 0.5)), float(rng.uniform(0.15, 0.5))
        for _ in range(20):
            x, y = float(rng.uniform(0.25, 0.75)) * width, float(rng.uniform(0.25, 0.75)) * depth
            box = Box(x, y, a, b, 0.0, height - 0.03, height)
            if room.contains(box, 0.1) and furnisher._free(box):
                r, g, blue = (float(c) for c in colour)
                centre = (x, y, height - 0.015)
                room.panels.append(Panel(centre, (a, 0, 0), (0, -b, 0), "lamp", (r, g, blue)))
                furnisher.obstacles.append(box)
                break


def _shell_things(furnisher: Furnisher) -> None:
    rng = furnisher.rng
    furnisher.opening("door")
    for _ in range(int(rng.integers(1, 3))):
        furnisher.opening("window")


def _furniture(furnisher: Furnisher, theme: str) -> None:
    rng, picker = furnisher.rng, furnisher.picker
    for label, most in _ALONG[theme]:
        for number in range(most):
            if number and rng.uniform() < 0.3:
                continue
            model = picker.pick(label, ("floor",), limit=2.7)
            if model is not None:
                furnisher.along_wall(model)
    for _ in range(int(rng.integers(1, 4))):
        model = picker.pick(str(rng.choice(_EXTRAS)), ("floor",), limit=2.4)
        if model is not None:
            furnisher.along_wall(model)
    tables, seats = _MIDDLE[theme]
    for _ in range(tables):
        for _ in range(4):
            model = picker.pick("table", ("floor",), limit=1.8)
            table = furnisher.in_the_middle(model, 0.35) if model is not None else None
            if table is not None:
                furnisher.seats_around(table, seats)
                break
    for item in list(furnisher.room.items):
        if item.model.label == "table" and theme == "office" and rng.uniform() < 0.8:
            furnisher.seats_around(item, 1)
    for _ in range(int(rng.integers(0, 3))):
        model = picker.pick("seat", ("floor",))
        if model is not None:
            furnisher.in_the_middle(model, 0.1)


def _small_things(furnisher: Furnisher) -> None:
    rng, picker = furnisher.rng, furnisher.picker
    model = picker.pick("plant", ("floor",))
    if model is not None:
        furnisher.along_wall(model, gap=0.05)
    for label, most in (("lamp", 3), ("appliance", 3), ("plant", 3), ("decoration", 5)):
        for _ in range(int(rng.integers(1, most + 1))):
            model = picker.pick(label, ("top",))
            placed = furnisher.on_top(model) if model is not None else None
            if placed is None and model is not None and (label == "plant" or _FLOOR_TOYS.search(model.name)):
                furnisher.along_wall(model, gap=float(rng.uniform(0.05, 0.6)))
    for label, use, chance in (
        ("lamp", "floor", 0.6),
        ("decoration", "floor", 0.5),
    ):
        model = picker.pick(label, (use,))
        if model is not None and rng.uniform() < chance:
            furnisher.along_wall(model, gap=0.05)
    for label, chance in (("lamp", 0.5), ("storage", 0.4), ("decoration", 0.3), ("appliance", 0.3)):
        model = picker.pick(label, ("wall",))
        if model is not None and rng.uniform() < chance:
            furnisher.on_wall(model)


def make_room(room_id: str, picker: Picker, relief_of: ReliefOf, rng: Rng) -> Room:
    """One furnished room.  `relief_of` gives a model's upper surface, or None if it has none."""
    theme = THEMES[int(rng.integers(len(THEMES)))]
    room = make_shell(room_id, theme, rng)
    furnisher = Furnisher(room, picker, relief_of, rng)
    _shell_things(furnisher)
    _furniture(furnisher, theme)
    if rng.uniform() < 0.65:
        model = picker.pick("lamp", ("ceiling",), limit=1.4)
        if model is not None:
            furnisher.from_ceiling(model)
    _lights(furnisher)
    _small_things(furnisher)
    for _ in range(int(rng.integers(1, 4))):
        furnisher.poster()
    return room
