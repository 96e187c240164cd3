"""`check` must not call people right who are elsewhere or others than their parameters say."""

from __future__ import annotations

import copy
import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dune_bench.data.minirooms
from tools.minirooms import truth
from tools.minirooms.check_people import Gathered, body_errors_mm, check_people, spread_checks, truth_checks

SHARDS = Path(dune_bench.data.minirooms.__file__).parent / "minirooms-people@1"
Rooms = list[tuple[dict[str, Any], list[truth.ViewData]]]


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    """Two shipped rooms and their views."""
    with zipfile.ZipFile(SHARDS / "people.zip") as archive:
        records = json.loads(archive.read("index.json"))["rooms"][2:4]
        return [
            (room, [truth.read_view(archive, room["id"], view) for view in room["views"]]) for room in records
        ]


def _failing(rooms: Rooms) -> set[str]:
    got = Gathered()
    for room, views in rooms:
        for view in views:
            got.add(view, room)
    records = [room for room, _ in rooms]
    return {c.what for c in (*truth_checks(records, got), *spread_checks(records, got)) if not c.holds}


def test_shipped_people_hold(rooms: Rooms) -> None:
    assert _failing(rooms) == set()
    assert all(view.depth.size == 0 for _, views in rooms for view in views)


def _other_body(room: dict[str, Any]) -> None:
    room["people"][0]["body"]["phenotype"][4] *= 0.7


def _moved(room: dict[str, Any]) -> None:
    room["people"][0]["T_world_body"][0][3] += 0.002


def _elsewhere(room: dict[str, Any]) -> None:
    for person in room["people"]:
        person["T_world_body"][0][3] += 0.3
        moved = np.array(person["keypoints_world"])
        moved[:, 0] += 0.3
        person["keypoints_world"] = moved.tolist()


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (_other_body, {"key points off those of the parameters"}),
        (_moved, {"key points off those of the parameters"}),
        (_elsewhere, {"visible key points on their person"}),
    ],
)
def test_wrong_people_are_not_called_right(
    rooms: Rooms, change: Callable[[dict[str, Any]], None], failing: set[str]
) -> None:
    changed = copy.deepcopy(rooms)
    for room, _ in changed:
        change(room)
    assert _failing(changed) == failing


def test_a_picture_beside_its_labels_is_not_called_right(rooms: Rooms) -> None:
    shifted = [
        (room, [dataclasses.replace(view, image=np.roll(view.image, 3, axis=1)) for view in views])
        for room, views in rooms
    ]
    assert _failing(shifted) == {"views whose label edges lie on image edges ± 1 px"}


def test_people_whom_no_view_shows_are_not_overlooked(rooms: Rooms) -> None:
    changed = copy.deepcopy(rooms)
    for room, _ in changed:
        for view in room["views"]:
            for seen in view["people"][1:]:
                seen["visible_fraction"] = 0.2
    assert _failing(changed) == {"people who count in a view"}


def test_errors_are_in_millimetres(rooms: Rooms) -> None:
    room = copy.deepcopy(rooms[0][0])
    before = body_errors_mm([room])
    _moved(room)
    assert before.max() < 0.1
    assert body_errors_mm([room])[0] == pytest.approx(2, abs=0.1)


def test_a_missing_shard_is_not_a_traceback(tmp_path: Path) -> None:
    from dune_bench.errors import UnavailableError

    with pytest.raises(UnavailableError, match=r"people.zip: not found"):
        check_people(tmp_path)
