"""Measures the packed shard of people: are bodies those of their parameters, and where they are seen?"""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dune_bench.models.body_models import load_body_model
from tools.minirooms import counts, truth
from tools.minirooms.check import BURNT, BURNT_SHARE, Check, open_shard, section
from tools.minirooms.generate import PEOPLE
from tools.minirooms.tables import spread

_COUNTS_FROM = 0.3
"""Visible share of a body from which the protocols of `hmr` ask for it."""
_LIMIT_MM = 0.5
"""What the slim body may differ from anny by."""


@dataclass
class Gathered:
    """Measures of the views."""

    keypoints: list[int] = field(default_factory=lambda: [0, 0])
    offsets: collections.Counter[tuple[int, int]] = field(default_factory=collections.Counter)
    brightness: list[float] = field(default_factory=list)
    burnt: list[float] = field(default_factory=list)

    def add(self, view: truth.ViewData, room: dict[str, Any]) -> None:
        hits, total = truth.keypoints_on_mask(view, room)
        self.keypoints = [self.keypoints[0] + hits, self.keypoints[1] + total]
        self.offsets[truth.edge_offset(view)] += 1
        grey = view.image.mean(axis=2) / 255
        self.brightness.append(float(grey.mean()))
        self.burnt.append(float((grey > BURNT).mean()))


def body_errors_mm(rooms: Sequence[dict[str, Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(people,) largest distance between a person's key points and those of the shipped body model with the
    person's parameters."""
    model = load_body_model("anny", dtype=torch.float64)
    errors = []
    for person in (person for room in rooms for person in room["people"]):
        body = {name: torch.tensor([value], dtype=torch.float64) for name, value in person["body"].items()}
        with torch.no_grad():
            points = model(body).keypoints[0].numpy()
        T = np.array(person["T_world_body"])
        placed = points @ T[:3, :3].T + T[:3, 3]
        errors.append(1000 * np.linalg.norm(placed - np.array(person["keypoints_world"]), axis=1).max())
    return np.array(errors)


def check_people(folder: Path, markdown: bool = False) -> int:
    """Prints the tables; returns 0 if everything holds, else 1.  Raises UnavailableError if the shard is not
    there."""
    got = Gathered()
    with open_shard(folder, PEOPLE) as archive:
        index = json.loads(archive.read("index.json"))
        rooms = index["rooms"]
        for room in rooms:
            for record in room["views"]:
                got.add(truth.read_view(archive, room["id"], record), room)
    splits = {PEOPLE: rooms}
    checks = [*truth_checks(rooms, got), *spread_checks(rooms, got)]
    sections = [
        counts.contents(splits, {PEOPLE: (folder / f"{PEOPLE}.zip").stat().st_size}),
        *counts.people(splits, index["keypoint_names"]),
        section("Do bodies and pictures agree?", checks, (PEOPLE,)),
    ]
    print("\n\n".join(part.markdown() if markdown else part.text() for part in sections))
    return int(any(not check.holds for check in checks))


def truth_checks(rooms: Sequence[dict[str, Any]], got: Gathered) -> list[Check]:
    """Are the people what and where the index says?"""
    hits, total = got.keypoints
    near = sum(n for (dx, dy), n in got.offsets.items() if max(abs(dx), abs(dy)) <= 1)
    views = sum(got.offsets.values())
    worst = float(body_errors_mm(rooms).max())
    on = total > 0 and hits >= 0.99 * total
    off, edges = f"{worst:.2f} mm", f"{near} of {views} ({got.offsets[0, 0]} at 0)"
    return [
        _check("key points off those of the parameters", off, f"≤ {_LIMIT_MM} mm", worst <= _LIMIT_MM),
        _check("visible key points on their person", f"{hits} of {total}", "≥ 99 %", on),
        _check("views whose label edges lie on image edges ± 1 px", edges, "≥ 98 %", near >= 0.98 * views),
    ]


def _check(what: str, measured: str, wanted: str, holds: bool) -> Check:
    return Check(what, PEOPLE, measured, wanted, holds)


def spread_checks(rooms: Sequence[dict[str, Any]], got: Gathered) -> list[Check]:
    """Do the pictures show people, in good light?"""
    views = [view for room in rooms for view in room["views"]]
    shown = [float(sum(p["visible_fraction"] >= _COUNTS_FROM for p in view["people"])) for view in views]
    people = [float(len(room["people"])) for room in rooms]
    seen = {
        (room["id"], p["person"])
        for room in rooms
        for view in room["views"]
        for p in view["people"]
        if p["visible_fraction"] >= _COUNTS_FROM
    }
    checks = [
        _check(what, spread(values, digits), f"{low} … {high}", min(values) >= low and max(values) <= high)
        for what, values, low, high, digits in (
            ("people in a room", people, 2, 6, 0),
            ("mean brightness of a view", got.brightness, 0.15, 0.8, 2),
        )
    ]
    hot = sum(share > BURNT_SHARE for share in got.burnt)
    bodies = int(sum(people))
    what = f"views of which more than {100 * BURNT_SHARE:.0f} % is burnt out"
    return [
        *checks,
        _check(what, f"{hot} of {len(got.burnt)}", "≤ 1 %", hot <= 0.01 * len(got.burnt)),
        _check(
            "people who count in a view", f"{len(seen)} of {bodies}", "≥ 75 %", len(seen) >= 0.75 * bodies
        ),
        _check("times that people count", f"{int(sum(shown))} ({spread(shown, 0)} a view)", "", True),
    ]
