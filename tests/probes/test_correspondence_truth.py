from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dune_bench.data.samples import ImageRef, PairSample, View
from dune_bench.errors import TaskError
from dune_bench.probes.correspondence import CorrespondenceNN, score_places
from dune_bench.probes.correspondence_truth import (
    lattice,
    light_change,
    pair_truth,
    rotation_deg,
    same_places,
    surface_at,
)
from tests.probes.pair_scene import DEPTH_SIZE, SIZE, Ball, K, cast, room_pair, world_points

BALL = Ball()
POINTS = lattice(SIZE, 24)
PROTOCOL = CorrespondenceNN.model_validate(
    {
        "lattice": 4,
        "occlusion_cm": 1,
        "min_points": 1,
        "matching": {"centre": "none", "refine": "none", "temperature": 1},
        "thresholds_px": [5, 10],
        "thresholds_cm": [2, 5],
        "rotation_edges_deg": [0, 60],
        "light_edges": [1, 10],
    }
)


def wall(depth_m: float = 2.0) -> PairSample:
    """A camera of f = 100 px before a wall, and the same camera 0.2 m to the right."""
    image = ImageRef("i", "0" * 64, (100, 100), lambda: np.zeros((100, 100, 3), np.uint8))
    K = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    moved = np.eye(4)
    moved[0, 3] = -0.2
    depth = np.full((100, 100), depth_m, np.float32)
    first, second = (View("v", "room", image, depth, K, T) for T in (np.eye(4), moved))
    return PairSample("wall", "room", first, second, 0.9)


@pytest.mark.parametrize("yaw", [0.0, 15.0, 35.0])
def test_asked_points_are_not_other_than_those_that_a_ray_reaches(yaw: float) -> None:
    pair = room_pair(yaw, 0.6, BALL)
    truth = pair_truth(pair, POINTS, 0.01)
    world = world_points(pair.view1, POINTS, BALL)
    T = pair.view2.T_cam_world
    in2 = world @ T[:3, :3].T + T[:3, 3]
    front = in2[:, 2] > 0
    pixels = np.full((len(in2), 2), -1.0)
    pixels[front] = (in2[front] @ K.T)[:, :2] / in2[front, 2:]
    inside = front & ((pixels >= 0) & (pixels <= 448)).all(1)
    seen = np.zeros(len(in2), dtype=bool)
    seen[inside] = np.abs(cast(T, pixels[inside], BALL) - in2[inside, 2]) < 1e-6
    assert 100 < truth.asked.sum() < 576
    # A hidden point may be asked only where its occluder is within the 1 cm: nowhere in this scene.
    assert not (truth.asked & ~seen).any()
    # Seen points that are not asked lie at a depth edge or on the steep rim of the ball: few.
    assert (seen & ~truth.asked).sum() < 0.06 * seen.sum()
    off = np.abs(truth.places2 - pixels)[truth.asked]
    assert off.max() < 0.3  # on the curved rim of the ball; flat walls are exact
    assert np.median(off) < 1e-4
    assert np.abs(truth.points2 - in2)[truth.asked].max() < 0.01
    assert np.isnan(truth.places2[~truth.asked]).all()


def test_a_point_behind_the_ball_is_not_asked() -> None:
    pair = room_pair(20.0, 0.6, BALL)
    through = replace(pair, view2=room_pair(20.0, 0.6, None).view2)
    hidden = pair_truth(through, POINTS, 0.01).asked & ~pair_truth(pair, POINTS, 0.01).asked
    assert hidden.sum() > 5


def test_holes_of_the_depth_are_neither_asked_nor_hit() -> None:
    pair = room_pair(10.0, 0.2, None)
    whole = pair_truth(pair, POINTS, 0.01).asked
    for hole in (0.0, -1.0, np.nan, np.inf):
        depth = pair.view1.depth.copy()
        depth[:112] = hole
        asked = pair_truth(replace(pair, view1=replace(pair.view1, depth=depth)), POINTS, 0.01).asked
        assert not asked[: 12 * 24].any()
        assert np.array_equal(asked[12 * 24 :], whole[12 * 24 :])
        depth = np.full(DEPTH_SIZE, hole, np.float32)
        nothing = replace(pair, view2=replace(pair.view2, depth=depth))
        assert not pair_truth(nothing, POINTS, 0.01).asked.any()
        assert np.isnan(surface_at(nothing.view2, POINTS)).all()


def test_surface_of_a_slanted_wall_is_exact_between_depth_pixels() -> None:
    pair = room_pair(33.0, 0.6, None)
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 448, (500, 2))
    T = np.linalg.inv(pair.view2.T_cam_world)
    found = surface_at(pair.view2, places) @ T[:3, :3].T + T[:3, 3]
    off = np.linalg.norm(found - world_points(pair.view2, places, None), axis=1)
    # Not in the corners of the room, where two walls meet within a pixel.
    assert np.quantile(off, 0.9) < 1e-4


def test_places_outside_the_image_have_no_surface() -> None:
    view = room_pair().view2
    outside = np.array([(-0.1, 5), (5, -0.1), (448.1, 5), (5, 448.1), (np.nan, 5), (5, np.inf)])
    assert np.isnan(surface_at(view, outside)).all()
    assert np.isfinite(surface_at(view, np.array([(0.0, 0), (448, 448), (224, 224)]))).all()


def test_hand_computed_errors_of_a_wall() -> None:
    # Before a wall at 2 m, f = 100: the view moves by 0.2 m, its points by 10 px, 1 px is 2 cm.
    pair = wall()
    truth = pair_truth(pair, lattice((100, 100), 4), 0.01)
    x = lattice((100, 100), 4)[:, 0]
    assert np.array_equal(truth.asked, x >= 10)
    assert np.allclose(truth.places2[truth.asked], lattice((100, 100), 4)[truth.asked] - (10, 0), atol=1e-5)
    for off, px, cm in ((0.9, (16, 16), (16, 16)), (2.4, (16, 16), (0, 16)), (5.1, (0, 16), (0, 0))):
        row = score_places(truth.places2 + np.array([0, off]), pair, PROTOCOL)
        assert row["hits_px"].tolist() == list(px)
        assert row["hits_cm"].tolist() == list(cm)
    row = score_places(same_places(pair, 4), pair, PROTOCOL)
    assert row["hits_px"].tolist()[0] == 0
    assert row["hits_cm"].tolist() == [0, 0]


def test_no_answer_hits_nothing() -> None:
    pair = wall()
    truth = pair_truth(pair, lattice((100, 100), 4), 0.01)
    half = truth.places2.copy()
    half[::2] = np.nan
    row = score_places(half, pair, PROTOCOL)
    assert row["asked"] == 16
    assert row["answered"] == 8
    assert row["hits_px"].tolist() == [8, 8]


def test_intrinsics_of_another_size_are_one_clear_line() -> None:
    pair = room_pair()
    small = pair.view2.image
    small = ImageRef(small.id, small.digest, (200, 200), small.read)
    with pytest.raises(TaskError, match=r"pair p: view p-2: .*another size"):
        pair_truth(replace(pair, view2=replace(pair.view2, image=small)), POINTS, 0.01)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 3.0, 90.0, 179.9999])
def test_rotation_is_not_blind_at_either_end(angle: float) -> None:
    axis = np.array([0.2, -0.5, 0.7])
    R = Rotation.from_rotvec(np.radians(angle) * axis / np.linalg.norm(axis)).as_matrix()
    pair = wall()
    start = np.eye(4)
    start[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    turned = np.eye(4)
    turned[:3, :3] = R @ start[:3, :3]
    pair = replace(
        pair, view1=replace(pair.view1, T_cam_world=start), view2=replace(pair.view2, T_cam_world=turned)
    )
    assert rotation_deg(pair) == pytest.approx(angle, abs=1e-9)


def test_light_change_is_the_largest_channel_ratio_in_either_direction() -> None:
    pair = wall()
    bright = replace(pair.view2, exposure=(1.5, 1.2, 0.5))
    assert light_change(replace(pair, view2=bright)) == pytest.approx(1.8)
    assert light_change(PairSample("p", "room", bright, pair.view1, 1.0)) == pytest.approx(1.8)
    assert light_change(pair) == 1.0
    dim = replace(pair.view2, exposure=(1.5, 1.2, 0.2))
    assert light_change(replace(pair, view2=dim)) == pytest.approx(1 / 0.3)
