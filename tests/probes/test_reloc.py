"""Poses from matches and depth: exact where both are, a failure where there is no pose, never a zero
error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import RelocScene
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, pixel_centres, project, scale_intrinsics
from dune_bench.geometry.poses import invert, transform
from dune_bench.geometry.robust import AbsolutePose
from dune_bench.probes import reloc_match_depth
from dune_bench.probes.base import ProbeContext
from dune_bench.probes.pair_matches import match_pair
from dune_bench.probes.pair_poses import lift, pose_by_pnp
from dune_bench.probes.reloc import RelocProbe, ScenePrediction, fixed_pose, stack
from dune_bench.probes.reloc_answers import Outcome, QueryPose
from dune_bench.probes.reloc_match_depth import RelocMatchDepth
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes import reloc_scenes as toy
from tests.probes.fake_features import FakeFeatures

CARD = Path(__file__).parents[2] / "tasks" / "reloc_minirooms.yaml"
CTX = ProbeContext()


def probe(refine: str = "none") -> RelocProbe:
    raw = dict(load_card(CARD, TaskCard).protocol)
    raw["matching"] = {**raw["matching"], "refine": refine}
    return RelocProbe(RelocMatchDepth.model_validate(raw))


def predicted(
    features: FakeFeatures, scenes: Sequence[RelocScene], upstream: Any = None
) -> list[ScenePrediction]:
    upstream = toy.known_depth(features) if upstream is None else upstream
    head = probe().fit(features, toy.lazy_scenes(scenes), upstream, CTX)
    return list(probe().predict(features, toy.lazy_scenes(scenes), head, upstream, CTX))


def scored(predictions: Sequence[ScenePrediction], scenes: Sequence[RelocScene]) -> dict[str, Any]:
    return stack(probe().score(p, s) for p, s in zip(predictions, scenes, strict=True))


def metrics_of(stats: dict[str, Any]) -> dict[str, float]:
    ones = np.ones((1, len(stats["asked"])))
    return {name: float(value[0]) for name, value in probe().reduce(stats, ones).items()}


def test_inliers_of_an_answer_are_those_it_counts_and_a_failure_has_none() -> None:
    features, scenes = toy.make_world([("sideways",)])
    (answer,) = predicted(features, scenes)[0].queries
    assert answer.inliers is not None
    assert len(answer.inliers) == answer.confidence > 0
    (scene,) = scenes
    assert Camera(scene.queries[0].K, scene.queries[0].image.size).holds(answer.inliers.points2).all()
    far = replace(scene.queries[0], K=scale_intrinsics(toy.K, (100, 100), (300, 300)))
    (answer,) = predicted(features, [replace(scene, queries=(far,))])[0].queries
    assert answer.T_query_ref is None
    assert answer.inliers is None


def test_true_depth_and_true_matches_do_not_miss_the_pose() -> None:
    features, scenes = toy.make_world([("sideways",), ("sideways",)])
    stats = scored(predicted(features, scenes), scenes)
    assert stats["rot_deg"].max() < 0.01
    assert stats["trans_m"].max() < 1e-3
    assert np.linalg.norm(scenes[0].queries[0].T_cam_world[:3, 3] - [1, 2, 3]) > 0.3
    found = metrics_of(stats)
    assert [found[name] for name in found if name.startswith("auc")] == [pytest.approx(1.0)] * 3
    assert found["precision@25cm_5deg"] == found["answered"] == 100.0


@pytest.mark.parametrize(("move", "metres"), [("half_turn", None), ("planar", 3.0), ("zoom", None)])
def test_pure_rotation_a_plane_and_another_lens_are_no_trap(move: str, metres: float | None) -> None:
    features, scenes = toy.make_world([(move,)])
    stats = scored(predicted(features, scenes, toy.known_depth(features, metres)), scenes)
    assert stats["answered"].all()
    assert stats["rot_deg"].max() < 0.01
    assert stats["trans_m"].max() < 1e-3


def test_true_matches_on_rendered_rooms_give_the_pose() -> None:
    """The data's own depth and cameras agree with lifting and PnP: under 0.01° and 1 mm."""
    for scene in list(MiniRooms().samples(RelocScene, "train"))[:3]:
        reference = scene.reference
        camera = Camera(reference.K, reference.image.size)
        depth = reference.depth.astype(np.float64)
        centres = pixel_centres(depth.shape)[::8, ::8].reshape(-1, 2)
        points1 = centres * (camera.size[1] / depth.shape[1])
        points3d = lift(points1, depth, camera)
        for query in scene.queries:
            true = query.T_cam_world @ invert(reference.T_cam_world)
            points2, _ = project(query.K, transform(true, points3d))
            seen = Camera(query.K, query.image.size)
            inside = seen.holds(points2)
            found = pose_by_pnp(points3d[inside], points2[inside], seen, probe().protocol.pose.options())
            assert isinstance(found, AbsolutePose)
            one = replace(scene, queries=(query,))
            answer = QueryPose(found.T_cam_world, 1.0, 9, Outcome.answered)
            stats = probe().score(ScenePrediction((answer,), 1), one)
            assert stats["rot_deg"][0] < 0.01
            assert stats["trans_m"][0] < 1e-3


def test_intrinsics_left_at_another_size_are_not_a_small_error() -> None:
    """Intrinsics of the network's size with points of the original image, in either or both views."""
    features, scenes = toy.make_world([("sideways",)])
    wrong = scale_intrinsics(toy.K, toy.IMAGE, toy.NETWORK)
    (scene,) = scenes
    query = replace(scene.queries[0], K=wrong)
    for bad in (
        replace(scene, queries=(query,)),
        replace(scene, reference=replace(scene.reference, K=wrong)),
        replace(scene, reference=replace(scene.reference, K=wrong), queries=(query,)),
    ):
        stats = scored(predicted(features, [bad]), scenes)
        assert stats["rot_deg"][0, 0] > 1 or stats["trans_m"][0, 0] > 0.05


def test_points_left_at_network_size_are_not_a_small_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exactness test above sees the classic mistake: matches never brought to the original size."""

    def mistaken(first: Any, second: Any, g1: Any, g2: Any, size1: Any, size2: Any, constants: Any) -> Any:
        return match_pair(first, second, g1, g2, (300, 336), (300, 336), constants)

    features, scenes = toy.make_world([("sideways",)])
    monkeypatch.setattr(reloc_match_depth, "match_pair", mistaken)
    stats = scored(predicted(features, scenes), scenes)
    assert stats["rot_deg"][0, 0] > 1 or stats["trans_m"][0, 0] > 0.05


def test_principal_point_outside_the_image_is_a_failure_not_a_crash() -> None:
    features, scenes = toy.make_world([("sideways", "half_turn")])
    (scene,) = scenes
    far = replace(scene.queries[0], K=scale_intrinsics(toy.K, (100, 100), (300, 300)))
    bad = [replace(scene, queries=(far, scene.queries[1]))]
    stats = scored(predicted(features, bad), bad)
    assert stats["outcome"].tolist() == [[Outcome.bad_camera, Outcome.answered]]
    assert stats["answered"].tolist() == [[False, True]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_features_are_a_failure_of_that_query_only(bad: float) -> None:
    features, scenes = toy.make_world([("sideways", "half_turn"), ("sideways",)])
    features.maps["room0/0"][3, 5, 7] = bad
    stats = scored(predicted(features, scenes), scenes)
    assert stats["outcome"].tolist() == [[Outcome.bad_features, Outcome.answered], [Outcome.answered, -1]]
    assert stats["trans_m"][0, 0] == 10.0
    assert stats["rot_deg"][0, 0] == 180.0
    assert stats["vcre_px"][0, 0] == 500.0
    assert np.isnan(stats["pose"][0, 0]).all()
    assert not stats["failed"].any()


@pytest.mark.parametrize("of_depth", [False, True])
def test_nan_features_of_the_reference_fail_its_scene_only(of_depth: bool) -> None:
    features, scenes = toy.make_world([("sideways", "half_turn"), ("sideways",)])
    other, _ = toy.make_world([("sideways", "half_turn"), ("sideways",)])
    damaged = other if of_depth else features
    damaged.maps["room0/ref"][:] = np.nan
    stats = scored(predicted(features, scenes, toy.known_depth(other)), scenes)
    assert stats["failed"].tolist() == [True, False]
    assert (stats["outcome"][0] == Outcome.bad_features).all()
    assert metrics_of(stats)["answered"] == pytest.approx(100 / 3)


def test_features_that_say_nothing_are_a_failure_not_a_zero_error() -> None:
    features, scenes = toy.make_world([("sideways",)])
    for one in features.maps.values():
        one[:] = 1.0
    stats = scored(predicted(features, scenes), scenes)
    assert stats["outcome"][0, 0] == Outcome.too_few_matches
    found = metrics_of(stats)
    assert found["precision@25cm_5deg"] == found["auc_vcre@0.1diag"] == found["answered"] == 0.0
    assert found["median_trans_m"] == 10.0


def test_matches_without_depth_are_a_failure() -> None:
    features, scenes = toy.make_world([("sideways",)])
    stats = scored(predicted(features, scenes, toy.known_depth(features, metres=float("nan"))), scenes)
    assert stats["outcome"][0, 0] == Outcome.no_pose
    assert stats["matches"][0, 0] > 100


def test_wrong_depth_is_not_forgiven() -> None:
    """A plane of twice the distance: a translation twice as long, no scale is taken from the truth."""
    features, scenes = toy.make_world([("planar",)])
    stats = scored(predicted(features, scenes, toy.known_depth(features, 6.0)), scenes)
    assert stats["trans_m"][0, 0] == pytest.approx(2 * toy.CELL[1] * 3.0 / 350.0, rel=1e-4)


def test_confidence_is_the_number_of_inliers() -> None:
    features, scenes = toy.make_world([("half_turn",), ("sideways",)])
    torch.manual_seed(0)
    kept = features.maps["room1/0"].clone()
    features.maps["room1/0"][:, ::2] = torch.randn_like(kept[:, ::2])
    stats = scored(predicted(features, scenes), scenes)
    assert stats["confidence"][0, 0] == 24 * 24
    assert stats["confidence"][1, 0] < 24 * 24 / 2


def test_the_same_input_gives_the_same_pose() -> None:
    features, scenes = toy.make_world([("sideways",)])
    features.maps["room0/0"] += torch.randn(32, 24, 24, generator=torch.Generator().manual_seed(1))
    first, second = (scored(predicted(features, scenes), scenes) for _ in range(2))
    assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)


def test_task_without_a_depth_head_is_refused() -> None:
    features, scenes = toy.make_world([("sideways",)])
    with pytest.raises(TaskError, match=r"requires\.depth_head"):
        predicted(features, scenes, {"depth": object()})


def test_answers_to_other_queries_are_refused() -> None:
    features, scenes = toy.make_world([("sideways", "half_turn")])
    (prediction,) = predicted(features, scenes)
    fewer = replace(prediction, queries=prediction.queries[:1])
    with pytest.raises(TaskError, match="room0: 1 answers to 2 queries"):
        probe().score(fewer, scenes[0])


def test_card_metrics_are_those_that_the_probe_returns() -> None:
    scenes = toy.lazy_scenes(toy.make_world([("sideways",)])[1])
    stats = stack(probe().score(p, s) for p, s in zip(fixed_pose(scenes), scenes, strict=True))
    assert set(metrics_of(stats)) == {m.id for m in load_card(CARD, TaskCard).metrics}


def test_identity_baseline_is_the_reference_pose() -> None:
    scenes = toy.lazy_scenes(toy.make_world([("sideways", "half_turn"), ("planar",)])[1])
    stats = stack(probe().score(p, s) for p, s in zip(fixed_pose(scenes), scenes, strict=True))
    assert stats["trans_m"][0, 0] == pytest.approx(toy.SHIFT_M)
    assert stats["rot_deg"][0, 1] == pytest.approx(180.0)
    assert stats["pose"][1, 0] == pytest.approx([1, 0, 0, 0, 0, 0, 0])
    assert stats["asked"].tolist() == [[True, True], [True, False]]
    assert np.array_equal(stats["baseline_m"][0, 0], stats["trans_m"][0, 0])
