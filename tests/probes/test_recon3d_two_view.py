"""Reconstruction by a two-view decoder: true maps come out exact, and what is no reconstruction is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.probes import two_view_fit
from dune_bench.probes.base import Head, ProbeContext
from dune_bench.probes.pair_points import true_pose
from dune_bench.probes.pair_poses import PairPose
from dune_bench.probes.recon3d import Prediction, Recon3dProbe
from dune_bench.probes.recon3d_protocol import Recon3dMatchDepth, Recon3dTrained
from dune_bench.probes.two_view_maps import PairMaps
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes import known_decoder as known
from tests.probes.fake_room import lazy_pairs

CARD = load_card(Path(__file__).parents[2] / "tasks/recon3d_minirooms_mast3r_mini.yaml", TaskCard)
either_way = pytest.mark.parametrize("points", ["decoder", "calibrated"])


def probe(points: str) -> Recon3dProbe:
    pose = {**CARD.protocol["pose"], "threshold_px": 1.0}
    return Recon3dProbe(Recon3dTrained.model_validate({**CARD.protocol, "pose": pose, "points": points}))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(two_view_fit, "stored_decoder", lambda head: known.KnownDecoder())
    return monkeypatch


def predictions(points: str) -> list[Prediction]:
    """Of all pairs of the scene, in the order of `known.pairs`."""
    scene = known.scene()
    features, samples = known.tokens(scene), lazy_pairs(known.pairs(scene))
    return list(probe(points).predict(features, samples, Head({}), {}, ProbeContext()))


def statistics(points: str) -> dict[str, NDArray[np.float64]]:
    samples = known.pairs(known.scene())
    rows = [probe(points).score(p, s) for p, s in zip(predictions(points), samples, strict=True)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def change(told: pytest.MonkeyPatch, changed: dict[tuple[int, int], PairMaps]) -> None:
    told.setattr(two_view_fit, "stored_decoder", lambda head: known.KnownDecoder(changed))


@either_way
def test_true_maps_are_exact(told: pytest.MonkeyPatch, points: str) -> None:
    """Also between two queries, of which neither stands at the world's or the scene's origin."""
    stats = statistics(points)
    assert not stats["failed"].any()
    assert stats["rot_deg"].max() < 0.01
    for prediction, sample in zip(predictions(points), known.pairs(known.scene()), strict=True):
        assert isinstance(prediction.pose, PairPose)
        assert np.linalg.norm((prediction.pose.T_2_1 - true_pose(sample))[:3, 3]) < 1e-3
    assert stats["pointmap_m"].max() < 1e-3
    assert (stats["inliers@5cm"] == 100).all()
    assert (stats["inliers"] > 100).all()
    assert (stats["inliers"] <= stats["matches"]).all()


def alike(maps: PairMaps) -> PairMaps:
    """Descriptors that match nothing."""
    views = [
        replace(v, descriptors=np.broadcast_to(v.descriptors[:1, :1], v.descriptors.shape))
        for v in (maps.view1, maps.view2)
    ]
    return PairMaps(*views)


def test_without_a_pose_the_decoders_points_count_and_placed_ones_do_not(told: pytest.MonkeyPatch) -> None:
    change(told, {(0, 2): alike(known.true_maps(0, 2))})
    for points, inliers in (("decoder", 100.0), ("calibrated", 0.0)):
        stats = statistics(points)
        assert stats["failed"].tolist() == [False, True, False]
        assert stats["rot_deg"][1] == 180.0
        assert stats["inliers"][1] == 0
        assert stats["inliers@5cm"].tolist() == [100.0, inliers, 100.0]
        assert (stats["pointmap_m"][1] < 1e-3) == (points == "decoder")
    assert stats["pointmap_m"][1] == CARD.protocol["clip_m"]


@either_way
@pytest.mark.parametrize("pair", [(0, 1), (1, 0)])
@pytest.mark.parametrize("name", ["points", "confidence", "descriptors"])
def test_maps_that_are_not_finite_name_the_sample(
    told: pytest.MonkeyPatch, name: str, pair: tuple[int, int], points: str
) -> None:
    """The other order of the pair is asked by `calibrated` alone."""
    maps = known.true_maps(*pair)
    values = getattr(maps.view2, name).copy()
    values[3, 4] = np.nan
    change(told, {pair: replace(maps, view2=replace(maps.view2, **{name: values}))})
    if points == "decoder" and pair == (1, 0):
        assert not statistics(points)["failed"].any()
        return
    with pytest.raises(TaskError, match=r"sample room/0-room/1: .*not finite"):
        statistics(points)


def test_known_cameras_right_a_wrong_field_of_view_but_no_wrong_depth(told: pytest.MonkeyPatch) -> None:
    """A decoder that is right about depth, and off about where its rays go by a tenth."""
    everyone = {(i, j): known.true_maps(i, j) for i in range(3) for j in range(3) if i != j}
    wide = np.array([1.1, 1.1, 1.0], np.float32)
    change(
        told,
        {
            pair: replace(maps, view1=replace(maps.view1, points=maps.view1.points * wide))
            for pair, maps in everyone.items()
        },
    )
    assert (statistics("calibrated")["pointmap_m"] < 1e-3).all()
    assert (statistics("decoder")["pointmap_m"] > 0.05).all()
    change(
        told,
        {
            pair: replace(maps, view1=replace(maps.view1, points=maps.view1.points * np.float32(1.1)))
            for pair, maps in everyone.items()
        },
    )
    assert (statistics("calibrated")["pointmap_m"] > 0.1).all()


def test_a_depth_behind_the_camera_is_no_point_and_no_crash(told: pytest.MonkeyPatch) -> None:
    maps = known.true_maps(0, 1)
    points = maps.view1.points.copy()
    points[:12] *= -1
    change(told, {(0, 1): replace(maps, view1=replace(maps.view1, points=points))})
    stats = statistics("calibrated")
    assert not stats["failed"].any()
    assert stats["rot_deg"][0] < 0.01
    assert stats["inliers@5cm"][0] == pytest.approx(75.0), "all of view 2 and half of view 1"


def test_a_protocol_without_a_decoder_gives_no_maps() -> None:
    card = load_card(Path(__file__).parents[2] / "tasks/recon3d_minirooms.yaml", TaskCard)
    match_depth = Recon3dProbe(Recon3dMatchDepth.model_validate(card.protocol))
    with pytest.raises(TaskError, match="has no decoder: name"):
        match_depth.pairs(known.tokens(known.scene()), [("room/0", "room/1")], Head({}), ProbeContext())
