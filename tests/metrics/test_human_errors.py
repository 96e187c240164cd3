from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from dune_bench.errors import TaskError
from dune_bench.metrics.human_errors import (
    ERRORS,
    Body,
    body_errors,
    procrustes_aligned_mm,
    root_aligned_mm,
)

seeds = st.integers(0, 2**31)


def random_body(rng: np.random.Generator, vertices: int = 30, joints: int = 8) -> Body:
    at = rng.normal(0, 2, 3)
    return Body(at + rng.normal(0, 0.4, (vertices, 3)), at + rng.normal(0, 0.4, (joints, 3)), at)


def by_loop(points: np.ndarray, truth: np.ndarray, root: np.ndarray, true_root: np.ndarray) -> float:
    total = 0.0
    for p, t in zip(points, truth, strict=True):
        total += sum(((p[k] - root[k]) - (t[k] - true_root[k])) ** 2 for k in range(3)) ** 0.5
    return 1000 * total / len(points)


@given(seeds)
def test_root_aligned_errors_equal_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_body(rng), random_body(rng)
    errors = body_errors(a, b)
    assert errors["pve_mm"] == pytest.approx(by_loop(a.vertices, b.vertices, a.pelvis, b.pelvis), abs=1e-6)
    assert errors["mpjpe_mm"] == pytest.approx(by_loop(a.joints, b.joints, a.pelvis, b.pelvis), abs=1e-6)
    assert errors["depth_error_m"] == pytest.approx(abs(a.pelvis[2] - b.pelvis[2]))
    assert tuple(errors) == ERRORS


def horn(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`points` under the best similarity, by unit quaternions (Horn 1987): no SVD, no reflections."""
    p, t = points - points.mean(0), truth - truth.mean(0)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = p.T @ t
    N = np.array(
        [
            [xx + yy + zz, yz - zy, zx - xz, xy - yx],
            [yz - zy, xx - yy - zz, xy + yx, zx + xz],
            [zx - xz, xy + yx, -xx + yy - zz, yz + zy],
            [xy - yx, zx + xz, yz + zy, -xx - yy + zz],
        ]
    )
    values, vectors = np.linalg.eigh(N)
    w, x, y, z = vectors[:, -1]
    R = Rotation.from_quat([x, y, z, w]).as_matrix()
    return (values[-1] / (p**2).sum()) * p @ R.T + truth.mean(0)


@given(seeds)
def test_procrustes_error_equals_horns_quaternions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, truth = rng.normal(0, 0.4, (12, 3)), rng.normal(0, 0.4, (12, 3))
    expected = 1000 * np.linalg.norm(horn(points, truth) - truth, axis=-1).mean()
    assert procrustes_aligned_mm(points, truth) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_no_search_over_similarities_finds_a_better_alignment(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points, truth = rng.normal(0, 0.4, (12, 3)), rng.normal(0, 0.4, (12, 3))

    def squared(x: np.ndarray) -> float:
        R = Rotation.from_rotvec(x[:3]).as_matrix()
        return float(((np.exp(x[3]) * points @ R.T + x[4:] - truth) ** 2).sum())

    starts = [np.concatenate([r, np.zeros(4)]) for r in Rotation.random(6, rng=rng).as_rotvec()]
    with np.errstate(over="ignore"):  # a line search may try any scale
        found = min(minimize(squared, s, method="BFGS").fun for s in starts)
    assert ((horn(points, truth) - truth) ** 2).sum() == pytest.approx(found, rel=1e-5)


@given(seeds, st.floats(0.1, 10))
def test_aligned_errors_do_not_see_a_similarity(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    moved = scale * a @ Rotation.random(rng=rng).as_matrix().T + rng.normal(0, 5, 3)
    assert procrustes_aligned_mm(moved, b) == pytest.approx(procrustes_aligned_mm(a, b), abs=1e-6)
    assert procrustes_aligned_mm(moved, a) == pytest.approx(0, abs=1e-6)


@given(seeds)
def test_root_aligned_errors_see_rotation_and_scale_but_not_place(seed: int) -> None:
    rng = np.random.default_rng(seed)
    b = random_body(rng)
    shift = rng.normal(0, 3, 3)
    moved = Body(b.vertices + shift, b.joints + shift, b.pelvis + shift)
    errors = body_errors(moved, b)
    assert errors["pve_mm"] == pytest.approx(0, abs=1e-6)
    assert errors["depth_error_m"] == pytest.approx(abs(shift[2]))
    assert root_aligned_mm(1.1 * b.vertices, b.vertices, 1.1 * b.pelvis, b.pelvis) > 1


def test_mirrored_body_is_not_aligned_by_reflection() -> None:
    truth = np.random.default_rng(0).normal(size=(40, 3))
    assert procrustes_aligned_mm(truth * [-1, 1, 1], truth) > 100


def test_two_points_off_by_hand() -> None:
    truth = np.array([[0.0, 0, 5], [0, 1, 5]])
    moved = np.array([[0.003, 0.004, 5], [0, 1, 5]])
    pelvis = np.array([0.0, 0, 5])
    assert root_aligned_mm(moved, truth, pelvis, pelvis) == pytest.approx(2.5)
    assert root_aligned_mm(moved, truth, pelvis + np.array([0.003, 0.004, 0]), pelvis) == pytest.approx(2.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("part", ["vertices", "joints", "pelvis"])
def test_nan_body_is_refused_not_a_zero_error(bad: float, part: str) -> None:
    rng = np.random.default_rng(1)
    a, b = random_body(rng), random_body(rng)
    getattr(a, part).flat[-1] = bad
    for pair, who in (((a, b), "predicted"), ((b, a), "true")):
        with pytest.raises(TaskError, match=f"{who} body holds NaN"):
            body_errors(*pair)


def test_collapsed_or_other_topology_is_refused() -> None:
    truth = np.random.default_rng(2).normal(size=(10, 3))
    with pytest.raises(TaskError, match="no Procrustes alignment"):
        procrustes_aligned_mm(np.zeros((10, 3)), truth)
    with pytest.raises(TaskError, match="cannot be compared"):
        procrustes_aligned_mm(truth[:9], truth)
    with pytest.raises(TaskError, match="cannot be compared"):
        procrustes_aligned_mm(truth[:0], truth[:0])
