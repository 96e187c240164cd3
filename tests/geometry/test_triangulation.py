"""Triangulation against a scene whose points are known, and against least squares point by point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import project
from dune_bench.geometry.poses import transform
from dune_bench.geometry.triangulation import triangulate
from tests.geometry.scenes import K, random_pose


def views(seed: int, count: int, n: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = rng.uniform((-1, -1, 3), (1, 1, 6), (n, 3))
    T = np.stack([np.eye(4), *(random_pose(rng, 8, 0.6) for _ in range(count - 1))])
    pixels = np.stack([project(K, transform(pose, points))[0] for pose in T])
    return points, T, pixels


@given(seed=st.integers(0, 500), count=st.integers(2, 5))
@settings(deadline=None)
def test_exact_pixels_give_the_points(seed: int, count: int) -> None:
    points, T, pixels = views(seed, count)
    np.testing.assert_allclose(triangulate(np.stack([K] * count), T, pixels), points, atol=1e-6)


def test_batched_equals_point_by_point_null_space() -> None:
    """With noise, the same as the smallest eigenvector of each point's own system."""
    _, T, pixels = views(3, 3)
    pixels = pixels + np.random.default_rng(0).normal(0, 0.5, pixels.shape)
    together = triangulate(np.stack([K] * 3), T, pixels)
    for i in range(pixels.shape[1]):
        rows = []
        for v in range(3):
            x, y, _ = np.linalg.solve(K, np.array([*pixels[v, i], 1.0]))
            rows += [x * T[v, 2] - T[v, 0], y * T[v, 2] - T[v, 1]]
        A = np.array([row / np.linalg.norm(row) for row in rows])
        X = np.linalg.eigh(A.T @ A)[1][:, 0]
        np.testing.assert_allclose(together[i], X[:3] / X[3], rtol=1e-7)


def test_undetermined_points_are_nan_not_guesses() -> None:
    points, T, pixels = views(1, 3)
    seen = np.ones(pixels.shape[:2], bool)
    seen[1:, 0] = False  # one view left
    pixels[2, 1] = np.nan  # two views left
    got = triangulate(np.stack([K] * 3), T, pixels, seen)
    assert np.isnan(got[0]).all()
    np.testing.assert_allclose(got[1:], points[1:], atol=1e-6)
    same = triangulate(np.stack([K] * 2), np.stack([T[1]] * 2), np.stack([pixels[1]] * 2))
    assert np.isnan(same).all()
    assert triangulate(K[None], T[:1], pixels[:1]).shape == (30, 3)
    assert np.isnan(triangulate(K[None], T[:1], pixels[:1])).all()


def test_point_at_infinity_is_nan() -> None:
    shift = np.eye(4)
    shift[0, 3] = 1.0
    pixel = np.array([[[300.0, 400.0]], [[300.0, 400.0]]])
    assert np.isnan(triangulate(np.stack([K, K]), np.stack([np.eye(4), shift]), pixel)).all()


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(TaskError, match="triangulation"):
        triangulate(np.stack([K] * 3), np.eye(4)[None].repeat(2, 0), np.zeros((2, 4, 2)))
