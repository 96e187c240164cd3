"""Robust poses: the truth from true matches, failures that say so, the same answer every time."""

from __future__ import annotations

import numpy as np
import pytest

from dune_bench.errors import TaskError
from dune_bench.geometry import cameras, robust
from dune_bench.geometry.poses import direction_deg, geodesic_deg
from tests.geometry.scenes import SIZE, K, two_views

NETWORK = (448, 336)


def spoil(pixels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Replaces a share of the pixels by others anywhere in the image."""
    rng = np.random.default_rng(seed)
    bad = rng.random(len(pixels)) < share
    return np.where(bad[:, None], rng.uniform((0, 0), (SIZE[1], SIZE[0]), pixels.shape), pixels)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("outliers", "degrees", "metres"), [(0.0, 0.01, 1e-3), (0.4, 0.1, 0.01)])
def test_true_matches_give_the_true_pose(
    seed: int, planar: bool, outliers: float, degrees: float, metres: float
) -> None:
    scene = two_views(seed)
    points = scene.points * (1, 1, 0) + (0, 0, 3.0) if planar else scene.points
    moved = points @ scene.T_2_1[:3, :3].T + scene.T_2_1[:3, 3]
    pixels = spoil(cameras.project(K, moved)[0], outliers, seed)
    found = robust.absolute_pose(points, pixels, K)
    assert isinstance(found, robust.AbsolutePose)
    assert geodesic_deg(found.T_cam_world[:3, :3], scene.T_2_1[:3, :3]) < degrees
    assert np.linalg.norm(found.T_cam_world[:3, 3] - scene.T_2_1[:3, 3]) < metres
    assert found.inliers.sum() >= 100


def test_intrinsics_of_another_size_spoil_the_pose() -> None:
    """Points at network size need K at network size; the original's K is off by metres, and no
    exception would say so: `localize` is there for that."""
    scene = two_views(0)
    small = cameras.scale_points(scene.pixels2, SIZE, NETWORK)
    right = robust.absolute_pose(scene.points, small, cameras.scale_intrinsics(K, SIZE, NETWORK))
    back = robust.absolute_pose(scene.points, cameras.scale_points(small, NETWORK, SIZE), K)
    inside = (small >= 0).all(1) & (small <= (336, 448)).all(1)
    camera = cameras.Camera(K, SIZE)
    one_step = robust.localize(scene.points[inside], small[inside], NETWORK, camera)
    for found in (right, back, one_step):
        assert isinstance(found, robust.AbsolutePose)
        assert geodesic_deg(found.T_cam_world[:3, :3], scene.T_2_1[:3, :3]) < 0.01
        assert np.linalg.norm(found.T_cam_world[:3, 3] - scene.T_2_1[:3, 3]) < 1e-3
    wrong = robust.absolute_pose(scene.points, small, K)
    if isinstance(wrong, robust.AbsolutePose):
        assert np.linalg.norm(wrong.T_cam_world[:3, 3] - scene.T_2_1[:3, 3]) > 0.25
    with pytest.raises(TaskError, match="outside an image of 448×336"):
        robust.localize(scene.points, scene.pixels2, NETWORK, camera)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("outliers", "degrees"), [(0.0, 0.01), (0.3, 0.1)])
def test_true_matches_give_the_true_essential_pose_and_scale(
    seed: int, outliers: float, degrees: float
) -> None:
    scene = two_views(seed)
    pixels2 = spoil(scene.pixels2, outliers, seed)
    found = robust.essential_pose(scene.pixels1, pixels2, K, K, robust.RansacOptions(threshold_px=1.0))
    assert isinstance(found, robust.RelativePose)
    assert geodesic_deg(found.R, scene.T_2_1[:3, :3]) < degrees
    assert direction_deg(found.direction, scene.T_2_1[:3, 3]) < 10 * degrees
    length = robust.translation_length(found.R, found.direction, scene.points, scene.in_camera2)
    assert isinstance(length, tuple)
    assert length[0] == pytest.approx(0.5, abs=5e-3)
    assert length[1] == 200  # depth is true at the outliers too


def test_two_focal_lengths_are_each_used() -> None:
    scene = two_views(3)
    wide = cameras.scale_intrinsics(K, SIZE, NETWORK)
    pixels1 = cameras.scale_points(scene.pixels1, SIZE, NETWORK)
    found = robust.essential_pose(pixels1, scene.pixels2, wide, K)
    assert isinstance(found, robust.RelativePose)
    assert geodesic_deg(found.R, scene.T_2_1[:3, :3]) < 0.01


def test_pure_rotation_has_no_direction() -> None:
    scene = two_views(2, distance=0.0)
    pixels2 = scene.pixels2 + np.random.default_rng(0).normal(0, 0.3, scene.pixels2.shape)
    found = robust.essential_pose(scene.pixels1, pixels2, K, K, robust.RansacOptions(threshold_px=1.0))
    assert isinstance(found, robust.RelativePose)
    assert np.isnan(found.direction).all()
    failed = robust.translation_length(found.R, found.direction, scene.points, scene.in_camera2)
    assert isinstance(failed, robust.Failure)


@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_too_few_matches_are_a_failure_with_a_reason(n: int) -> None:
    scene = two_views(0)
    for found in (
        robust.absolute_pose(scene.points[:n], scene.pixels2[:n], K),
        robust.essential_pose(scene.pixels1[:n], scene.pixels2[:n], K, K),
    ):
        assert isinstance(found, robust.Failure)
        assert "matches" in found.reason


def test_nan_matches_are_left_out_and_are_no_inliers() -> None:
    scene = two_views(4)
    points, pixels = scene.points.copy(), scene.pixels2.copy()
    points[:20], pixels[20:40] = np.nan, np.nan
    found = robust.absolute_pose(points, pixels, K)
    assert isinstance(found, robust.AbsolutePose)
    assert not found.inliers[:40].any()
    assert found.inliers[40:].all()
    nothing = robust.absolute_pose(np.full((9, 3), np.nan), scene.pixels2[:9], K)
    assert isinstance(nothing, robust.Failure)


def test_points_on_a_line_are_a_failure() -> None:
    line = np.stack([np.linspace(-1, 1, 50), np.zeros(50), np.full(50, 3.0)], 1)
    found = robust.absolute_pose(line, cameras.project(K, line)[0], K)
    assert isinstance(found, robust.Failure)


def test_random_matches_do_not_give_a_confident_pose() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.uniform((0, 0), (540, 720), (100, 2))
    options = robust.RansacOptions(threshold_px=2.0, min_inliers=12)
    found = robust.absolute_pose(two_views(0, 100).points, pixels, K, options)
    assert isinstance(found, robust.Failure)


def test_same_arguments_same_answer() -> None:
    scene = two_views(6)
    pixels = spoil(scene.pixels2, 0.5, 1)
    first, second = (robust.absolute_pose(scene.points, pixels, K) for _ in range(2))
    assert isinstance(first, robust.AbsolutePose)
    assert isinstance(second, robust.AbsolutePose)
    assert (first.T_cam_world == second.T_cam_world).all()


def test_shapes_and_intrinsics_are_checked() -> None:
    scene = two_views(0)
    with pytest.raises(TaskError, match="belong together"):
        robust.absolute_pose(scene.points, scene.pixels2[:9], K)
    with pytest.raises(TaskError, match="intrinsics"):
        robust.absolute_pose(scene.points, scene.pixels2, K * np.nan)


def test_translation_votes_equal_brute_force() -> None:
    rng = np.random.default_rng(5)
    R, direction = np.eye(3), np.array([0.0, 0.6, 0.8])
    first, second = rng.normal(size=(2, 80, 3))
    votes = (second - first) @ direction
    support = (np.abs(votes[:, None] - votes[None]) < 0.1).sum(1)
    found = robust.translation_length(R, direction, first, second)
    assert isinstance(found, tuple)
    assert found[1] == support.max()
    assert found[0] == min(votes[support == support.max()])
