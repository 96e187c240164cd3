"""The reconstruction panel: right answers have no error, failures are shown as failures."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import trimesh
from matplotlib.colors import to_hex

from dune_bench.geometry.robust import Failure
from dune_bench.probes.pair_poses import PairPose
from dune_bench.probes.recon3d_match_depth import PairPrediction
from dune_bench.probes.recon3d_two_view import TwoViewPrediction
from dune_bench.report.panels.clouds import Eye, look_at
from dune_bench.report.panels.colours import BAD, PREDICTION, TRUTH
from dune_bench.report.panels.pairs import SPACE
from dune_bench.report.panels.shown import Panel
from tests.probes.two_view_world import depth_maps
from tests.report.panels.conftest import (
    NEAR,
    SIZE,
    Draw,
    K,
    image_ref,
    pose,
    shown_of,
    wall_matches,
    wall_pair,
)


@dataclass(frozen=True)
class Depth:
    """Stands for a depth prediction."""

    values: Any

    def depth(self, size: tuple[int, int]) -> Any:
        assert size == self.values.shape
        return self.values.astype(np.float64)


def prediction(failed: bool = False, scale: float = 1.0) -> PairPrediction:
    pair = wall_pair()
    T_2_1 = pair.view2.T_cam_world @ np.linalg.inv(pair.view1.T_cam_world)
    found = Failure("2 matches: a pose needs 4") if failed else PairPose(T_2_1, np.ones(9, bool))
    depths: list[Any] = [Depth(view.depth * scale) for view in (pair.view1, pair.view2)]
    return PairPrediction(found, *depths, matches=9)


def by_decoder(
    found: Any = None, moved: tuple[float, float, float] = (0, 0, 0), by_pose: bool = False
) -> TwoViewPrediction:
    """The true points as a decoder gives them, view 2's moved; without a pose unless one is given."""
    maps = depth_maps(wall_pair())
    second = replace(maps.view2, points=maps.view2.points + np.array(moved, np.float32)).points_at
    pose_2_1 = found or Failure("2 matches: a pose needs 4")
    placed = None if by_pose and isinstance(pose_2_1, Failure) else second
    return TwoViewPrediction(pose_2_1, (maps.view1.points_at, placed), by_pose, 9, None)


def vertices(panel: Panel, name: str) -> Any:
    loaded: Any = trimesh.load(io.BytesIO(panel.scenes[f"{name}.ply"]), file_type="ply")
    return loaded


def test_decoders_points_need_no_pose(draw: Draw) -> None:
    drawn = draw("recon3d", shown_of(wall_pair(), by_decoder()))
    found, true = vertices(drawn.panel, "predicted"), vertices(drawn.panel, "true")
    np.testing.assert_allclose(found.vertices, true.vertices, atol=1e-4)
    np.testing.assert_array_equal(found.visual.vertex_colors, true.visual.vertex_colors)
    black = np.broadcast_to((0, 0, 0.015), (*SIZE, 3))
    for caption in ("error of view 1's points", "error of view 2's points"):
        np.testing.assert_allclose(drawn.pixels(caption), black, atol=0.02)
    assert any("no pose: 2 matches" in text for text in drawn.texts)
    assert not {"no pose", "view 2 has no pose"} & set(drawn.texts)
    assert not any("by the estimated pose" in text for text in drawn.texts)
    scene: Any = trimesh.load(io.BytesIO(drawn.panel.scenes["scene.glb"]), file_type="glb")
    assert set(scene.geometry) == {"predicted", "true", "camera 1", "camera 2, true"}


def test_decoders_points_do_not_follow_the_pose(draw: Draw) -> None:
    """A pose far off does not move points that do not rest on it."""
    wrong = PairPose(pose(90, (3, 0, 0)), np.ones(9, bool))
    panels = [draw("recon3d", shown_of(wall_pair(), by_decoder(found))).panel for found in (None, wrong)]
    assert panels[0].scenes["predicted.ply"] == panels[1].scenes["predicted.ply"]
    moved = draw("recon3d", shown_of(wall_pair(), by_decoder(moved=(0, 0, 1)))).panel
    count = SIZE[0] * SIZE[1]
    found = vertices(moved, "predicted").vertices
    np.testing.assert_allclose(found[:count, 2], 3.0, atol=1e-3)
    np.testing.assert_allclose(found[count:, 2], 4.0, atol=1e-3)


def test_decoders_points_by_a_pose_that_there_is_not_are_those_of_view_one(draw: Draw) -> None:
    drawn = draw("recon3d", shown_of(wall_pair(), by_decoder(by_pose=True)))
    np.testing.assert_allclose(
        drawn.pixels("error of view 2's points, by the"), np.broadcast_to(BAD, (*SIZE, 3)), atol=1e-6
    )
    assert {"no pose", "view 2 has no pose"} <= set(drawn.texts)
    assert len(vertices(drawn.panel, "predicted").vertices) == SIZE[0] * SIZE[1]


def test_decoders_points_of_photographs_of_two_shapes(draw: Draw) -> None:
    """Photographs have no depth to take a size from, and their maps cover them whatever their shapes."""
    pair = wall_pair()
    tall = replace(pair.view2, image=image_ref("tall", (900, 300)), depth=np.full((900, 300), np.nan))
    unposed = [replace(view, T_cam_world=np.full((4, 4), np.nan)) for view in (pair.view1, tall)]
    photographs = replace(pair, view1=unposed[0], view2=unposed[1], covisible=float("nan"))
    drawn = draw("recon3d", shown_of(photographs, by_decoder(), truth=False))
    assert set(drawn.panel.scenes) == {"predicted.ply", "scene.glb"}
    points = vertices(drawn.panel, "predicted").vertices
    assert len(points) == SIZE[0] * SIZE[1] + 240 * 80
    np.testing.assert_allclose(points[:, 2], 3.0, atol=1e-3)


def test_true_depth_and_pose_have_no_error_and_one_cloud(draw: Draw) -> None:
    drawn = draw("recon3d", shown_of(wall_pair(), prediction()))
    for caption in ("error of view 1", "error of view 2"):
        np.testing.assert_allclose(
            drawn.pixels(caption), np.broadcast_to((0, 0, 0.015), (*SIZE, 3)), atol=0.02
        )
    assert drawn.panel.scenes["predicted.ply"] == drawn.panel.scenes["true.ply"]


def test_cloud_is_in_camera_one_and_metric(draw: Draw) -> None:
    scenes = draw("recon3d", shown_of(wall_pair(), prediction(scale=2.0))).panel.scenes
    true, found = (
        np.asarray(trimesh.load(io.BytesIO(scenes[f"{name}.ply"]), file_type="ply").vertices)
        for name in ("true", "predicted")
    )
    np.testing.assert_allclose(true[:, 2], 3.0, atol=1e-3)  # both views' points: the wall
    np.testing.assert_allclose(found[: SIZE[0] * SIZE[1], 2], 6.0, atol=1e-3)


def test_pair_without_a_pose_has_no_second_cloud_and_no_zero_error(draw: Draw) -> None:
    drawn = draw("recon3d", shown_of(wall_pair(), prediction(failed=True)))
    grey = np.broadcast_to(BAD, (*SIZE, 3))
    np.testing.assert_allclose(drawn.pixels("error of view 2"), grey, atol=1e-6)
    assert "no pose" in drawn.texts
    assert any("no pose: 2 matches" in text for text in drawn.texts)
    scene: Any = trimesh.load(io.BytesIO(drawn.panel.scenes["scene.glb"]), file_type="glb")
    assert set(scene.geometry) == {"predicted", "true", "camera 1", "camera 2, true"}
    assert len(scene.geometry["predicted"].vertices) == SIZE[0] * SIZE[1]


def test_lines_tell_right_matches_from_wrong_ones(draw: Draw) -> None:
    matches = wall_matches(wall_pair().view2, wrong=10)
    drawn = draw("recon3d", shown_of(wall_pair(), replace(prediction(), inliers=matches)))
    axes = drawn.tile("views 1 and 2: 40 of 50 inliers, 80 % right")
    (lines,) = axes.collections[:1]
    assert len(lines.get_paths()) == 40  # type: ignore[attr-defined]
    colours = {to_hex(colour) for colour in lines.get_edgecolors()}  # type: ignore[attr-defined]
    assert colours == {to_hex(TRUTH), to_hex(PREDICTION)}
    assert any(text.startswith(f"match within {NEAR:g} px") for text in drawn.legend)


def test_lines_end_at_the_matched_points(draw: Draw) -> None:
    matches = wall_matches(wall_pair().view2, wrong=0, total=3)
    drawn = draw("recon3d", shown_of(wall_pair(), replace(prediction(), inliers=matches)))
    (lines,) = drawn.tile("views 1 and 2: 3 of 3").collections[:1]
    ends = np.stack([path.vertices for path in lines.get_paths()])  # type: ignore[attr-defined]
    np.testing.assert_allclose(ends[:, 0], matches.points1)
    np.testing.assert_allclose(ends[:, 1], matches.points2 + np.array([SIZE[1] * (1 + SPACE), 0]))


def test_pair_without_inliers_has_no_lines(draw: Draw) -> None:
    drawn = draw("recon3d", shown_of(wall_pair(), prediction(failed=True)))
    assert not drawn.tile("views 1 and 2: no inliers").collections
    assert not any(text.startswith("match within") for text in drawn.legend)


def test_lines_of_photographs_judge_nothing(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dune_bench.report.panels.recon3d.SIDE", 1000)
    matches = wall_matches(wall_pair().view2, wrong=10)
    found = replace(prediction(), inliers=matches)
    drawn = draw("recon3d", shown_of(wall_pair(), found, truth=False))
    assert "views 1 and 2: 40 of 50 inliers" in drawn.texts
    assert drawn.legend == ["camera 1", "camera 2, estimated"]


def test_photographs_leave_out_everything_true(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dune_bench.report.panels.recon3d.SIDE", 1000)  # no smaller than the test's depth
    drawn = draw("recon3d", shown_of(wall_pair(), prediction(), truth=False))
    assert set(drawn.panel.scenes) == {"predicted.ply", "scene.glb"}
    assert not [text for text in drawn.texts if text.startswith(("truth", "error"))]
    assert drawn.legend == ["camera 1", "camera 2, estimated"]


def test_virtual_camera_sees_its_target_in_the_middle_and_up_is_up() -> None:
    up = np.array([0.0, -1, 0])
    eye = Eye(look_at(np.array([1.0, -2, -3]), np.array([0.0, 0, 2]), up))
    points = np.array([[0.0, 0, 2], [0, -0.5, 2]])  # the second one is above the target
    picture = eye.picture(points, np.array([[255, 0, 0], [0, 0, 255]], np.uint8), (101, 141), side=1)
    (row, column), (above, _) = (np.argwhere((picture == c).all(-1))[0] for c in ((255, 0, 0), (0, 0, 255)))
    assert (row, column) == (50, 70)
    assert above < row


def test_camera_matrix_of_the_fixture_is_sound() -> None:
    """The oracle's own check: view 2 sees view 1's points where its depth says."""
    pair = wall_pair()
    T = pair.view2.T_cam_world @ np.linalg.inv(pair.view1.T_cam_world)
    point = np.array([0.2, 0.1, 3.0])
    there = T[:3, :3] @ point + T[:3, 3]
    x, y, _ = (K @ there / there[2]).tolist()
    assert abs(pair.view2.depth[int(y), int(x)] - there[2]) < 0.03
    np.testing.assert_allclose(pose(5, (0.3, 0, 0)) @ (0.3, 0, 0, 1), (0, 0, 0, 1), atol=1e-12)
