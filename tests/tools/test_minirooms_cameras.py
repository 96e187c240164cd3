"""Cameras: geometry by the house convention, views inside their limits.  No renderer is needed: the
room is an empty box with known walls."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.minirooms.cameras import (
    BINS,
    Camera,
    Photographer,
    bins_of_room,
    covisible_share,
    difficulty,
    intrinsics,
    look_at,
    pixel_grid,
    project,
    rotation_between,
    six_views,
    unproject,
)
from tools.minirooms.room import Room, Segment

_SIZE = (5.0, 4.0, 2.6)


def _room() -> Room:
    corners = [(0.0, 0.0), (5.0, 0.0), (5.0, 4.0), (0.0, 4.0)]
    walls = tuple(Segment(a, b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True))
    return Room("box", "living", _SIZE, None, walls)


def _cast(K: np.ndarray, T: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact depth in the box; its six sides are six labels, cut into a chessboard of 1 m."""
    centre = -T[:3, :3].T @ T[:3, 3]
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ np.linalg.inv(K).T @ T[:3, :3]
    with np.errstate(divide="ignore"):
        reach = np.where(rays > 0, (np.array(_SIZE) - centre) / rays, -centre / rays)
    side = reach.argmin(axis=1)
    z = reach.min(axis=1)
    points = centre + rays * z[:, None]
    tile = np.floor(points).sum(axis=1).astype(int) % 2
    return z, 2 * side + tile


@pytest.fixture(scope="module")
def views() -> list[Camera]:
    rng = np.random.default_rng(1)
    interest = rng.uniform(0.5, 3.5, (6, 3)) * [1, 1, 0.5]
    return six_views(Photographer(_room(), _cast, interest, rng, size=64), 4)


def test_views_do_not_leave_their_limits(views: list[Camera]) -> None:
    assert len(views) == 6
    assert tuple(view.bin for view in views) == ("reference", *bins_of_room(4))
    for view in views:
        x, y, z = view.centre
        assert 0.3 <= x <= 4.7
        assert 0.3 <= y <= 3.7
        assert 0.5 <= z <= 2.35
        assert 55 <= view.fov_deg <= 75
        assert 0.6 <= view.exposure[0] <= 1.7
        assert all(0.8 <= gain <= 1.2 for gain in view.exposure[1:])
    for view in views[1:]:
        rotation = rotation_between(view.T_cam_world, views[0].T_cam_world)
        baseline = float(np.linalg.norm(view.centre - views[0].centre))
        assert rotation == pytest.approx(view.rotation_deg)
        assert baseline == pytest.approx(view.baseline_m)
        assert 5 <= rotation <= 60
        assert 0.2 <= baseline <= 2.5
        assert difficulty(rotation, baseline) == view.bin
        assert covisible_share(views[0], view, _cast, 64, 112) >= 0.15


def test_exposures_do_not_agree_in_a_room(views: list[Camera]) -> None:
    assert len({view.exposure for view in views}) == 6


def test_covisible_share_of_itself_is_not_below_one(views: list[Camera]) -> None:
    assert covisible_share(views[0], views[0], _cast, 64) == 1.0


def test_hidden_points_are_not_covisible() -> None:
    K = intrinsics(60, 64)
    back_to_back = [
        Camera(K, look_at(np.array([2.5, 2.0, 1.2]), np.array([t, 2.0, 1.2])), 60) for t in (5.0, 0.0)
    ]
    assert covisible_share(back_to_back[0], back_to_back[1], _cast, 64) == 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_projection_does_not_lose_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T = look_at(rng.normal(size=3), rng.normal([4, 0, 0], 1), float(rng.normal(0, 0.1)))
    K = intrinsics(float(rng.uniform(55, 75)), 448)
    pixels, z = rng.uniform(0, 448, (20, 2)), rng.uniform(0.5, 8, 20)
    back, depth = project(K, T, unproject(K, T, pixels, z))
    np.testing.assert_allclose(back, pixels, atol=1e-8)
    np.testing.assert_allclose(depth, z, atol=1e-10)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)


def test_axes_are_not_flipped() -> None:
    """A level camera at the origin looking along world x: right is -y, down is -z."""
    T = look_at(np.zeros(3), np.array([1.0, 0, 0]))
    pixels, z = project(intrinsics(60, 100), T, np.array([[2.0, -0.5, 0.0], [2.0, 0.0, -0.5]]))
    assert (z > 0).all()
    assert pixels[0][0] > 50
    assert pixels[0][1] == pytest.approx(50)
    assert pixels[1][1] > 50
    assert pixels[1][0] == pytest.approx(50)


def test_field_of_view_is_not_half() -> None:
    K = intrinsics(60, 448)
    edge = np.linalg.inv(K) @ [0, 224, 1]
    assert math.degrees(math.atan(-edge[0])) == pytest.approx(30)


def test_pixel_centres_are_not_at_integers() -> None:
    np.testing.assert_array_equal(
        pixel_grid(4, 4)[:5], [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [3.5, 0.5], [0.5, 1.5]]
    )
    # A grid half as fine: points (2j+1, 2i+1) of the image.
    np.testing.assert_array_equal(pixel_grid(4, 2), [[1, 1], [3, 1], [1, 3], [3, 3]])


def test_bins_are_not_unbalanced() -> None:
    counts = [sum(b == name for n in range(14) for b in bins_of_room(n)) for name in BINS]
    assert max(counts) - min(counts) <= 1
    assert difficulty(4.9, 1.0) is None
    assert difficulty(61, 1.0) is None
    assert [difficulty(r, 0.3) for r in (10, 30, 50)] == list(BINS)
    assert difficulty(10, 2.4) == "wide"
