"""Intrinsics, projection and its inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.geometry import cameras
from tests.geometry.scenes import SIZE, K

sizes = st.tuples(st.integers(1, 2000), st.integers(1, 2000))


@given(size=sizes, new=sizes, seed=st.integers(0, 99))
def test_scaled_intrinsics_hit_the_scaled_pixel(
    size: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    points = np.random.default_rng(seed).uniform((-1, -1, 1), (1, 1, 4), (20, 3))
    pixels, _ = cameras.project(K, points)
    rescaled, _ = cameras.project(cameras.scale_intrinsics(K, size, new), points)
    np.testing.assert_allclose(rescaled, cameras.scale_points(pixels, size, new), rtol=1e-9, atol=1e-9)


def test_scaling_has_no_half_pixel_error() -> None:
    """The centre of a 4×6 image stays the centre at 2×3: with integer centres it would not."""
    centre = np.array([[100.0, 0, 3.0], [0, 100.0, 2.0], [0, 0, 1.0]])
    half = cameras.scale_intrinsics(centre, (4, 6), (2, 3))
    assert half[0, 2] == 1.5
    assert half[1, 2] == 1.0
    assert cameras.pixel_centres((2, 3))[1, 2].tolist() == [2.5, 1.5]


@given(seed=st.integers(0, 999), batch=st.sampled_from([(), (3,), (2, 3)]))
def test_unproject_inverts_project(seed: int, batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform((-2, -2, 0.1), (2, 2, 9), (*batch, 15, 3))
    skewed = K.copy()
    skewed[0, 1] = 3.0
    Ks = np.broadcast_to(skewed, (*batch, 3, 3))
    pixels, depth = cameras.project(Ks, points)
    np.testing.assert_allclose(cameras.unproject(Ks, pixels, depth), points, atol=1e-9)


def test_point_behind_the_camera_has_no_pixel() -> None:
    pixels, depth = cameras.project(K, np.array([[0.1, 0.2, -2.0], [0.1, 0.2, 0.0], [0.0, 0.0, 2.0]]))
    assert np.isnan(pixels[:2]).all()
    assert pixels[2].tolist() == [270.0, 360.0]
    assert depth.tolist() == [-2.0, 0.0, 2.0]


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, -np.inf])
def test_invalid_depth_is_not_a_point_at_zero(bad: float) -> None:
    depth = np.ones((4, 5))
    depth[1, 2] = bad
    points = cameras.unproject_depth(K, depth)
    assert np.isnan(points[1, 2]).all()
    assert np.isfinite(points).sum() == 19 * 3


def test_depth_map_points_lie_on_pixel_centres() -> None:
    points = cameras.unproject_depth(K[None], np.full((1, 3, 4), 2.0))
    pixels, _ = cameras.project(K, points[0].reshape(-1, 3))
    np.testing.assert_allclose(pixels, cameras.pixel_centres((3, 4)).reshape(-1, 2), atol=1e-9)


def test_camera_refuses_intrinsics_of_another_size() -> None:
    with pytest.raises(TaskError, match="another size"):
        cameras.Camera(K, (336, 252))
    camera = cameras.Camera(K, SIZE)
    small = camera.resized((360, 270))
    with pytest.raises(TaskError, match="resize the camera"):
        camera.unproject(np.ones((360, 270)))
    np.testing.assert_allclose(small.unproject(np.ones((360, 270)))[..., 2], 1.0)
    assert camera.holds(np.array([[0.0, 0.0], [540.0, 720.0], [541.0, 3.0], [np.nan, 1.0]])).tolist() == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "change",
    [((0, 0), -1.0), ((1, 1), 0.0), ((0, 2), np.nan), ((1, 0), 1.0), ((2, 2), 2.0), ((2, 0), 0.1)],
)
def test_bad_intrinsics_are_refused(change: tuple[tuple[int, int], float]) -> None:
    bad = K.copy()
    bad[change[0]] = change[1]
    with pytest.raises(TaskError, match="intrinsics"):
        cameras.check_intrinsics(bad)
    with pytest.raises(TaskError, match="intrinsics"):
        cameras.check_intrinsics(K[:2])
    with pytest.raises(TaskError, match="scale"):
        cameras.scale_intrinsics(K, (0, 4), (2, 2))
