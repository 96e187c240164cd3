"""The relocalization panel: errors as the metrics have them, unanswered queries as such."""

from __future__ import annotations

import types
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from dune_bench.probes.reloc import ScenePrediction
from dune_bench.probes.reloc_answers import Outcome, QueryPose
from dune_bench.probes.two_view_poses import DirectConstants, EssentialConstants
from tests.report.panels.conftest import NEAR, Draw, pose, shown_of, wall_matches, wall_scene


def prediction(count: int, off: NDArray[np.float64] | None = None) -> ScenePrediction:
    """The true poses, moved by `off` in the query's frame; the last query has no answer."""
    scene = wall_scene(count)
    moved = np.eye(4) if off is None else off
    answers = [
        QueryPose(
            moved @ query.T_cam_world @ np.linalg.inv(scene.reference.T_cam_world), 7, 9, Outcome.answered
        )
        for query in scene.queries[:-1]
    ]
    return ScenePrediction((*answers, QueryPose(None, float("nan"), 2, Outcome.too_few_matches)), count)


def test_matches_of_each_query_are_judged_by_its_true_pose(draw: Draw) -> None:
    scene, found = wall_scene(3), prediction(3)
    answers = [
        replace(answer, inliers=wall_matches(view, wrong))
        for answer, view, wrong in zip(found.queries[:2], scene.queries[:2], (0, 25), strict=True)
    ]
    drawn = draw("reloc", shown_of(scene, replace(found, queries=(*answers, found.queries[2]))))
    captions = [text for text in drawn.texts if text.startswith("to query")]
    assert [caption.partition(" of ")[2] for caption in captions[:2]] == [
        "50 inliers, 100 % right",
        "50 inliers, 50 % right",
    ]
    assert captions[2] == "to query 3: no inliers"
    assert any(text.startswith(f"match within {NEAR:g} px") for text in drawn.legend)


def test_poses_without_matches_have_no_row_of_lines(draw: Draw) -> None:
    """`pnp-direct` asks points, not matches: there is nothing to join the views with."""
    drawn = draw("reloc", shown_of(wall_scene(3), prediction(3)))
    assert not [text for text in drawn.texts if text.startswith("to query")]
    assert drawn.legend == ["reference", "true pose", "estimated pose"]
    assert drawn.texts.count("off 0.00 m, 0.0°; 7 of 9 inliers") == 2
    with_lines = replace(prediction(3).queries[0], inliers=wall_matches(wall_scene(3).queries[0], 0))
    matched = replace(prediction(3), queries=(with_lines, *prediction(3).queries[1:]))
    assert draw("reloc", shown_of(wall_scene(3), matched)).sheet.height > drawn.sheet.height + 1


def test_matches_of_an_essential_matrix_are_judged_in_pixels_of_a_place(draw: Draw) -> None:
    """Its own threshold is a distance to a line; view 2's, twice the wrong matches' error, is to a place."""
    common: dict[str, int] = {"min_inliers": 6, "max_iterations": 100, "min_iterations": 10}
    view2 = DirectConstants(threshold_px=4 * NEAR, max_cells=100, confident_share=0.5, **common)
    constants = EssentialConstants(threshold_px=NEAR, scale_tolerance_m=0.1, view2=view2, **common)
    probe = types.SimpleNamespace(protocol=types.SimpleNamespace(pose=constants))
    scene, found = wall_scene(2), prediction(2)
    answer = replace(found.queries[0], inliers=wall_matches(scene.queries[0], 25))
    shown = shown_of(scene, replace(found, queries=(answer, found.queries[1])), probe=probe)
    drawn = draw("reloc", shown)
    assert any(text.endswith("50 inliers, 100 % right") for text in drawn.texts)
    assert any(text.startswith(f"match within {4 * NEAR:g} px") for text in drawn.legend)


def test_error_of_each_query_is_said(draw: Draw) -> None:
    drawn = draw("reloc", shown_of(wall_scene(3), prediction(3, pose(3.0, (0.0, 0, 0.25)))))
    assert drawn.texts.count("off 0.25 m, 3.0°; 7 of 9 inliers") == 2
    assert "no pose: too few matches" in drawn.texts


def test_true_pose_draws_both_boxes_in_one_place(draw: Draw) -> None:
    drawn = draw("reloc", shown_of(wall_scene(2), prediction(2)))
    lines = drawn.tile("query 1").get_lines()
    assert len(lines) == 24  # two boxes of twelve edges
    for true, found in zip(lines[:12], lines[12:], strict=True):
        np.testing.assert_allclose(true.get_xydata(), found.get_xydata(), atol=1e-6)
    assert len(drawn.tile("query 2").get_lines()) == 12  # an unanswered query has the true one only


@pytest.mark.parametrize("count", [1, 5, 6, 40])
def test_scene_of_many_queries_shows_five_and_says_so(draw: Draw, count: int) -> None:
    drawn = draw("reloc", shown_of(wall_scene(count), prediction(count)))
    queries = [text for text in drawn.texts if text.startswith("query ")]
    assert len(queries) == min(count, 5)
    assert (f"({len(queries)} of {count} queries)" in " ".join(drawn.texts)) == (count > 5)


def test_wild_estimate_does_not_shrink_the_plan(draw: Draw) -> None:
    good = draw("reloc", shown_of(wall_scene(2), prediction(2)))
    wild = draw("reloc", shown_of(wall_scene(2), prediction(2, pose(0, (300.0, 0, 0)))))
    spans = [np.ptp(drawn.tile("the cameras").get_xlim()) for drawn in (good, wild)]
    assert spans[1] < 1.5 * spans[0]


def test_photographs_show_estimates_alone(draw: Draw) -> None:
    drawn = draw("reloc", shown_of(wall_scene(2), prediction(2), truth=False))
    assert drawn.legend == ["reference", "estimated pose"]
    assert not drawn.tile("query 1").get_lines()
    assert "7 of 9 inliers" in drawn.texts
