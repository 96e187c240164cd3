"""The panel of people: bodies where they are, who was missed and what was invented."""

from __future__ import annotations

import functools
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from dune_bench.data.samples import HumanSample, Person
from dune_bench.models.body_models import COCO_KEYPOINTS, BodyModel, BodyOutput, load_body_model
from dune_bench.probes.hmr_prediction import PeoplePrediction
from dune_bench.report.panels.colours import PREDICTION
from dune_bench.report.panels.hmr import Bodies, _upright
from tests.report.panels.conftest import SIZE, Draw, K, image_ref, shown_of

UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""The model's axes (z up) in the camera's (y down)."""


@functools.cache
def model() -> BodyModel:
    return load_body_model("anny")


def probe() -> Any:
    """What the panel asks of the probe."""
    protocol = SimpleNamespace(min_visible=0.1, min_iou=0.05)
    return SimpleNamespace(bodies=SimpleNamespace(model=model()), protocol=protocol)


def posed(x: float, z: float) -> tuple[NDArray[np.float64], BodyOutput]:
    """T_cam_body of the neutral body upright at (x, z), and the body there."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = UPRIGHT, (x, 0.0, z)
    with torch.no_grad():
        return T, model()(model().neutral()).moved(torch.from_numpy(T).float())


def person(x: float, z: float, visible: float = 0.9) -> Person:
    T, body = posed(x, z)
    points = body.keypoints[0].double().numpy()
    values = {name: value[0].double().numpy() for name, value in model().neutral().items()}
    pixels = (points @ K.T / points[:, 2:])[:, :2]
    return Person(f"p{x}", values, T, pixels, points, np.ones(17, bool), visible, 1.7)


def sample(*people: Person) -> HumanSample:
    return HumanSample("room/0", "room", image_ref(), K, people, COCO_KEYPOINTS)


def found(*places: tuple[float, float], failed: str = "") -> PeoplePrediction:
    bodies = [posed(*place) for place in places]
    output = BodyOutput(
        *(
            torch.cat([getattr(body, name) for _, body in bodies])
            if bodies
            else getattr(posed(0, 3)[1], name)[:0]
            for name in ("vertices", "joints", "keypoints")
        )
    )
    T = np.array([T for T, _ in bodies]).reshape(-1, 4, 4)
    pelvis = output.joints[:, model().root].double().numpy()
    return PeoplePrediction({}, T, np.full(len(bodies), 0.8), output, pelvis, failed)


def words(drawn: Any, caption: str) -> list[str]:
    return [text.get_text() for text in drawn.tile(caption).texts]


def test_true_bodies_have_no_error_and_cover_the_same_pixels(draw: Draw) -> None:
    drawn = draw("hmr", shown_of(sample(person(0, 4), person(1, 5)), found((0, 4), (1, 5)), probe=probe()))
    assert words(drawn, "prediction") == ["PA-PVE 0 mm"] * 2
    assert words(drawn, "truth: 2 to be found, 0 not counted") == []
    image = image_ref().read()
    covered = [(drawn.pixels(caption) != image).any(-1) for caption in ("truth", "prediction")]
    np.testing.assert_array_equal(*covered)
    assert covered[0].sum() > 10


def test_missed_invented_and_uncounted_people_are_told_apart(draw: Draw) -> None:
    truth = sample(person(-1.2, 4), person(1.2, 4, visible=0.02))
    drawn = draw("hmr", shown_of(truth, found((0.1, 4), (1.2, 4)), probe=probe()))
    assert words(drawn, "truth: 1 to be found, 1 not counted") == ["missed"]
    assert words(drawn, "prediction: 2 found") == ["false", "not counted"]


def test_matched_people_are_joined_from_above(draw: Draw) -> None:
    drawn = draw("hmr", shown_of(sample(person(0, 4)), found((0, 4.5)), probe=probe()))
    dotted = [line for line in drawn.tile("from above").get_lines() if line.get_linestyle() == ":"]
    assert len(dotted) == 1
    ends = np.asarray(dotted[0].get_xydata())
    np.testing.assert_allclose(np.diff(ends[:, 1]), 0.5, atol=0.01)


def test_tilted_camera_still_sees_people_from_over_their_heads() -> None:
    """A camera that looks down by 25°: the plan's up is the people's, not the camera's."""
    a = np.radians(25.0)
    tilt = np.array([[1.0, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]).T
    vertices = posed(0, 4)[1].vertices.double().numpy() @ tilt.T
    heads = posed(0, 4)[1].keypoints.double().numpy()[:, 0] @ tilt.T
    bodies = Bodies(vertices, np.zeros((0, 3), np.int64), heads, np.ones(1, bool), ("",))
    up = _upright(bodies)
    assert up @ (tilt @ (0, -1, 0)) / np.linalg.norm(up) > np.cos(np.radians(12.0))
    nobody = Bodies(vertices[:0], bodies.faces, heads[:0], np.ones(0, bool), ())
    np.testing.assert_allclose(_upright(nobody), (0, -1, 0))


@pytest.mark.parametrize("people", [(), (person(0, -3),)], ids=["nobody", "behind the camera"])
def test_image_without_people_is_no_crash(draw: Draw, people: tuple[Person, ...]) -> None:
    drawn = draw("hmr", shown_of(sample(*people), found(), probe=probe()))
    assert drawn.texts.count("nobody") == 2


def test_failed_image_says_why(draw: Draw) -> None:
    drawn = draw("hmr", shown_of(sample(person(0, 4)), found(failed="not finite"), probe=probe()))
    assert "failed: not finite" in words(drawn, "prediction")
    assert words(drawn, "truth") == ["missed"]


def test_scenes_hold_every_body_in_the_camera_frame(draw: Draw) -> None:
    shown = shown_of(sample(person(0, 4)), found((0, 4.5), (1, 6)), probe=probe())
    scenes = draw("hmr", shown).panel.scenes
    scene: Any = trimesh.load(io.BytesIO(scenes["scene.glb"]), file_type="glb")
    assert set(scene.geometry) == {"predicted 1", "predicted 2", "true 1", "camera"}
    mesh: Any = trimesh.load(io.BytesIO(scenes["true.ply"]), file_type="ply")
    np.testing.assert_allclose(mesh.vertices, posed(0, 4)[1].vertices[0].numpy(), atol=1e-5)


def test_photograph_shows_predictions_with_their_scores(draw: Draw) -> None:
    drawn = draw("hmr", shown_of(sample(), found((0, 4)), probe=probe(), truth=False))
    assert words(drawn, "prediction: 1 found") == ["score 0.80"]
    assert drawn.legend == ["predicted"]
    assert set(drawn.panel.scenes) == {"predicted.ply", "scene.glb"}
    # The body's colour is the prediction's.
    changed = drawn.pixels("prediction")[(drawn.pixels("prediction") != image_ref().read()).any(-1)]
    hue = changed.astype(float).mean(0)
    assert np.argsort(hue).tolist() == np.argsort(to_rgb(PREDICTION)).tolist()
    assert drawn.pixels("prediction").shape[:2] == SIZE
