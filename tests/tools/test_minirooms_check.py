"""`check` must not call broken ground truth right, and must count what is there."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dune_bench.data.minirooms
from tools.minirooms import counts, truth
from tools.minirooms.check import Gathered, spread_checks, truth_checks, unseen_checks
from tools.minirooms.tables import Section, histogram, spread

SHARD = Path(dune_bench.data.minirooms.__file__).parent / "minirooms@1" / "test.zip"


@pytest.fixture(scope="module")
def room() -> tuple[list[truth.ViewData], dict[str, Any]]:
    """A shipped room's first three views and its record."""
    with zipfile.ZipFile(SHARD) as archive:
        record = json.loads(archive.read("index.json"))["rooms"][0]
        return [truth.read_view(archive, record["id"], view) for view in record["views"][:3]], record


def _failing(views: list[truth.ViewData], record: dict[str, Any]) -> set[str]:
    """Which of the truth's checks do not hold."""
    got = Gathered(14)
    for view in views[1:]:
        got.reprojection.append(truth.reprojection_errors(views[0], view))
    for view in views:
        millimetres, degrees = truth.wall_flatness(view, record["objects"])
        got.wall_mm.append(millimetres)
        got.wall_deg.append(degrees)
        hits, total = truth.keypoints_on_mask(view, record)
        got.keypoints = [got.keypoints[0] + hits, got.keypoints[1] + total]
        got.offsets[truth.edge_offset(view)] += 1
    return {check.what.split()[0] for check in truth_checks("test", got) if not check.holds}


def _turned(view: truth.ViewData) -> truth.ViewData:
    """Its camera half a degree off."""
    angle = np.radians(0.5)
    turn = np.eye(4)
    turn[0, 0], turn[0, 2], turn[2, 0], turn[2, 2] = (f(angle) for f in (np.cos, np.sin, _minus_sin, np.cos))
    return dataclasses.replace(view, record={**view.record, "T_cam_world": (turn @ view.pose).tolist()})


def _minus_sin(angle: float) -> float:
    return -float(np.sin(angle))


def _shifted(view: truth.ViewData) -> truth.ViewData:
    """Its picture two pixels to the right of its labels."""
    return dataclasses.replace(view, image=np.roll(view.image, 2, axis=1))


def _bulging(view: truth.ViewData) -> truth.ViewData:
    """Depth with waves of 5 mm."""
    waves = 0.005 * np.sin(np.arange(view.depth.shape[1]) / 8)
    return dataclasses.replace(view, depth=(view.depth + waves).astype(np.float32))


def _moved_people(view: truth.ViewData) -> truth.ViewData:
    """Its object map 40 pixels to the left of where the people are."""
    return dataclasses.replace(view, objects=np.roll(view.objects, -40, axis=1))


def test_shipped_truth_holds(room: tuple[list[truth.ViewData], dict[str, Any]]) -> None:
    views, record = room
    assert _failing(views, record) == set()


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [(_turned, "covisible"), (_shifted, "views"), (_bulging, "wall"), (_moved_people, "visible")],
)
def test_broken_truth_is_not_called_right(
    room: tuple[list[truth.ViewData], dict[str, Any]],
    spoil: Callable[[truth.ViewData], truth.ViewData],
    caught: str,
) -> None:
    views, record = room
    assert caught in _failing([views[0], *(spoil(view) for view in views[1:])], record)


def _room(models: list[str], gains: tuple[float, ...]) -> dict[str, Any]:
    """Classes: 0 wall, 1 seat.  The views are lit by `gains`."""
    names = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_hip"]
    visible = [[False] * 6, [False] * 5 + [True], [True] * 6]
    return {
        "objects": [{"class": 0, "model": "wall"}, *({"class": 1, "model": m} for m in models)],
        "people": [{"id": "p", "action": "sitting", "height_m": 1.2, "keypoint_names": names}],
        "views": [
            {
                "bin": "narrow",
                "rotation_deg": 10.0 + k,
                "baseline_m": 0.5,
                "covisible_with_reference": 0.3,
                "exposure": [gain, 1.0, 0.8 if k else 1.0],
                "people": [{"visible_fraction": 0.3 * k, "keypoint_visible": visible[k]}],
            }
            for k, gain in enumerate(gains)
        ],
    }


def test_only_models_that_training_never_has_count_as_unseen() -> None:
    splits = {
        "train": [_room(["A#chair", "A#stool"], (1.0, 1.0))],
        "test": [_room(["A#chair", "A#bench"], (1.0, 1.0))],
    }
    furniture = counts.furniture_by_class(splits, ("wall", "seat"))
    assert furniture == {"seat": (2, 2, 1)}
    assert [check.holds for check in unseen_checks(furniture)] == [True]
    assert [check.holds for check in unseen_checks({"seat": (9, 10, 2)})] == [False]


def test_light_and_white_balance_are_against_the_reference() -> None:
    room = _room([], (2.0, 0.5))
    assert counts.stops(room, room["views"][1]) == pytest.approx(2.0)
    assert counts.white_shift(room, room["views"][1]) == pytest.approx(0.25)
    (row,) = counts.light({"test": [room]}).rows
    assert row == ("test", "0", "0", "0", "1", "25 … 25 … 25 %")


def test_people_are_counted_by_what_views_show_of_them() -> None:
    rooms = [_room([], (1.0, 1.0, 1.0))]
    who, shown = counts.people({"test": rooms}, rooms[0]["people"][0]["keypoint_names"])
    assert who.rows == (("test", "1", "sitting 1", "1.20 … 1.20 … 1.20", "1"),)
    assert shown.rows == (("test", "1", "0", "0", "1", "1", "0", "1"),)


def test_view_of_too_few_classes_fails() -> None:
    got = Gathered(2)
    got.classes_in_view, got.brightness, got.burnt, got.far_m = [3.0], [0.5], [0.0], [4.0]
    failing = {c.what for c in spread_checks("test", [_room([], (1.0, 1.0))], got) if not c.holds}
    assert {"classes in a view", "people in a room", "classes that occur"} <= failing


def test_histogram_loses_nothing() -> None:
    assert histogram([0.1, 0.2, 0.5, 7.0], (0.2, 0.5)) == [1, 1, 2]
    assert histogram([], (0.2,)) == [0, 0]


def test_empty_spread_is_not_a_zero() -> None:
    assert spread([]) == "–"
    assert spread([3.0, 1.0, 2.0, 5.0], 1) == "1.0 … 2.5 … 5.0"


def test_markdown_table_has_as_many_cells_as_its_header() -> None:
    section = Section("Title", ("a", "b"), (("1", "2"), ("3", "4")))
    lines = section.markdown().splitlines()
    assert lines[0] == "### Title"
    assert {line.count("|") for line in lines[2:]} == {3}
    assert section.text().splitlines() == ["[Title]", "a  b", "1  2", "3  4"]
