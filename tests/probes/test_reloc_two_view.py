"""Answers of the two-view protocols: the true pose where there is one, elsewhere the right outcome."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dune_bench.data.samples import PairSample
from dune_bench.geometry.poses import geodesic_deg, pose
from dune_bench.probes.pair_points import true_pose
from dune_bench.probes.reloc_answers import Outcome, QueryPose
from dune_bench.probes.reloc_two_view import RelocEssential, RelocPnp, RelocPnpDirect, RelocTwoView
from dune_bench.probes.two_view_maps import PairMaps
from tests.probes.fake_room import SIZE, pair, turn
from tests.probes.two_view_world import box_maps

MATCHING = {"seed_stride": 4, "border_px": 3.0, "max_matches": 500}
POSE = {"threshold_px": 1.0, "min_inliers": 6, "max_iterations": 1000, "min_iterations": 50}
DIRECT = {**POSE, "max_cells": 500, "confident_share": 0.5}
PROTOCOLS: dict[str, RelocTwoView] = {
    "essential": RelocEssential.model_validate(
        {
            "matching": MATCHING,
            "pose": {**POSE, "scale_tolerance_m": 0.1, "view2": DIRECT},
            "confidence": "inliers",
        }
    ),
    "pnp": RelocPnp.model_validate(
        {"matching": MATCHING, "lift": "reference_depth", "pose": POSE, "confidence": "inliers"}
    ),
    "pnp-direct": RelocPnpDirect.model_validate({"pose": DIRECT, "confidence": "inliers"}),
}
every_protocol = pytest.mark.parametrize("protocol", list(PROTOCOLS))


def answer(protocol: str, sample: PairSample, maps: PairMaps | None = None) -> QueryPose:
    given = box_maps(sample, SIZE, SIZE) if maps is None else maps
    return PROTOCOLS[protocol].answer(given, sample.view1, sample.view2)


@every_protocol
def test_true_maps_answer_with_the_query_and_not_with_the_reference(protocol: str) -> None:
    """Descriptors match at cells, half a pixel apart: a degree and some centimetres by the matches."""
    sample = pair(pose(turn(12.0, -4.0), np.array([0.4, 0.1, -0.2])))
    found, T = answer(protocol, sample), true_pose(sample)
    assert found.outcome == Outcome.answered
    assert found.T_query_ref is not None
    assert geodesic_deg(found.T_query_ref[:3, :3], T[:3, :3]) < 1.0
    assert np.linalg.norm(found.T_query_ref[:3, 3] - T[:3, 3]) < 0.1
    assert 6 <= found.confidence <= found.matches


@every_protocol
def test_intrinsics_of_another_size_are_an_outcome(protocol: str) -> None:
    sample = pair()
    wrong = np.diag([8.0, 8.0, 1.0]) @ sample.view2.K
    found = answer(protocol, replace(sample, view2=replace(sample.view2, K=wrong)))
    assert (found.outcome, found.T_query_ref) == (Outcome.bad_camera, None)
    assert np.isnan(found.confidence)


@every_protocol
@pytest.mark.parametrize("name", ["points", "confidence", "descriptors"])
def test_maps_that_are_not_finite_are_an_outcome(protocol: str, name: str) -> None:
    sample = pair()
    maps = box_maps(sample, SIZE, SIZE)
    values = getattr(maps.view2, name).copy()
    values[3, 4] = np.nan
    found = answer(protocol, sample, replace(maps, view2=replace(maps.view2, **{name: values})))
    assert found.outcome == Outcome.bad_features


@every_protocol
def test_points_in_one_place_are_no_pose(protocol: str) -> None:
    sample = pair()
    maps = box_maps(sample, SIZE, SIZE)
    heap = [replace(v, points=np.zeros_like(v.points)) for v in (maps.view1, maps.view2)]
    found = answer(protocol, sample, PairMaps(*heap))
    assert (found.outcome, found.T_query_ref) == (Outcome.no_pose, None)
    assert found.matches >= 4


@pytest.mark.parametrize("protocol", ["essential", "pnp"])
def test_descriptors_that_are_all_alike_are_too_few_matches(protocol: str) -> None:
    sample = pair()
    maps = box_maps(sample, SIZE, SIZE)
    alike = [replace(v, descriptors=np.ones_like(v.descriptors[..., :1])) for v in (maps.view1, maps.view2)]
    found = answer(protocol, sample, PairMaps(*alike))
    assert found.outcome == Outcome.too_few_matches
    assert found.matches < 4


def test_pnp_takes_the_known_camera_and_not_the_field_of_view_that_the_decoder_guessed() -> None:
    sample = pair(pose(turn(12.0, -4.0), np.array([0.4, 0.1, -0.2])))
    maps = box_maps(sample, SIZE, SIZE)
    # Twice too wide, as a decoder that knows no camera may see it; its depth is true.
    wide = replace(maps.view1, points=maps.view1.points * np.array([2.0, 2.0, 1.0], np.float32))
    guessed, known = answer("pnp", sample, PairMaps(wide, maps.view2)), answer("pnp", sample, maps)
    assert guessed.T_query_ref is not None
    assert known.T_query_ref is not None
    np.testing.assert_allclose(guessed.T_query_ref, known.T_query_ref, atol=1e-9)
