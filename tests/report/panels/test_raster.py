"""The rasteriser against ray casting one pixel and one triangle at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dune_bench.report.panels import raster
from dune_bench.report.panels.raster import cast, splat

Floats = NDArray[np.float64]
K = np.array([[20.0, 0, 12], [0, 22, 10], [0, 0, 1]])
SIZE = (20, 24)


def hit(origin: Floats, direction: Floats, triangle: Floats) -> float:
    """Distance along a ray to a triangle (Möller and Trumbore), inf without a hit."""
    a, e1, e2 = triangle[0], triangle[1] - triangle[0], triangle[2] - triangle[0]
    p = np.cross(direction, e2)
    det = e1 @ p
    if abs(det) < 1e-12:
        return np.inf
    u = (origin - a) @ p / det
    q = np.cross(origin - a, e1)
    v = direction @ q / det
    inside = u >= 0 and v >= 0 and u + v <= 1
    return float(e2 @ q / det) if inside else np.inf


def cast_slowly(triangles: Floats) -> tuple[NDArray[np.int64], Floats]:
    """First triangle and z of each pixel's ray of a pinhole camera."""
    first, depth = np.full(SIZE, -1), np.full(SIZE, np.inf)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            ray = np.linalg.inv(K) @ (column + 0.5, row + 0.5, 1)
            distances = [hit(np.zeros(3), ray, triangle) for triangle in triangles]
            if distances and min(distances) < np.inf:
                first[row, column] = int(np.argmin(distances))
                depth[row, column] = min(distances)
    return first, depth


def projected(triangles: Floats) -> tuple[Floats, Floats]:
    points = triangles @ K.T
    return points[..., :2] / points[..., 2:], triangles[..., 2]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_first_hits_equal_ray_casting(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    triangles = rng.uniform((-2, -2, 1), (2, 2, 6), (count, 3, 3))
    hits = cast(*projected(triangles), SIZE)
    first, depth = cast_slowly(triangles)
    # On an edge, to the last bit, the two may differ.
    same = hits.triangle == first
    assert same.mean() > 0.995
    np.testing.assert_allclose(hits.depth[same], depth[same], rtol=1e-9)
    mask = same & (first >= 0)
    points = (hits.weights[mask][..., None] * triangles[first[mask]]).sum(1)
    rays = np.stack(np.meshgrid(np.arange(24) + 0.5, np.arange(20) + 0.5), -1)[mask]
    np.testing.assert_allclose(points @ K.T / points[:, 2:], np.c_[rays, np.ones(len(rays))], atol=1e-7)


def test_result_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    triangles = rng.uniform((-2, -2, 1), (2, 2, 6), (40, 3, 3))
    whole = cast(*projected(triangles), SIZE)
    monkeypatch.setattr(raster, "_CANDIDATES", 50)
    parts = cast(*projected(triangles), SIZE)
    np.testing.assert_array_equal(whole.triangle, parts.triangle)
    np.testing.assert_array_equal(whole.depth, parts.depth)
    np.testing.assert_array_equal(whole.weights, parts.weights)


def test_of_two_equal_triangles_the_lower_one_shows() -> None:
    one = np.array([[-2.0, -2, 3], [2, -2, 3], [0, 2, 3]])
    hits = cast(*projected(np.stack([one, one])), SIZE)
    assert set(np.unique(hits.triangle)) == {-1, 0}


@pytest.mark.parametrize("z", [-1.0, 0.0, 0.01, np.nan], ids=str)
def test_nothing_behind_the_camera_shows(z: float) -> None:
    triangle = np.array([[[-2.0, -2, z], [2, -2, 3], [0, 2, 3]]])
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = cast(*projected(triangle), SIZE)
    assert not hits.mask.any()
    assert np.isinf(hits.depth).all()


def test_triangle_beside_the_image_and_empty_input_are_no_crash() -> None:
    far = np.array([[[50.0, 0, 3], [51, 0, 3], [50, 1, 3]], [[-50.0, 0, 3], [-51, 0, 3], [-50, 1, 3]]])
    assert not cast(*projected(far), SIZE).mask.any()
    assert not cast(np.zeros((0, 3, 2)), np.zeros((0, 3)), SIZE).mask.any()


def test_parallel_rays_interpolate_depth_linearly() -> None:
    corners = np.array([[[0.0, 0], [24, 0], [0, 40]]])
    depths = np.array([[-5.0, -2.6, 3.0]])  # parallel rays have no camera to be behind of
    hits = cast(corners, depths, SIZE, parallel=True)
    rows, columns = np.nonzero(hits.mask)
    expected = -5 + (columns + 0.5) * 0.1 + (rows + 0.5) * 0.2
    np.testing.assert_allclose(hits.depth[rows, columns], expected, atol=1e-9)


def test_nearest_point_wins_its_pixel() -> None:
    pixels = np.array([[3.2, 4.9], [3.9, 4.1], [30.0, 4], [np.nan, 1], [5, 5]])
    depths = np.array([2.0, 1.0, 1.0, 1.0, -1.0])
    shown = splat(pixels, depths, SIZE)
    assert shown[4, 3] == 1
    assert (shown >= 0).sum() == 1


def test_large_points_cover_a_square_around_them() -> None:
    shown = splat(np.array([[10.5, 8.5]]), np.array([1.0]), SIZE, side=3)
    assert (shown >= 0).sum() == 9
    assert (shown[7:10, 9:12] == 0).all()
