"""Similarity alignment: recovers what was applied, beats any perturbation, never reflects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from dune_bench.errors import TaskError
from dune_bench.geometry.poses import geodesic_deg
from dune_bench.geometry.procrustes import align

seeds = st.integers(0, 5000)


@given(seed=seeds, planar=st.booleans(), scale=st.floats(0.01, 100))
def test_applied_similarity_is_recovered(seed: int, planar: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(4, 9, 3))
    if planar:
        source[..., 2] = 0.3
    R = Rotation.random(4, rng=rng).as_matrix()
    t = rng.normal(size=(4, 3))
    target = scale * np.einsum("bij,bnj->bni", R, source) + t[:, None]
    found = align(source, target)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-9)
    np.testing.assert_allclose(found.R, R, atol=1e-8)
    np.testing.assert_allclose(found.apply(source), target, atol=1e-8 * max(scale, 1))


def cost(x: np.ndarray, source: np.ndarray, target: np.ndarray, w: np.ndarray, rigid: bool) -> float:
    factor = 1.0 if rigid else np.exp(x[6])
    moved = factor * Rotation.from_rotvec(x[:3]).apply(source) + x[3:6]
    return float((w[:, None] * (moved - target) ** 2).sum())


@pytest.mark.parametrize("rigid", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_numerical_minimum(seed: int, rigid: bool) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(2, 7, 3))
    w = rng.uniform(0.1, 2, 7)
    found = align(source, target, w, scale=not rigid)
    ours = float((w[:, None] * (found.apply(source) - target) ** 2).sum())
    starts = rng.normal(size=(12, 7))
    best = min(minimize(cost, x, (source, target, w, rigid)).fun for x in starts)
    assert ours == pytest.approx(best, rel=1e-6)


@given(seed=seeds)
def test_mirror_image_is_not_matched_by_a_reflection(seed: int) -> None:
    source = np.random.default_rng(seed).normal(size=(8, 3))
    found = align(source, source * (-1, 1, 1))
    assert np.linalg.det(found.R) == pytest.approx(1)
    assert np.abs(found.apply(source) - source * (-1, 1, 1)).max() > 1e-3


def test_weight_zero_is_the_same_as_leaving_the_point_out() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(2, 9, 3))
    target[2] = np.nan
    weights = np.ones(9)
    weights[2] = 0
    kept = np.delete(np.arange(9), 2)
    with_zero, without = align(source, target, weights), align(source[kept], target[kept])
    assert geodesic_deg(with_zero.R, without.R) < 1e-9
    np.testing.assert_allclose(with_zero.t, without.t)
    integer = align(source[kept], target[kept], np.array([3.0, 1, 1, 1, 1, 1, 1, 1]))
    repeated = np.array([0, 0, *range(8)])
    np.testing.assert_allclose(align(source[kept][repeated], target[kept][repeated]).R, integer.R, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_points_on_a_line_leave_the_rotation_open(count: int) -> None:
    line = np.outer(np.arange(count), [1.0, 2.0, 3.0]) + 5
    found = align(line, line)
    assert np.isnan(found.R).all()
    assert np.isnan(found.scale)
    assert np.isnan(found.t).all()


def test_bad_input_is_refused() -> None:
    points = np.random.default_rng(0).normal(size=(5, 3))
    with pytest.raises(TaskError, match="finite"):
        align(points, points * np.nan)
    with pytest.raises(TaskError, match="weights"):
        align(points, points, -np.ones(5))
    with pytest.raises(TaskError, match="shapes"):
        align(points, points[:4])
