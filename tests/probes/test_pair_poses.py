"""From matches and depth to a metric pose: exact where the inputs are, a reported failure elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.data.samples import PairSample
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, unproject_depth
from dune_bench.geometry.poses import geodesic_deg, invert, pose
from dune_bench.geometry.robust import Failure
from dune_bench.probes.pair_matches import PairMatches
from dune_bench.probes.pair_poses import PairPose, PoseConstants, lift, relative_pose
from tests.probes.fake_room import SIZE, intrinsics, pair, relative, true_matches, turn

CONSTANTS = PoseConstants(threshold_px=4.0, min_inliers=6, max_iterations=1000, min_iterations=50)
CAMERA = Camera(intrinsics(), SIZE)


def solve(
    sample: PairSample, matches: PairMatches, cameras: tuple[Camera, Camera] = (CAMERA, CAMERA)
) -> PairPose | Failure:
    maps = (sample.view1.depth.astype(np.float64), sample.view2.depth.astype(np.float64))
    return relative_pose(matches, maps, cameras, CONSTANTS)


def errors(found: PairPose | Failure, T_2_1: np.ndarray) -> tuple[float, float]:
    """Rotation in degrees, distance of the camera centres in metres."""
    assert isinstance(found, PairPose), found
    centres = invert(found.T_2_1)[:3, 3] - invert(T_2_1)[:3, 3]
    return float(geodesic_deg(found.T_2_1[:3, :3], T_2_1[:3, :3])), float(np.linalg.norm(centres))


@settings(max_examples=15, deadline=None)
@given(
    yaw=st.floats(-25, 25),
    pitch=st.floats(-8, 8),
    t=st.tuples(st.floats(-0.5, 0.5), st.floats(-0.3, 0.3), st.floats(-0.5, 0.5)),
    seed=st.integers(0, 100),
)
def test_true_depth_and_true_matches_give_the_true_pose(
    yaw: float, pitch: float, t: tuple[float, float, float], seed: int
) -> None:
    sample = pair(pose(turn(yaw, pitch), np.array(t)))
    degrees, metres = errors(solve(sample, true_matches(sample, seed=seed)), relative(sample))
    assert degrees < 0.01
    assert metres < 1e-3


def test_outliers_do_not_move_the_pose() -> None:
    sample = pair()
    matches = true_matches(sample)
    wrong = np.random.default_rng(1).uniform(0, SIZE[::-1], (len(matches), 2))
    mixed = np.where((np.arange(len(matches)) % 2 == 0)[:, None], wrong, matches.points2)
    degrees, metres = errors(solve(sample, replace(matches, points2=mixed)), relative(sample))
    assert degrees < 0.5
    assert metres < 0.02


def test_intrinsics_of_the_original_size_with_points_of_the_network_size_do_not_pass() -> None:
    """The published trap: the pose of such a mixture is far off, and the true one is not."""
    sample = pair()
    matches = true_matches(sample)
    shrunk = replace(matches, points1=matches.points1 * 0.75, points2=matches.points2 * 0.75)
    network = CAMERA.resized((SIZE[0] * 3 // 4, SIZE[1] * 3 // 4))
    found = solve(sample, shrunk)
    if not isinstance(found, Failure):
        degrees, metres = errors(found, relative(sample))
        assert degrees > 1.0 or metres > 0.05
    right = errors(solve(sample, shrunk, (network, network)), relative(sample))
    assert right[0] < 0.1
    assert right[1] < 0.01


def test_points_of_another_size_are_refused_where_they_leave_the_image() -> None:
    sample = pair()
    matches = true_matches(sample)
    grown = replace(matches, points1=matches.points1 * 1.5, points2=matches.points2 * 1.5)
    with pytest.raises(TaskError, match="in pixels of another size"):
        solve(sample, grown)


def test_intrinsics_of_another_size_are_refused() -> None:
    with pytest.raises(TaskError, match="intrinsics of another size"):
        Camera(intrinsics((400, 600)), SIZE)


def test_depth_of_the_second_view_is_used_where_the_first_has_none() -> None:
    sample = pair()
    blind = replace(sample, view1=replace(sample.view1, depth=np.zeros(SIZE, np.float32)))
    degrees, metres = errors(solve(blind, true_matches(sample)), relative(sample))
    assert degrees < 0.2
    assert metres < 0.02


def test_a_pair_without_depth_is_a_failure_and_not_a_pose() -> None:
    sample = pair()
    nothing = np.full(SIZE, np.nan)
    found = relative_pose(true_matches(sample), (nothing, nothing), (CAMERA, CAMERA), CONSTANTS)
    assert isinstance(found, Failure)
    assert "0 matches" in found.reason


@pytest.mark.parametrize("count", [0, 3, 5])
def test_too_few_matches_are_a_failure(count: int) -> None:
    found = solve(pair(), true_matches(pair(), count))
    assert isinstance(found, Failure)


def test_pure_rotation_has_a_pose() -> None:
    sample = pair(pose(turn(20.0), np.zeros(3)))
    degrees, metres = errors(solve(sample, true_matches(sample)), relative(sample))
    assert degrees < 0.01
    assert metres < 1e-3


def test_one_plane_has_a_pose() -> None:
    """All matches on the wall ahead, which defeats an essential matrix."""
    sample = pair(pose(turn(5.0), np.array([0.3, 0.0, 0.1])))
    matches = true_matches(sample, 4000)
    points = lift(matches.points1, sample.view1.depth, CAMERA)
    world = points @ sample.view1.T_cam_world[:3, :3] + invert(sample.view1.T_cam_world)[:3, 3]
    wall = np.abs(world[:, 2] - 2.5) < 1e-3
    assert wall.sum() > 100
    plane = PairMatches(matches.points1[wall], matches.points2[wall], matches.similarity[wall])
    degrees, metres = errors(solve(sample, plane), relative(sample))
    assert degrees < 0.01
    assert metres < 1e-3


def test_lift_agrees_with_the_whole_map_at_pixel_centres() -> None:
    sample = pair()
    everything = unproject_depth(intrinsics(), sample.view1.depth)
    rows, columns = np.array([0, 50, 95]), np.array([3, 64, 127])
    got = lift(np.stack([columns, rows], 1) + 0.5, sample.view1.depth, CAMERA)
    np.testing.assert_allclose(got, everything[rows, columns], rtol=1e-12)


def test_lift_does_not_depend_on_the_depth_maps_size() -> None:
    points = np.array([[40.0, 30.0], [64.0, 48.0], [100.0, 60.0]])
    fine, coarse = (lift(points, pair(size=s).view1.depth, CAMERA) for s in ((384, 512), (96, 128)))
    np.testing.assert_allclose(fine, coarse, atol=2e-2)


@pytest.mark.parametrize("hole", [0.0, -1.0, np.nan, np.inf])
def test_depth_is_not_blended_with_a_hole(hole: float) -> None:
    depth = np.full(SIZE, 2.0)
    depth[10, 10] = hole
    points = np.array([[10.6, 10.6], [10.5, 10.5], [11.4, 10.5], [12.0, 12.0]])
    got = lift(points, depth, CAMERA)
    assert np.isnan(got[:3]).all()
    assert got[3, 2] == 2.0


def test_depth_of_another_shape_is_refused() -> None:
    with pytest.raises(TaskError, match="is not of an image"):
        lift(np.array([[1.0, 1.0]]), np.ones((96, 96)), CAMERA)
