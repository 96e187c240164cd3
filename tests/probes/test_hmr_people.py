from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.probes.hmr_people import people_of, ray_frames
from tests.probes.hmr_world import crowd, person, sample, someone, upright

RNG = np.random.default_rng(0)
SOMEBODY = person("a", upright(0.0, 3.0, 0.4), someone(RNG))
FACE = np.arange(17) < 5


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_ray_frame_is_no_mere_matrix(x: float, y: float) -> None:
    ray = np.array([x, y, 1.0])
    R = ray_frames(ray)
    assert np.allclose(R.T @ R, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)
    assert np.allclose(R[:, 2], ray / np.linalg.norm(ray))
    assert R[1, 0] == 0.0  # the frame does not roll: its x axis stays level with the camera's


def test_ray_frame_of_the_optical_axis_is_not_turned() -> None:
    assert np.allclose(ray_frames(np.array([0.0, 0.0, 1.0])), np.eye(3))


def test_everyone_in_plain_view_counts_nearest_first() -> None:
    people = people_of(crowd(1)[0], 0.3)
    assert people.counts.tolist() == [True, True]
    assert people.heads[0, 2] < people.heads[1, 2]


def test_person_behind_the_camera_is_not_in_the_image() -> None:
    behind = person("b", upright(0.0, -3.0, 0.0), someone(RNG))
    assert len(people_of(sample("i", [behind, SOMEBODY]), 0.3).people) == 1


def test_person_partly_behind_the_camera_need_not_be_found() -> None:
    points = SOMEBODY.keypoints_3d.copy()
    points[-1, 2] = -0.1
    people = people_of(sample("i", [replace(SOMEBODY, keypoints_3d=points)]), 0.3)
    assert people.counts.tolist() == [False]
    assert np.isfinite(people.keypoints).all()


@pytest.mark.parametrize(
    "change",
    [
        {"visible_fraction": 0.29},
        {"visible": ~FACE},
    ],
)
def test_hidden_person_need_not_be_found(change: dict[str, object]) -> None:
    hidden = replace(SOMEBODY, **change)  # type: ignore[arg-type]
    assert people_of(sample("i", [hidden]), 0.3).counts.tolist() == [False]
    assert people_of(sample("i", [SOMEBODY]), 0.3).counts.tolist() == [True]


def test_head_beyond_the_border_need_not_be_found() -> None:
    beside = person("c", upright(2.5, 3.0, 0.0), someone(RNG))
    assert people_of(sample("i", [beside]), 0.3).counts.tolist() == [False]


def test_image_without_people_is_no_crash() -> None:
    people = people_of(sample("i", []), 0.3)
    assert people.counts.shape == (0,)
    assert people.keypoints.shape == (0, 17, 2)


@pytest.mark.parametrize("bad", ["scaled", "mirrored", "nan", "affine"])
def test_non_rotation_is_not_a_pose(bad: str) -> None:
    T = SOMEBODY.T_cam_body.copy()
    match bad:
        case "scaled":
            T[:3, :3] *= 1.01
        case "mirrored":
            T[:3, 0] *= -1
        case "nan":
            T[0, 3] = np.nan
        case "affine":
            T[3, 0] = 0.1
    with pytest.raises(TaskError, match="sample kitchen: the pose of a is not a rigid motion"):
        people_of(sample("kitchen", [replace(SOMEBODY, T_cam_body=T)]), 0.3)


def test_nan_key_point_is_named() -> None:
    points = SOMEBODY.keypoints_3d.copy()
    points[3, 1] = np.nan
    with pytest.raises(TaskError, match=r"sample kitchen: key points of a are not \(17, 3\) finite"):
        people_of(sample("kitchen", [replace(SOMEBODY, keypoints_3d=points)]), 0.3)


def test_data_without_ears_is_refused() -> None:
    with pytest.raises(TaskError, match="sample i has no key point 'left_ear'"):
        people_of(replace(sample("i", []), keypoint_names=("nose", "left_eye", "right_eye")), 0.3)


def test_intrinsics_that_are_none_are_named() -> None:
    with pytest.raises(TaskError, match="sample i: intrinsics"):
        people_of(replace(sample("i", []), K=np.zeros((3, 3))), 0.3)
