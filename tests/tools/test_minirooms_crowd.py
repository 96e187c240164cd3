"""People in rooms: none through furniture, walls or each other.  Bodies are plain boxes here."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest

from dune_bench.errors import TaskError
from tests.tools.minirooms_catalogue import flat_relief, synthetic_models
from tools.minirooms.catalogue import Picker, split_pools
from tools.minirooms.crowd import Crowd, Placed, _seat_place, _sinks, edges_hit, pose_matrix
from tools.minirooms.footprints import boxes_overlap
from tools.minirooms.layout import make_room
from tools.minirooms.relief import Relief
from tools.minirooms.room import Room

_CORNERS = np.array(list(itertools.product((-0.25, 0.25), (-0.15, 0.15), (0.0, 1.7))))
_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]])


@dataclass(frozen=True)
class _Body:
    vertices: np.ndarray = field(default_factory=lambda: _CORNERS)
    faces: np.ndarray = field(default_factory=lambda: _FACES)


class _Factory:
    def sample(self, rng: np.random.Generator, action: str, seat_height_m: float | None) -> _Body:
        if action == "sitting":
            raise RuntimeError("a box cannot sit")
        return _Body()


def _nothing(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(origins)), np.full(len(origins), -1)


def _everything(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(origins)), np.zeros(len(origins), int)


def _room(seed: int) -> Room:
    rng = np.random.default_rng([5, seed])
    return make_room("r", Picker(split_pools(synthetic_models(), 0), "train", rng), flat_relief, rng)


@pytest.mark.parametrize("seed", range(6))
def test_people_do_not_stand_in_things(seed: int) -> None:
    room = _room(seed)
    crowd = Crowd(room, _Factory(), flat_relief, _nothing, np.random.default_rng(seed))  # type: ignore[arg-type]
    people = crowd.fill(3)
    assert 2 <= len(people) <= 3
    assert len({person.id for person in people}) == len(people)
    for person in people:
        assert room.contains(person.box)
        assert not any(boxes_overlap(person.box, item.box) for item in room.items)
    for a, b in itertools.combinations(people, 2):
        assert not boxes_overlap(a.box, b.box)


def test_room_without_space_is_not_left_empty() -> None:
    crowd = Crowd(_room(0), _Factory(), flat_relief, _everything, np.random.default_rng(0))  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="0 people fit"):
        crowd.fill(3)


def test_body_is_not_mirrored_or_lifted() -> None:
    placed = Placed("p", _Body(), pose_matrix(1.0, 2.0, np.pi / 2))  # type: ignore[arg-type]
    np.testing.assert_allclose(placed.world(np.array([[0.0, -1.0, 0.5]])), [[2.0, 2.0, 0.5]], atol=1e-12)
    assert np.linalg.det(placed.T_world_body[:3, :3]) == pytest.approx(1)
    assert (placed.box.low, placed.box.high) == (0.0, pytest.approx(1.7))


@pytest.mark.parametrize(("height", "crosses"), [(0.85, True), (1.75, False), (-0.1, False)])
def test_crossing_surface_is_not_missed(height: float, crosses: bool) -> None:
    """The scene is one horizontal plane."""

    def plane(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (height - origins[:, 2]) / directions[:, 2]
        hit = np.isfinite(distance) & (distance >= 0)
        return np.where(hit, distance, 0.0), np.where(hit, 0, -1)

    assert edges_hit(_CORNERS, _FACES, plane) == crosses


def _chair() -> Relief:
    """A seat at 0.45 m with a backrest from y = 0.15 m on; 0.5 x 0.5 m."""
    heights = np.full((20, 20), 0.45)
    heights[16:] = 0.9
    return Relief(heights, 0.25, 0.25)


def test_back_is_not_in_the_backrest() -> None:
    chair, body = _chair(), _Body(vertices=_CORNERS * [0.5, 1, 1])
    assert chair.seat_height() == pytest.approx(0.45)
    y = _seat_place(chair, body, 0.45, 0.0)  # type: ignore[arg-type]
    assert y is not None
    back = y + _CORNERS[:, 1].max()
    assert 0.08 < back < 0.15
    upper = _CORNERS * [0.5, 1, 1] + np.array([0, y, 0.46])
    assert not _sinks(chair, upper, 0.45)
    assert _sinks(chair, upper + np.array([0, 0.1, 0.0]), 0.45)
    assert _sinks(chair, upper - np.array([0, 0, 0.06]), 0.45)


def test_stool_too_small_for_the_back_is_not_taken() -> None:
    relief = Relief(np.full((8, 8), 0.45), 0.1, 0.1)
    deep = _Body(vertices=_CORNERS * [0.5, 3, 1])
    assert _seat_place(relief, deep, 0.45, 0.0) is None  # type: ignore[arg-type]
