"""Views that seek out people.  No renderer is needed: the room is an empty box with balls for heads."""

from collections.abc import Iterator

import numpy as np
import pytest

from dune_bench.errors import TaskError
from tests.tools.test_minirooms_cameras import _cast, _room
from tools.minirooms.cameras import (
    Camera,
    Photographer,
    covisible_share,
    intrinsics,
    look_at,
    project,
    rotation_between,
)
from tools.minirooms.classes import INDEX
from tools.minirooms.people_views import BIN, heads_seen, people_views

_HEADS = np.array([[1.0, 1.2, 1.6], [2.5, 2.8, 1.2], [4.0, 1.0, 1.7]])
_RADIUS = 0.12
# The box's labels are small numbers: they must not be those of people.
_OTHER = 40


def _with_heads(K: np.ndarray, T: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box with a ball around each head."""
    z, label = _cast(K, T, pixels)
    label = label + _OTHER
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ np.linalg.inv(K).T
    for middle in _HEADS @ T[:3, :3].T + T[:3, 3]:
        along = rays @ middle / (rays**2).sum(axis=1)
        miss = np.linalg.norm(rays * along[:, None] - middle, axis=1)
        near = along - np.sqrt(np.maximum(_RADIUS**2 - miss**2, 0)) / np.linalg.norm(rays, axis=1)
        hit = (miss < _RADIUS) & (near > 0) & (near < z)
        z, label = np.where(hit, near, z), np.where(hit, INDEX["person"], label)
    return z, label


def _photographer(seed: int) -> Photographer:
    rng = np.random.default_rng(seed)
    return Photographer(_room(), _with_heads, np.repeat(_HEADS, 2, axis=0), rng, size=64)


def test_a_hidden_head_does_not_count() -> None:
    camera = _photographer(0).reference()
    seen = heads_seen(camera, _with_heads, _HEADS, 64)
    assert seen.any()
    near = np.full(len(_HEADS), 0.3)

    def wall(K: np.ndarray, T: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return near[: len(pixels)], np.full(len(pixels), _OTHER)

    def somebody(K: np.ndarray, T: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return near[: len(pixels)], np.full(len(pixels), INDEX["person"])

    assert not heads_seen(camera, wall, _HEADS, 64).any()
    # A person's pixel, but not at the head's distance.
    assert not heads_seen(camera, somebody, _HEADS, 64).any()


def test_a_head_outside_the_image_does_not_count() -> None:
    camera = _photographer(0).reference()
    where, z = project(camera.K, camera.T_cam_world, _HEADS)
    behind = camera.centre - 2 * (camera.T_cam_world[2, :3])
    outside = (z <= 0) | (where < 0).any(axis=1) | (where >= 64).any(axis=1)

    def always(K: np.ndarray, T: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(pixels), 50.0), np.full(len(pixels), INDEX["person"])

    assert (heads_seen(camera, always, _HEADS, 64) == ~outside).all()
    assert not heads_seen(camera, always, behind[None], 64).any()


@pytest.mark.parametrize("seed", range(4))
def test_no_view_shows_nobody(seed: int) -> None:
    views = people_views(_photographer(seed), _HEADS, 2)
    assert len(views) == 2
    assert all(heads_seen(view, _with_heads, _HEADS, 64).any() for view in views)
    assert len({view.exposure for view in views}) == 2
    assert {view.bin for view in views} == {BIN}


def test_relations_to_the_first_view_are_not_those_of_a_reference() -> None:
    first, second = people_views(_photographer(1), _HEADS, 2)
    assert (first.covisible, first.rotation_deg, first.baseline_m) == (1.0, 0.0, 0.0)
    assert second.rotation_deg == pytest.approx(rotation_between(second.T_cam_world, first.T_cam_world))
    assert second.baseline_m == pytest.approx(np.linalg.norm(second.centre - first.centre))
    assert second.covisible == pytest.approx(covisible_share(first, second, _with_heads, 64))


class _TwoViews(Photographer):
    """Offers the same two views, of equal quality, whenever it is asked."""

    def __init__(self, cameras: list[Camera]) -> None:
        super().__init__(_room(), _cast_heads, _HEADS, np.random.default_rng(0), size=64)
        self._cameras = cameras

    def acceptable(self, tries: int) -> Iterator[tuple[float, Camera]]:
        return iter([(1.0, camera) for camera in self._cameras])


def _cast_heads(K: np.ndarray, T: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full(len(pixels), 50.0), np.full(len(pixels), INDEX["person"])


def test_heads_that_were_shown_do_not_crowd_out_the_others() -> None:
    """Both views show two heads of three: after the first, the one with the new head is worth more."""
    heads = np.array([[-1.0, 3.0, 1.5], [0.0, 3.0, 1.5], [1.0, 3.0, 1.5]])
    K = intrinsics(40, 64)
    left, right = (
        Camera(K, look_at(np.array([x, 0.0, 1.5]), np.array([x, 3.0, 1.5])), 40.0) for x in (-0.5, 0.5)
    )
    assert heads_seen(left, _cast_heads, heads, 64).tolist() == [True, True, False]
    assert heads_seen(right, _cast_heads, heads, 64).tolist() == [False, True, True]
    views = people_views(_TwoViews([left, right]), heads, 3)
    assert [view.centre[0] for view in views] == pytest.approx([-0.5, 0.5, -0.5])


def test_a_room_without_heads_in_view_is_refused() -> None:
    with pytest.raises(TaskError, match="no view shows anybody's head"):
        people_views(_photographer(0), np.array([[50.0, 50.0, 1.5]]), 1)
