"""Two-view reconstruction from tokens and a depth head, end to end on an exact room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dune_bench.data.samples import PairSample, View
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import unproject
from dune_bench.geometry.poses import invert, pose, transform
from dune_bench.geometry.robust import Failure
from dune_bench.probes.base import Head, ProbeContext, Upstream
from dune_bench.probes.depth import DepthConvex, DepthPrediction, DepthProbe
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.pair_matches import token_centres
from dune_bench.probes.pair_points import pair_statistics
from dune_bench.probes.pair_poses import PairPose
from dune_bench.probes.recon3d import BINNED, Recon3dProbe
from dune_bench.probes.recon3d_match_depth import PairPrediction
from dune_bench.probes.recon3d_protocol import Recon3dMatchDepth
from dune_bench.registry.cards import TaskCard, load_card
from dune_bench.report.panels.inliers import true_errors
from tests.probes.fake_features import FakeFeatures, depth_sample
from tests.probes.fake_room import SIZE, depth_at, intrinsics, lazy_pairs, pair, relative, turn

TASKS = Path(__file__).parents[2] / "tasks"
CARD = load_card(TASKS / "recon3d_minirooms.yaml", TaskCard)
DEPTH_CARD = load_card(TASKS / "depth_minirooms.yaml", TaskCard)
CTX = ProbeContext()
GRID = TokenGrid((24, 32), (168, 224))
"""Tokens at a network size that is not the image's: 168 × 224 for 96 × 128."""


def probe(**changes: object) -> Recon3dProbe:
    pose_ = {**CARD.protocol["pose"], "threshold_px": 4.0}
    return Recon3dProbe(Recon3dMatchDepth.model_validate({**CARD.protocol, "pose": pose_, **changes}))


def tokens(view: View) -> torch.Tensor:
    """(65, h, w): what a perfect encoder would see, waves of the place in the world; last its log-depth."""
    centres = token_centres(GRID, SIZE)
    depth = depth_at(view.T_cam_world, centres)
    world = transform(invert(view.T_cam_world), unproject(intrinsics(), centres, depth))
    waves = np.random.default_rng(5).normal(0, 1.5, (3, 32))
    rows = np.concatenate([np.sin(world @ waves), np.cos(world @ waves), np.log(depth)[:, None]], 1)
    return torch.from_numpy(rows.T.reshape(65, *GRID.grid)).float()


def sources(samples: list[PairSample]) -> tuple[FakeFeatures, dict[str, Upstream]]:
    maps = {v.image.id: tokens(v) for s in samples for v in (s.view1, s.view2)}
    seen = FakeFeatures({k: m[:-1] for k, m in maps.items()}, GRID.image_size)
    depth = FakeFeatures({k: m[-1:] for k, m in maps.items()}, GRID.image_size)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    head = Head({"weight": one, "mean": zero, "bias": zero})
    upstream = Upstream(DepthProbe(DepthConvex.model_validate(DEPTH_CARD.protocol)), head, depth)
    return seen, {"depth_head": upstream}


def run(samples: list[PairSample], given: Recon3dProbe | None = None) -> dict[str, NDArray[np.float64]]:
    used = given or probe()
    features, upstream = sources(samples)
    lazy = lazy_pairs(samples)
    head = used.fit(features, lazy, {}, CTX)
    predictions = used.predict(features, lazy, head, upstream, CTX)
    rows = [used.score(p, s) for p, s in zip(predictions, samples, strict=True)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def prediction(estimate: PairPose | Failure, log_depth: float = 0.7) -> PairPrediction:
    flat = [DepthPrediction(np.full(GRID.grid, log_depth, np.float32), GRID, 0.05, 50.0) for _ in range(2)]
    return PairPrediction(estimate, flat[0], flat[1], 40)


def exact(sample: PairSample, T_2_1: NDArray[np.float64] | None) -> dict[str, NDArray[np.float64]]:
    """Statistics of a pose with the true depth."""
    maps = (sample.view1.depth.astype(np.float64), sample.view2.depth.astype(np.float64))
    return pair_statistics(T_2_1, (lambda size: maps[0], lambda size: maps[1]), sample, 40, 5.0)


def test_true_pose_and_true_depth_are_perfect_in_every_metric() -> None:
    sample = pair()
    stats = {k: v[None] for k, v in exact(sample, relative(sample)).items()}
    stats |= {"covisible": np.array([0.5])}
    metrics = {k: float(v[0]) for k, v in probe().reduce(stats, np.ones((1, 1))).items() if "_covis" not in k}
    percents = [k for k in metrics if not k.endswith("_m")]
    assert {"inliers@5cm", "rra@5deg", "rta@15deg", "maa@30deg"} < set(percents)
    for name in percents:
        assert metrics[name] == pytest.approx(100.0, abs=1e-3), name
    for name in metrics.keys() - set(percents):
        assert metrics[name] < 1e-3, name


def test_tokens_of_the_place_reconstruct_the_pair() -> None:
    """Everything between the tokens and the pose in its own pixels: one wrong size, and this fails."""
    samples = [pair(name="a"), pair(pose(turn(-12.0), np.array([-0.3, 0.0, 0.2])), name="b")]
    stats = run(samples)
    assert not stats["failed"].any()
    assert (stats["matches"] > 100).all()
    assert (stats["inliers"] > 50).all()
    assert (stats["rot_deg"] < 4.0).all()
    assert (stats["trans_deg"] < 20.0).all()
    assert (stats["pointmap_m"] < 0.05).all()
    assert (stats["inliers@10cm"] > 90).all()


def test_inliers_are_the_matches_of_the_pose_in_pixels_of_the_originals() -> None:
    sample = pair(name="a")
    features, upstream = sources([sample])
    (found,) = probe().predict(features, lazy_pairs([sample]), Head({}), upstream, CTX)
    assert found.inliers is not None
    assert isinstance(found.pose, PairPose)
    assert len(found.inliers) == found.pose.inliers.sum() > 50
    errors = true_errors((sample.view1, sample.view2), found.inliers.points1, found.inliers.points2)
    assert np.median(errors) < 4.0


def test_identity_pose_is_worse_than_the_estimate_and_no_failure() -> None:
    sample = pair()
    still = exact(sample, np.eye(4))
    found = run([sample])
    assert not still["failed"]
    assert still["trans_line_deg"] == 180.0
    assert still["inliers@25cm"] < 60 < found["inliers@25cm"][0]
    assert still["pointmap_m"] > 2 * found["pointmap_m"][0]


def test_pair_without_pose_is_a_miss_and_never_a_zero_error() -> None:
    sample = pair()
    stats = probe().score(prediction(Failure("3 matches: a pose needs 4")), sample)
    assert bool(stats["failed"])
    assert int(stats["inliers"]) == 0
    assert float(stats["rot_deg"]) == float(stats["trans_line_deg"]) == 180.0
    for name in ("inliers@5cm", "inliers@10cm", "inliers@25cm", "coverage"):
        assert float(stats[name]) == 0.0
    for name in ("pointmap_m", "pointmap_scaled_m", "accuracy_m", "completeness_m", "chamfer_m"):
        assert float(stats[name]) == 5.0


def test_failing_is_never_better_than_any_pose() -> None:
    sample = pair()
    failed = exact(sample, None)
    for T in (np.eye(4), pose(turn(170.0), np.array([40.0, 0, 0])), relative(sample)):
        stats = exact(sample, T)
        for name in ("pointmap_m", "pointmap_scaled_m", "accuracy_m", "completeness_m", "chamfer_m"):
            assert stats[name] <= failed[name], name
        assert stats["inliers@25cm"] >= failed["inliers@25cm"]


def test_failed_pair_lowers_the_rates_by_its_share() -> None:
    sample = pair()
    rows = [exact(sample, relative(sample)), exact(sample, None)]
    stats = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    stats["covisible"] = np.array([0.5, 0.5])
    metrics = probe().reduce(stats, np.array([[1.0, 1.0], [1.0, 3.0]]))
    np.testing.assert_allclose(metrics["inliers@25cm"], [50, 25])
    np.testing.assert_allclose(metrics["maa@30deg"], [50, 25])
    np.testing.assert_allclose(metrics["pointmap_m"], [2.5, 3.75], atol=1e-3)


def test_nan_tokens_are_a_failure_of_their_pair_alone() -> None:
    samples = [pair(name="a"), pair(name="b")]
    features, upstream = sources(samples)
    features.maps["a-2"][3, 2, 2] = np.nan
    found = list(probe().predict(features, lazy_pairs(samples), Head({}), upstream, CTX))
    assert isinstance(found[0].pose, Failure)
    assert "not finite" in found[0].pose.reason
    assert isinstance(found[1].pose, PairPose)


def test_constant_tokens_are_a_failure_and_not_a_crash() -> None:
    samples = [pair()]
    features, upstream = sources(samples)
    for m in features.maps.values():
        m[:] = 1.0
    (found,) = probe().predict(features, lazy_pairs(samples), Head({}), upstream, CTX)
    assert isinstance(found.pose, Failure)
    assert found.matches == 0


def test_views_back_to_back_never_become_a_good_reconstruction() -> None:
    """No pixel in common: whatever is found, view 2's half of the points is wrong or missing."""
    stats = run([pair(pose(turn(180.0), np.zeros(3)), covisible=0.0)])
    assert stats["pointmap_m"][0] > 1.0
    assert stats["inliers@25cm"][0] <= 50.0


def test_pure_rotation_counts_for_rotation_alone() -> None:
    samples = [pair(pose(turn(15.0), np.zeros(3)))]
    stats = run(samples)
    metrics = probe().reduce(stats, np.ones((1, 1)))
    assert metrics["rra@5deg"][0] == 100.0
    assert np.isnan(metrics["rta@15deg"][0])
    assert np.isnan(metrics["maa@30deg"][0])
    assert metrics["inliers@25cm"][0] > 85


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_depth_is_not_zero_error(bad: float) -> None:
    broken = prediction(PairPose(np.eye(4), np.ones(40, bool)))
    broken.depth2.log_depth[2, 1] = bad
    with pytest.raises(TaskError, match="sample pair: the predicted depth of view pair-2 is not finite"):
        probe().score(broken, pair())


def test_intrinsics_of_another_size_fail_with_one_line() -> None:
    sample = pair(name="hall")
    wrong = replace(sample, view2=replace(sample.view2, K=intrinsics((400, 600))))
    features, upstream = sources([sample])
    with pytest.raises(TaskError, match=r"sample hall: .*of another size"):
        list(probe().predict(features, lazy_pairs([wrong]), Head({}), upstream, CTX))
    with pytest.raises(TaskError, match=r"sample hall: .*of another size"):
        exact(wrong, np.eye(4))


def test_world_pose_that_is_no_rotation_is_refused() -> None:
    sample = pair(name="hall")
    wrong = replace(sample, view2=replace(sample.view2, T_cam_world=np.diag([1.0, 1, -1, 1])))
    with pytest.raises(TaskError, match="sample hall: view hall-2: T_cam_world: a reflection"):
        exact(wrong, np.eye(4))


def test_pair_without_true_depth_does_not_count_for_points() -> None:
    sample = pair()
    empty = np.zeros(SIZE, np.float32)
    blind = PairSample(
        "blind", "room", replace(sample.view1, depth=empty), replace(sample.view2, depth=empty), 0.5
    )
    rows = [
        exact(sample, relative(sample)),
        probe().score(prediction(PairPose(np.eye(4), np.ones(9))), blind),
    ]
    stats = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    stats["covisible"] = np.array([0.5, 0.5])
    metrics = probe().reduce(stats, np.ones((1, 2)))
    assert metrics["inliers@5cm"][0] == pytest.approx(100.0)
    assert metrics["rra@5deg"][0] == 50.0


def test_bins_share_out_the_pairs_and_the_last_edge_belongs() -> None:
    sample = pair()
    good, bad = exact(sample, relative(sample)), exact(sample, None)
    rows = [good, bad, good, bad, bad]
    stats = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    stats["covisible"] = np.array([0.15, 0.3, 0.55, 1.0, 0.1])
    used = probe()
    metrics = used.reduce(stats, np.ones((1, 5)))
    assert metrics["inliers@25cm"][0] == pytest.approx(40.0)
    assert metrics["inliers@25cm_covis15_35"][0] == pytest.approx(50.0)
    assert np.isnan(metrics["inliers@25cm_covis35_55"][0])
    assert metrics["inliers@25cm_covis55_100"][0] == pytest.approx(50.0)
    parts = {part.metric: part.values for part in used.breakdowns(stats, CTX)}
    assert set(parts) == set(BINNED)
    assert parts["maa@30deg"] == {"15-35": 50.0, "35-55": None, "55-100": 50.0}


def test_statistics_do_not_depend_on_the_chunk_budget() -> None:
    samples = [pair(name="a"), pair(pose(turn(8.0), np.array([0.2, 0, 0])), name="b")]
    features, upstream = sources(samples)
    used = probe()
    small, large = (
        [p.pose for p in used.predict(features, lazy_pairs(samples), Head({}), upstream, ctx)]
        for ctx in (replace(CTX, chunk_bytes=1), replace(CTX, chunk_bytes=2**22))
    )
    for a, b in zip(small, large, strict=True):
        assert isinstance(a, PairPose)
        assert isinstance(b, PairPose)
        assert (a.T_2_1 == b.T_2_1).all()


def test_missing_or_wrong_depth_head_is_one_clear_line() -> None:
    samples = [pair()]
    features, upstream = sources(samples)
    with pytest.raises(TaskError, match="needs a depth head"):
        list(probe().predict(features, lazy_pairs(samples), Head({}), {}, CTX))
    other = {"depth_head": replace(upstream["depth_head"], probe=probe())}
    with pytest.raises(TaskError, match="must be the head of a depth task, not of recon3d"):
        list(probe().predict(features, lazy_pairs(samples), Head({}), other, CTX))


def test_other_samples_are_refused() -> None:
    with pytest.raises(TaskError, match="cannot score a DepthSample"):
        probe().score(prediction(Failure("none")), depth_sample("a", np.ones((8, 8), np.float32)))


def test_card_metrics_are_among_those_that_the_probe_returns() -> None:
    stats = run([pair()], Recon3dProbe(Recon3dMatchDepth.model_validate(CARD.protocol)))
    metrics = probe().reduce(stats, np.ones((1, 1)))
    assert {m.id for m in CARD.metrics} <= set(metrics)


@pytest.mark.parametrize("edges", [(35, 15), (15, 15), (-5, 50), (10, 101), (50,)])
def test_edges_out_of_order_are_refused(edges: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="covisible_edges"):
        probe(covisible_edges=edges)


def test_errors_do_not_depend_on_the_size_of_the_depth_map() -> None:
    """Depth maps at the image's size and at a quarter of it, each read 20 % too far."""
    found = []
    for size in (SIZE, (SIZE[0] // 4, SIZE[1] // 4)):
        sample = pair(size=size)
        far = (1.2 * sample.view1.depth.astype(float), 1.2 * sample.view2.depth.astype(float))
        given = (lambda _, m=far[0]: m), (lambda _, m=far[1]: m)
        found.append(pair_statistics(relative(sample), given, sample, 24, 5.0))
    small, full = found[1], found[0]
    for name in ("pointmap_m", "pointmap_scaled_m"):
        assert float(small[name]) == pytest.approx(float(full[name]), rel=0.05)
