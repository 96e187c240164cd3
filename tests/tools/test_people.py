"""anny people of MiniRooms.  Runs where anny is installed and its cache is filled (its first load takes a
minute): `python -c "import anny; anny.Anny()"` fills it."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from tools.minirooms.people import BodyFactory, PosedBody

CACHE = Path(os.environ.get("ANNY_CACHE_DIR", Path.home() / ".cache" / "anny"))
pytestmark = [
    pytest.mark.slow,
    # warp, which anny uses for skinning on GPUs, announces missing CUDA on import.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="anny is not installed"),
    pytest.mark.skipif(not any(CACHE.glob("**/*.safetensors")), reason="anny's cache is empty"),
]
ACTIONS: tuple[Any, ...] = ("standing", "walking", "sitting", "reaching")
SEAT = 0.44


@pytest.fixture(scope="module")
def factory() -> BodyFactory:
    from tools.minirooms.people import BodyFactory

    return BodyFactory()


@pytest.fixture(scope="module")
def people(factory: BodyFactory) -> list[PosedBody]:
    rng = np.random.default_rng(0)
    return [factory.sample(rng, a, SEAT if a == "sitting" else None) for a in ACTIONS for _ in range(4)]


def test_vertices_come_back_from_the_parameters_in_json(
    factory: BodyFactory, people: list[PosedBody]
) -> None:
    for person in people:
        text = json.dumps({k: v.tolist() for k, v in person.body.items()})
        body = {k: np.array(v) for k, v in json.loads(text).items()}
        assert np.abs(factory.vertices_of(body) - person.vertices).max() < 1e-9
        # Short decimals: a shard's index stays small.
        assert len(text) < 9000


def test_lowest_point_is_on_the_floor_and_the_pelvis_above_the_origin(people: list[PosedBody]) -> None:
    for person in people:
        assert abs(person.vertices[:, 2].min()) < 2e-6
        hips = person.keypoints[11:13].mean(axis=0)
        assert np.abs(hips[:2]).max() < 0.08


def test_both_feet_touch_the_floor(people: list[PosedBody]) -> None:
    for person in people:
        for ankle in (15, 16):
            near = np.linalg.norm(person.vertices[:, :2] - person.keypoints[ankle, :2], axis=1) < 0.2
            assert person.vertices[near, 2].min() < 0.02


def test_sitting_thighs_rest_on_the_seat(people: list[PosedBody]) -> None:
    for person in people:
        if person.action == "sitting":
            hips = person.keypoints[11:13].mean(axis=0)
            under = person.vertices[np.linalg.norm(person.vertices[:, :2] - hips[:2], axis=1) < 0.12]
            assert under[:, 2].min() == pytest.approx(SEAT, abs=0.012)


def test_people_face_minus_y_and_left_is_plus_x(people: list[PosedBody]) -> None:
    for person in people:
        names = dict(zip(person.keypoint_names, person.keypoints, strict=True))
        assert names["left_hip"][0] > names["right_hip"][0]
        assert names["nose"][1] < (names["left_ear"] + names["right_ear"])[1] / 2 + 0.05
        assert person.keypoint_names[0] == "nose"
        assert len(person.keypoint_names) == 17


def test_children_and_adults_of_natural_height(factory: BodyFactory) -> None:
    rng = np.random.default_rng(1)
    heights = [factory.sample(rng, "standing").height_m for _ in range(25)]
    assert 0.95 < min(heights) < 1.5
    assert 1.7 < max(heights) < 2.0


def test_same_generator_state_gives_the_same_person(factory: BodyFactory) -> None:
    one, two = (factory.sample(np.random.default_rng(5), "sitting", SEAT) for _ in range(2))
    np.testing.assert_array_equal(one.vertices, two.vertices)
    np.testing.assert_array_equal(one.vertex_rgb, two.vertex_rgb)


def winding_number(point: np.ndarray, triangles: np.ndarray) -> float:
    """Share of the full solid angle that triangles (F, 3, 3) cover seen from a point: 1 inside, 0 outside
    (van Oosterom and Strackee 1983)."""
    a, b, c = (triangles[:, k] - point for k in range(3))
    la, lb, lc = (np.linalg.norm(x, axis=1) for x in (a, b, c))
    numerator = np.einsum("fd,fd->f", a, np.cross(b, c))
    dots = [np.einsum("fd,fd->f", x, y) for x, y in ((a, b), (b, c), (c, a))]
    denominator = la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb
    return float(2 * np.arctan2(numerator, denominator).sum() / (4 * np.pi))


def test_no_arm_passes_through_the_body(factory: BodyFactory, people: list[PosedBody]) -> None:
    """Independent of the rejection test: elbows' middles and wrists are outside the armless body."""
    weights = factory._model.dense_vertex_bone_weights.numpy()
    bones = factory._model.bone_labels
    arm = [
        i for i, b in enumerate(bones) if b.startswith(("upperarm", "lowerarm", "wrist", "finger", "meta"))
    ]
    armless = ~(weights[:, arm].sum(axis=1) > 0.5)[factory.faces].any(axis=1)
    for person in people:
        trunk = person.vertices[person.faces[armless]]
        assert winding_number(person.keypoints[5:13].mean(axis=0), trunk) > 0.7
        for elbow, wrist in ((7, 9), (8, 10)):
            for t in (0.5, 1.0):
                point = person.keypoints[elbow] * (1 - t) + person.keypoints[wrist] * t
                assert winding_number(point, trunk) < 0.3


def test_clothes_skin_and_hair_are_painted(people: list[PosedBody]) -> None:
    for person in people:
        assert person.vertex_rgb.shape == person.vertices.shape
        assert ((person.vertex_rgb >= 0) & (person.vertex_rgb <= 1)).all()
        assert len(np.unique(person.vertex_rgb.round(2), axis=0)) >= 5
        vertices, faces, rgb = person.render_mesh()
        assert len(faces) == 4 * len(person.faces)
        assert rgb.shape == vertices.shape
        np.testing.assert_array_equal(vertices[: len(person.vertices)], person.vertices)


def test_impossible_requests_are_refused(factory: BodyFactory) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="unknown action 'flying'"):
        factory.sample(rng, "flying")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"seat height 0\.90 m is outside"):
        factory.sample(rng, "sitting", 0.9)
