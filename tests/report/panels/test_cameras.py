"""Frusta and plans: right is right, ahead is up, and up is up whatever the tilt."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dune_bench.report.panels.cameras import frame_plan, frustum, level_plan

K = np.array([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]])


def looking(yaw: float, tilt: float) -> NDArray[np.float64]:
    """R_world_cam of an upright camera, world z up; tilt > 0 looks up."""
    ahead = np.array([np.cos(tilt) * np.cos(yaw), np.cos(tilt) * np.sin(yaw), np.sin(tilt)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0])
    return np.stack([right, np.cross(ahead, right), ahead], 1)


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-0.6, 0.6)), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_up_is_found_from_tilted_cameras(views: list[tuple[float, float]], seed: int) -> None:
    rotations = [looking(yaw, tilt) for yaw, tilt in views]
    # Any frame: the same cameras turned.
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    turn = q * np.sign(np.linalg.det(q))
    plan = level_plan([turn @ R for R in rotations])
    up = turn @ (0, 0, 1)
    spread = np.linalg.svd(np.stack([R[:, 0] for R in rotations]))[1][1]
    if spread > 0.5:  # views in clearly different directions: nearly exact
        assert plan.up @ up > np.cos(np.radians(6))
    assert plan.up @ up > np.cos(0.65)  # never worse than the largest tilt
    np.testing.assert_allclose(np.cross(plan.right, plan.ahead), plan.up, atol=1e-9)
    assert plan.ahead @ (turn @ rotations[0][:, 2]) > 0


def test_plan_of_one_level_camera_is_its_own() -> None:
    plan = level_plan([np.eye(3)])
    np.testing.assert_allclose(plan.up, (0, -1, 0), atol=1e-9)
    np.testing.assert_allclose(plan.flat(np.array([[1.0, 5, 2]])), [[1, 2]], atol=1e-9)


def test_camera_that_looks_straight_down_still_has_a_plan() -> None:
    plan = level_plan([looking(0.3, -np.pi / 2 + 1e-9)])
    assert np.isfinite(plan.ahead).all()
    np.testing.assert_allclose(np.linalg.norm(plan.ahead), 1)


def test_frustum_corners_project_to_the_image_corners() -> None:
    T = np.eye(4)
    T[:3, 3] = (1, 2, 3)
    corners = frustum(K, (60, 80), T, 2.0)
    np.testing.assert_allclose(corners[0], (1, 2, 3))
    local = corners[1:] - (1, 2, 3)
    np.testing.assert_allclose(local[:, 2], 2)
    pixels = (local / local[:, 2:] @ K.T)[:, :2]
    np.testing.assert_allclose(pixels, [[0, 0], [80, 0], [80, 60], [0, 60]], atol=1e-9)


def test_plan_has_one_scale_both_ways_and_shows_every_point() -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    points = np.array([[-4.0, 0], [1, 0.5]])
    box = frame_plan(axes, points, (5.0, 4.0))
    spans = box[:, 1] - box[:, 0]
    np.testing.assert_allclose(spans[1] / spans[0], 0.8)
    assert (points >= box[:, 0]).all()
    assert (points <= box[:, 1]).all()
