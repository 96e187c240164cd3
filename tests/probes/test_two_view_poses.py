"""True point maps through each solver give the true pose; what has no pose is a failure with a reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import PairSample
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera
from dune_bench.geometry.poses import geodesic_deg, invert, pose
from dune_bench.geometry.robust import Failure
from dune_bench.probes.pair_matches import PairMatches
from dune_bench.probes.pair_points import true_pose
from dune_bench.probes.pair_poses import PairPose, PoseConstants
from dune_bench.probes.two_view_maps import PairMaps
from dune_bench.probes.two_view_poses import (
    DirectConstants,
    EssentialConstants,
    direct_cells,
    direct_pose,
    metric_essential_pose,
    pnp_pose,
)
from tests.probes.fake_room import pair, true_matches, turn
from tests.probes.two_view_world import box_maps, depth_maps, depth_matches, view_maps

RANSAC = {"threshold_px": 0.5, "min_inliers": 6, "max_iterations": 1000, "min_iterations": 50}
"""The box room's images have a focal length of 100 pixels: half a pixel is 0.3°."""
PNP = PoseConstants.model_validate(RANSAC)
DIRECT = DirectConstants.model_validate({**RANSAC, "max_cells": 600, "confident_share": 1.0})
ESSENTIAL = EssentialConstants.model_validate({**RANSAC, "scale_tolerance_m": 0.1, "view2": DIRECT})

Solver = Callable[[PairMatches, PairMaps, tuple[Camera, Camera]], PairPose | Failure]
SOLVERS: dict[str, Solver] = {
    "essential": lambda matches, maps, cameras: metric_essential_pose(matches, maps, cameras, ESSENTIAL),
    "pnp": lambda matches, maps, cameras: pnp_pose(matches, maps, cameras, PNP),
    "pnp-direct": lambda _, maps, cameras: direct_pose(maps, cameras[1], DIRECT),
}
every_solver = pytest.mark.parametrize("solver", list(SOLVERS))
FINE = (96, 128)


def cameras_of(sample: PairSample) -> tuple[Camera, Camera]:
    return Camera(sample.view1.K, sample.view1.image.size), Camera(sample.view2.K, sample.view2.image.size)


def errors(found: PairPose | Failure, sample: PairSample) -> tuple[float, float]:
    """Rotation in degrees, distance of the camera centres in metres."""
    assert isinstance(found, PairPose), found
    T = true_pose(sample)
    away = invert(found.T_2_1)[:3, 3] - invert(T)[:3, 3]
    return float(geodesic_deg(found.T_2_1[:3, :3], T[:3, :3])), float(np.linalg.norm(away))


def scaled(maps: PairMaps, factor1: float, factor2: float) -> PairMaps:
    first, second = (
        replace(view, points=(view.points * factor).astype(np.float32))
        for view, factor in ((maps.view1, factor1), (maps.view2, factor2))
    )
    return PairMaps(first, second)


@every_solver
def test_true_maps_of_rendered_rooms_do_not_miss_the_pose(solver: str) -> None:
    pairs = MiniRooms().samples(PairSample, "train")
    for i in (0, 12, 48):
        sample = pairs[i]
        assert isinstance(sample, PairSample)
        found = SOLVERS[solver](depth_matches(sample), depth_maps(sample), cameras_of(sample))
        degrees, metres = errors(found, sample)
        assert degrees < 0.01
        assert metres < 1e-3


@every_solver
@pytest.mark.parametrize(
    ("yaw", "pitch", "t"),
    [
        (10.0, 3.0, (0.4, 0.1, -0.2)),
        (-20.0, 5.0, (-0.5, 0.2, 0.1)),
        (0.0, -8.0, (0.3, -0.3, 0.5)),
        (25.0, 0.0, (-0.25, 0.0, 0.0)),
    ],
)
def test_true_maps_of_two_views_do_not_miss_the_pose(
    solver: str, yaw: float, pitch: float, t: tuple[float, float, float]
) -> None:
    """View 2's map is neither of view 1's grid nor of the image's shape."""
    sample = pair(pose(turn(yaw, pitch), np.array(t)))
    maps = box_maps(sample, FINE, (120, 80))
    degrees, metres = errors(SOLVERS[solver](true_matches(sample), maps, cameras_of(sample)), sample)
    assert degrees < 0.01
    assert metres < 1e-3


@every_solver
def test_outliers_do_not_move_the_pose(solver: str) -> None:
    sample = pair()
    rng = np.random.default_rng(1)
    matches, maps = true_matches(sample), box_maps(sample, FINE, FINE)
    wrong = rng.uniform(0, FINE[::-1], (len(matches), 2))
    matches = replace(
        matches, points2=np.where((np.arange(len(matches)) % 2 == 0)[:, None], wrong, matches.points2)
    )
    points = maps.view2.points.copy()
    points[:, ::3] += rng.normal(0, 1, points[:, ::3].shape).astype(np.float32)
    maps = replace(maps, view2=replace(maps.view2, points=points))
    degrees, metres = errors(SOLVERS[solver](matches, maps, cameras_of(sample)), sample)
    assert degrees < 0.5  # two of the wrong matches lie within the threshold
    assert metres < 0.02


@every_solver
def test_the_length_is_that_of_the_maps(solver: str) -> None:
    """A decoder that sees everything 30 % too far moves camera 2 by 30 % too much."""
    sample = pair()
    maps = scaled(box_maps(sample, FINE, FINE), 1.3, 1.3)
    found = SOLVERS[solver](true_matches(sample), maps, cameras_of(sample))
    assert isinstance(found, PairPose)
    assert np.allclose(found.T_2_1[:3, 3], 1.3 * true_pose(sample)[:3, 3], atol=2e-3)


@every_solver
def test_intrinsics_of_the_map_do_not_pass_for_those_of_the_image(solver: str) -> None:
    """The published trap: a camera at half the size with pixels of the whole."""
    sample = pair()
    matches, maps = true_matches(sample), box_maps(sample, FINE, FINE)
    camera = cameras_of(sample)[0]
    wrong = Camera(camera.resized((48, 64)).K, camera.size)
    found = SOLVERS[solver](matches, maps, (wrong, wrong))
    if not isinstance(found, Failure):
        degrees, metres = errors(found, sample)
        assert degrees > 1.0 or metres > 0.05


def test_lengths_that_agree_are_averaged_and_not_the_least_of_them() -> None:
    """Depth noise of 1 %: every vote is near every other, and the first one would be 3 cm short."""
    sample = pair(pose(turn(5.0), np.array([0.5, 0.0, 0.0])))
    maps, matches = box_maps(sample, FINE, FINE), true_matches(sample)
    noise = np.random.default_rng(0).normal(1.0, 0.01, FINE)[..., None]
    noisy = replace(maps, view1=replace(maps.view1, points=(maps.view1.points * noise).astype(np.float32)))
    found = metric_essential_pose(matches, noisy, cameras_of(sample), ESSENTIAL)
    assert isinstance(found, PairPose)
    assert found.inliers.mean() > 0.9
    assert float(np.linalg.norm(found.T_2_1[:3, 3])) == pytest.approx(0.5, abs=0.004)


def test_matches_off_the_epipolar_line_are_no_inliers() -> None:
    sample = pair()
    matches, maps = true_matches(sample), box_maps(sample, FINE, FINE)
    wrong = np.arange(len(matches)) % 4 == 0
    moved = np.where(wrong[:, None], matches.points2[::-1], matches.points2)
    found = metric_essential_pose(replace(matches, points2=moved), maps, cameras_of(sample), ESSENTIAL)
    assert isinstance(found, PairPose)
    assert found.inliers.shape == (len(matches),)
    assert found.inliers[~wrong].mean() > 0.8
    assert found.inliers[wrong].mean() < 0.2


def test_pure_rotation_has_no_essential_length_but_a_pose_by_pnp() -> None:
    sample = pair(pose(turn(20.0), np.zeros(3)))
    matches, maps, cameras = true_matches(sample), box_maps(sample, FINE, FINE), cameras_of(sample)
    found = metric_essential_pose(matches, maps, cameras, ESSENTIAL)
    assert isinstance(found, Failure)
    assert "no parallax" in found.reason
    for solver in ("pnp", "pnp-direct"):
        assert errors(SOLVERS[solver](matches, maps, cameras), sample) < (0.01, 1e-3)


@every_solver
def test_maps_without_points_are_a_failure_and_not_a_pose(solver: str) -> None:
    sample = pair()
    maps = scaled(box_maps(sample, FINE, FINE), np.nan, np.nan)
    assert isinstance(SOLVERS[solver](true_matches(sample), maps, cameras_of(sample)), Failure)


def test_a_second_view_without_points_is_named_as_the_reason() -> None:
    sample = pair()
    maps = scaled(box_maps(sample, FINE, FINE), 1.0, np.nan)
    found = SOLVERS["essential"](true_matches(sample), maps, cameras_of(sample))
    assert isinstance(found, Failure)
    assert "no depth of view 2: 0 matches" in found.reason


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("solver", ["essential", "pnp"])
def test_too_few_matches_are_a_failure(solver: str, count: int) -> None:
    sample = pair()
    found = SOLVERS[solver](true_matches(sample, count), box_maps(sample, FINE, FINE), cameras_of(sample))
    assert isinstance(found, Failure)


def test_matches_in_pixels_of_another_size_are_refused() -> None:
    sample = pair()
    matches = true_matches(sample)
    grown = replace(matches, points2=2 * matches.points2)
    with pytest.raises(TaskError, match="in pixels of another size"):
        pnp_pose(grown, box_maps(sample, FINE, FINE), cameras_of(sample), PNP)


def test_cells_that_the_decoder_doubts_are_not_used() -> None:
    """Two thirds are wrong and say so: with all of them the pose is lost, or has a third of the cells."""
    sample = pair()
    maps = box_maps(sample, FINE, FINE)
    wrong = np.random.default_rng(0).random(FINE) < 0.66
    points = np.where(wrong[..., None], 1.0 + maps.view1.points, maps.view2.points).astype(np.float32)
    confidence = np.where(wrong, 1.0, 3.0).astype(np.float32)
    broken = replace(maps, view2=replace(maps.view2, points=points, confidence=confidence))
    sure = DirectConstants.model_validate({**dict(DIRECT), "confident_share": 0.3})
    found = direct_pose(broken, cameras_of(sample)[1], sure)
    assert isinstance(found, PairPose)
    assert found.inliers.mean() > 0.99
    assert errors(found, sample) < (0.01, 1e-3)


@given(h=st.integers(2, 60), w=st.integers(2, 60), most=st.integers(4, 500), share=st.floats(0.01, 1.0))
def test_no_more_cells_are_used_than_asked_and_they_cover_the_image(
    h: int, w: int, most: int, share: float
) -> None:
    confidence = np.random.default_rng(0).random((h, w))
    view = view_maps(np.ones((h, w, 3)), confidence=confidence)
    every = direct_cells(view, DirectConstants.model_validate({**dict(DIRECT), "max_cells": most}))
    assert 1 <= len(every) <= most
    rows, columns = np.unique(every // w), np.unique(every % w)
    for chosen, length in ((rows, h), (columns, w)):  # a line of cells fixes no pose
        assert len(chosen) > 1 or length < 2 * np.sqrt(h * w / most) + 2
    constants = DirectConstants.model_validate({**dict(DIRECT), "max_cells": most, "confident_share": share})
    some = direct_cells(view, constants)
    assert set(some) <= set(every)
    assert len(some) >= max(1, np.floor(share * len(every)))
    left = np.setdiff1d(every, some)
    if len(left):
        assert view.confidence.ravel()[left].max() < view.confidence.ravel()[some].min()
