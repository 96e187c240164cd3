from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dune_bench.errors import TaskError
from dune_bench.probes.hmr_bodies import View
from dune_bench.probes.hmr_people import People, people_of
from dune_bench.probes.hmr_prediction import place
from tests.probes.hmr_world import SIZE, K, bodies, crowd, person, sample, someone, upright

NETWORK = (336, 336)
VIEW = View.of(K, SIZE, NETWORK)
RANGE = (0.2, 20.0)


def rows_of(people: People, view: View = VIEW) -> torch.Tensor:
    return bodies().encode(people.people, people.heads, view, "sample i")


def test_row_of_a_body_is_not_lossy() -> None:
    people = people_of(crowd(1)[0], 0.3)
    posed = bodies().decode(rows_of(people), people.pixels * 0.75, VIEW, RANGE)
    found = place(bodies(), posed, np.zeros(2))
    assert np.allclose(posed.heads, people.heads, atol=1e-9)
    assert np.allclose(found.T_cam_body, [p.T_cam_body for p in people.people], atol=1e-5)
    truth = np.stack([p.keypoints_3d for p in people.people])
    assert np.abs(found.bodies.keypoints.numpy() - truth).max() < 1e-5
    assert np.allclose(found.pelvis, found.bodies.joints[:, bodies().model.root])


def test_intrinsics_of_another_size_do_not_pass() -> None:
    people = people_of(crowd(1)[0], 0.3)
    unscaled = View(K, SIZE, NETWORK)
    posed = bodies().decode(rows_of(people), people.pixels * 0.75, unscaled, RANGE)
    assert np.abs(posed.heads - people.heads).max() > 0.2


def test_longer_lens_is_not_another_size_on_the_grid() -> None:
    """Twice the focal length at twice the distance: the same size in the picture, the same target."""
    people = people_of(crowd(1)[0], 0.3)
    far = replace(people, heads=people.heads * (1.0, 1.0, 2.0))
    lens = View.of(K * np.array([[2.0], [2.0], [1.0]]), SIZE, NETWORK)
    part = bodies().groups["distance"]
    assert torch.allclose(rows_of(far, lens)[:, part], rows_of(people)[:, part])


def test_walking_around_the_camera_does_not_turn_the_body() -> None:
    """Somebody facing the camera has the same row wherever in the picture."""
    body = someone(np.random.default_rng(0))
    facing = []
    for angle in (-0.4, 0.0, 0.4):
        one = person("a", upright(3.0 * np.sin(angle), 3.0 * np.cos(angle), -angle), body)
        facing.append(rows_of(people_of(sample("i", [one]), 0.3))[0, bodies().groups["orientation"]])
    assert torch.stack(facing).std(0).max() < 0.005
    turned = person("a", upright(0.0, 3.0, 0.4), body)
    other = rows_of(people_of(sample("i", [turned]), 0.3))[0, bodies().groups["orientation"]]
    assert (other - facing[1]).abs().max() > 0.3


def test_depth_does_not_leave_its_range() -> None:
    people = people_of(crowd(1)[0], 0.3)
    rows = rows_of(people)
    rows[:, bodies().groups["distance"]] = torch.tensor([[99.0], [-99.0]], dtype=torch.float64)
    posed = bodies().decode(rows, people.pixels * 0.75, VIEW, RANGE)
    assert np.allclose(posed.heads[:, 2], [20.0, 0.2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_row_that_is_not_finite_is_no_body(bad: float) -> None:
    people = people_of(crowd(1)[0], 0.3)
    rows = rows_of(people)
    rows[0, 40] = bad
    with pytest.raises(TaskError, match="a predicted body is not finite"):
        bodies().decode(rows, people.pixels * 0.75, VIEW, RANGE)


def test_rotation_without_extent_is_no_body() -> None:
    people = people_of(crowd(1)[0], 0.3)
    rows = rows_of(people)
    rows[0, bodies().groups["pose"]] = 0.0
    with pytest.raises(TaskError, match="anny body: 'pose'"):
        place(bodies(), bodies().decode(rows, people.pixels * 0.75, VIEW, RANGE), np.zeros(2))
    rows = rows_of(people)
    rows[0, bodies().groups["orientation"]] = 0.0
    with pytest.raises(TaskError, match="orientation"):
        bodies().decode(rows, people.pixels * 0.75, VIEW, RANGE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pose": None}, "sample i, p0.0: anny body: no pose among the parameters"),
        ({"beta": np.zeros(10)}, "unknown beta among the parameters"),
        ({"phenotype": np.zeros(5)}, "'phenotype' has shape"),
        ({"pose": np.tile(2 * np.eye(3), (104, 1, 1))}, "is not a rotation"),
        ({"root": np.array([0.0, np.nan, 0.0])}, "'root' holds NaN"),
    ],
)
def test_body_of_another_model_is_named(change: dict[str, np.ndarray | None], message: str) -> None:
    people = people_of(crowd(1)[0], 0.3)
    body = {k: v for k, v in {**people.people[0].body, **change}.items() if v is not None}
    broken = replace(
        people, people=(replace(people.people[0], id="p0.0", body=body),), heads=people.heads[:1]
    )
    with pytest.raises(TaskError, match=message):
        rows_of(broken)
