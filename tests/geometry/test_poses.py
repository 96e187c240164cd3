"""Rotations, quaternions, rigid poses; the oracle is scipy's Rotation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dune_bench.errors import TaskError
from dune_bench.geometry import poses
from tests.geometry.scenes import random_pose

seeds = st.integers(0, 10_000)
angles = st.one_of(st.floats(0, 180), st.sampled_from([0.0, 1e-9, 1e-6, 179.999999, 180.0]))


def rotations(seed: int, n: int = 8) -> np.ndarray:
    return Rotation.random(n, rng=np.random.default_rng(seed)).as_matrix()


@given(seed=seeds)
def test_quaternion_and_matrix_agree_with_scipy(seed: int) -> None:
    R = rotations(seed)
    q = poses.quaternion_from_rotation(R)
    assert (q[:, 0] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(Rotation.from_quat(q[:, [1, 2, 3, 0]]).as_matrix(), R, atol=1e-12)
    scale = np.random.default_rng(seed).uniform(0.1, 9, (8, 1))
    np.testing.assert_allclose(poses.rotation_from_quaternion(-scale * q), R, atol=1e-12)


@given(seed=seeds, axis=st.integers(0, 2), angle=st.sampled_from([90.0, 180.0, 179.9999, -120.0]))
def test_quaternion_of_a_half_turn_keeps_its_digits(seed: int, axis: int, angle: float) -> None:
    rotvec = np.zeros(3)
    rotvec[axis] = np.radians(angle)
    R = Rotation.from_rotvec(rotvec).as_matrix() @ rotations(seed, 1)[0]
    for matrix in (R, Rotation.from_rotvec(rotvec).as_matrix()):
        back = poses.rotation_from_quaternion(poses.quaternion_from_rotation(matrix))
        np.testing.assert_allclose(back, matrix, atol=1e-12)


@given(seed=seeds, angle=angles)
def test_geodesic_angle_is_exact_at_both_ends(seed: int, angle: float) -> None:
    R = rotations(seed, 1)[0]
    turned = R @ random_pose(np.random.default_rng(seed), angle, 1.0)[:3, :3]
    assert poses.geodesic_deg(R, turned) == pytest.approx(angle, abs=1e-7)
    assert poses.geodesic_deg(turned, R) == pytest.approx(angle, abs=1e-7)


@given(seed=seeds)
def test_invert_and_compose_undo_each_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T = np.stack([random_pose(rng, 77, 3), random_pose(rng, 120, 0.1)])
    points = rng.normal(size=(2, 5, 3))
    np.testing.assert_allclose(
        poses.compose(poses.invert(T), T), np.broadcast_to(np.eye(4), T.shape), atol=1e-12
    )
    np.testing.assert_allclose(
        poses.transform(poses.invert(T), poses.transform(T, points)), points, atol=1e-12
    )
    poses.check_pose(T)


def test_direction_angle_keeps_the_sign() -> None:
    a = np.array([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]])
    b = np.array([[2.0, 0, 0], [-3, 0, 0], [0, 4, 0], [1, 0, 0]])
    np.testing.assert_allclose(poses.direction_deg(a, b), [0, 180, 90, np.nan])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda T: T * np.nan, "finite"),
        (lambda T: T * np.array([2.0, 1, 1, 1])[:, None], "not a rotation"),
        (lambda T: T @ np.diag([-1.0, 1, 1, 1]), "reflection"),
        (lambda T: T + np.eye(4)[[3, 2, 1, 0]] * 0.1, "last row"),
        (lambda T: T[:3], "expected"),
    ],
)
def test_non_rigid_pose_is_refused(change: object, message: str) -> None:
    T = random_pose(np.random.default_rng(0), 30, 1)
    with pytest.raises(TaskError, match=message):
        poses.check_pose(change(T), "query 3")  # type: ignore[operator]


@pytest.mark.parametrize("q", [[0.0, 0, 0, 0], [np.nan, 0, 0, 1], [np.inf, 0, 0, 0]])
def test_zero_quaternion_is_no_rotation(q: list[float]) -> None:
    with pytest.raises(TaskError, match="quaternion"):
        poses.rotation_from_quaternion(np.array(q))
    with pytest.raises(TaskError, match="not a rotation"):
        poses.quaternion_from_rotation(np.eye(3) * 1.1)
