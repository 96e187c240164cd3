"""Padded statistics of scenes: padding never counts, weights are multiplicities, files say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dune_bench.data.samples import RelocScene
from dune_bench.errors import TaskError
from dune_bench.geometry.poses import invert, pose
from dune_bench.metrics.mapfree import FrameErrors, frame_errors, reduce_frames, score_reloc
from dune_bench.probes.base import ProbeContext
from dune_bench.probes.reloc import ScenePrediction, stack
from dune_bench.probes.reloc_answers import Outcome, QueryPose
from dune_bench.probes.reloc_files import answers_of, write_answers, write_truth
from dune_bench.probes.reloc_frames import bin_breakdowns, reduce_scenes, scene_rows
from tests.probes.reloc_scenes import make_view
from tests.probes.test_reloc import probe

SIZE = (300, 400)


def make_scene(counts: int, rng: np.random.Generator, name: str = "s") -> RelocScene:
    views = []
    for i in range(counts):
        R = Rotation.from_rotvec(rng.normal(0, 0.4, 3)).as_matrix()
        views.append(make_view(f"{name}/{i}", name, pose(R, rng.normal(0, 0.8, 3))))
    return RelocScene(f"test/{name}", name, make_view(f"{name}/r", name, np.eye(4)), tuple(views))


def make_answers(scene: RelocScene, rng: np.random.Generator) -> list[tuple[Any, float]]:
    """Near, far, or none; few confidences, so that there are ties."""
    answers: list[tuple[Any, float]] = []
    for query in scene.queries:
        kind = rng.integers(3)
        wobble = Rotation.from_rotvec(rng.normal(0, 0.02 * 10**kind, 3)).as_matrix()
        T = pose(wobble, rng.normal(0, 0.1 * 3.0**kind, 3)) @ query.T_cam_world
        answers.append((None, np.nan) if rng.random() < 0.2 else (T, float(rng.integers(4))))
    return answers


def make_stats(seed: int, scenes: int = 4) -> tuple[list[RelocScene], list[Any], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    made = [make_scene(int(rng.integers(1, 5)), rng, f"s{i}") for i in range(scenes)]
    answers = [make_answers(scene, rng) for scene in made]
    return made, answers, stack(scene_rows(s, a, 5) for s, a in zip(made, answers, strict=True))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_padding_is_never_scored(seed: int) -> None:
    scenes, answers, stats = make_stats(seed)
    rows = [
        frame_errors(T, q.T_cam_world, q.K, SIZE, c, i)
        for i, (scene, of_scene) in enumerate(zip(scenes, answers, strict=True))
        for q, (T, c) in zip(scene.queries, of_scene, strict=True)
    ]
    want = reduce_frames(FrameErrors.stack(rows), np.ones((1, len(rows))))
    got = reduce_scenes(stats, np.ones((1, len(scenes))))
    assert set(want) - set(got) == {"precision_vcre@90px", "auc_vcre@90px"}
    for name, value in got.items():
        assert value[0] == pytest.approx(want[name][0], abs=1e-12), name


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), copies=st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_weights_are_copies_of_scenes(seed: int, copies: list[int]) -> None:
    _, _, stats = make_stats(seed)
    got = reduce_scenes(stats, np.array([copies, [1, 1, 1, 1]], np.float64))
    rows = np.repeat(np.arange(4), copies)
    if len(rows) == 0:
        assert all(np.isnan(value[0]) for value in got.values())
        return
    copied = {name: values[rows] for name, values in stats.items()}
    for name, value in reduce_scenes(copied, np.ones((1, len(rows)))).items():
        assert got[name][0] == pytest.approx(value[0], abs=1e-9), name


def test_blocks_of_weightings_do_not_move_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, stats = make_stats(3)
    weights = np.random.default_rng(0).integers(0, 3, (50, 4)).astype(np.float64)
    whole = reduce_scenes(stats, weights)
    monkeypatch.setattr("dune_bench.probes.reloc_frames.BLOCK_ITEMS", 30)
    parts = reduce_scenes(stats, weights)
    for name, values in whole.items():
        assert parts[name] == pytest.approx(values, abs=1e-9, nan_ok=True), name


def test_pixel_threshold_is_given_only_for_the_images_it_is_of() -> None:
    scene = make_scene(2, np.random.default_rng(0))
    queries = tuple(replace(q, image=replace(q.image, size=(720, 540))) for q in scene.queries)
    rows = scene_rows(replace(scene, queries=queries), [(np.eye(4), 1.0)] * 2, 2)
    assert "auc_vcre@90px" in reduce_scenes(stack([rows]), np.ones((1, 1)))
    mixed = replace(scene, queries=(queries[0], scene.queries[1]))
    rows = scene_rows(mixed, [(np.eye(4), 1.0)] * 2, 2)
    assert "auc_vcre@90px" not in reduce_scenes(stack([rows]), np.ones((1, 1)))


def test_bins_part_the_queries_and_an_empty_bin_has_no_number() -> None:
    turns = ((19.0, 0.5), (21.0, 0.1), (5.0, 0.9), (41.0, 0.1), (3.0, 1.7), (80.0, 0.1))
    poses = [
        pose(Rotation.from_euler("y", deg, degrees=True).as_matrix(), np.array([0, 0, m])) for deg, m in turns
    ]
    views = tuple(make_view(f"v{i}", "s", T) for i, T in enumerate(poses))
    scene = RelocScene("s", "s", make_view("r", "s", np.eye(4)), views)
    right = [(T, 1.0) for T in poses[:3]] + [(np.eye(4), 1.0)] * 3
    stats = stack([scene_rows(scene, right, 8)])
    found = {part.metric: part.values for part in bin_breakdowns(stats)}
    assert found["queries"] == {"narrow": 1.0, "medium": 2.0, "wide": 3.0}
    assert found["precision@25cm_5deg"] == {"narrow": 100.0, "medium": 100.0, "wide": 0.0}
    narrow = stack([scene_rows(replace(scene, queries=views[:1]), right[:1], 8)])
    found = {part.metric: part.values for part in bin_breakdowns(narrow)}
    assert found["median_trans_m"]["wide"] is None
    assert found["queries"]["wide"] == 0.0


def test_breakdowns_count_how_queries_ended() -> None:
    scenes, answers, _ = make_stats(1)
    made = probe()
    rows = []
    for scene, of_scene in zip(scenes, answers, strict=True):
        poses = tuple(
            QueryPose(T, c, 9, Outcome.no_pose if T is None else Outcome.answered) for T, c in of_scene
        )
        rows.append(made.score(ScenePrediction(poses, 5), scene))
    stats = stack(rows)
    (ended,) = [b for b in made.breakdowns(stats, ProbeContext()) if b.by == "outcome"]
    total = sum(len(scene.queries) for scene in scenes)
    assert sum(v for v in ended.values.values() if v is not None) == total
    assert ended.values["answered"] == stats["answered"].sum()


def test_too_many_queries_for_the_width_are_refused() -> None:
    scene = make_scene(3, np.random.default_rng(0))
    with pytest.raises(TaskError, match="do not fit"):
        scene_rows(scene, [(None, np.nan)] * 3, 2)


@pytest.mark.parametrize("seed", range(5))
def test_submission_scored_from_disk_gives_the_same_metrics(tmp_path: Path, seed: int) -> None:
    """Probe -> zip and truth -> `score_reloc` is the probe's own reduction, in a moved world."""
    scenes, _, stats = make_stats(seed)
    world = pose(Rotation.from_rotvec([0.3, -1.0, 0.2]).as_matrix(), np.array([3.0, -2.0, 9.0]))
    moved = [
        replace(
            scene,
            reference=replace(scene.reference, T_cam_world=scene.reference.T_cam_world @ world),
            queries=tuple(replace(q, T_cam_world=q.T_cam_world @ world) for q in scene.queries),
        )
        for scene in scenes
    ]
    write_answers(tmp_path / "a.zip", [s.id for s in scenes], stats)
    write_truth(tmp_path / "truth", moved)
    score = score_reloc(tmp_path / "a.zip", tmp_path / "truth", "strict", every=1)
    assert score.issues.total == 0
    for name, value in reduce_scenes(stats, np.ones((1, len(scenes)))).items():
        assert score.metrics[name] == pytest.approx(value[0], abs=1e-4), name


def test_truth_of_rooms_that_a_limit_left_out_counts_as_failed(tmp_path: Path) -> None:
    """Why the recipe of docs/tasks/reloc.md writes the truth of the result's rooms only."""
    scenes, _, stats = make_stats(0)
    part = {name: values[:1] for name, values in stats.items()}
    write_answers(tmp_path / "a.zip", [scenes[0].id], part)
    write_truth(tmp_path / "own", [scene for scene in scenes if scene.id in np.array([scenes[0].id])])
    write_truth(tmp_path / "all", scenes)
    own = score_reloc(tmp_path / "a.zip", tmp_path / "own", "strict", every=1)
    everything = score_reloc(tmp_path / "a.zip", tmp_path / "all", "strict", every=1)
    assert own.issues.total == 0
    assert own.metrics["answered"] == pytest.approx(reduce_scenes(part, np.ones((1, 1)))["answered"][0])
    assert everything.metrics["answered"] < own.metrics["answered"]
    assert any("missing: every frame of the scene" in note for note in everything.issues.notes)


def test_unanswered_query_is_not_in_the_submission_and_its_scene_is() -> None:
    scene = make_scene(2, np.random.default_rng(0))
    T = scene.queries[1].T_cam_world @ invert(scene.reference.T_cam_world)
    stats = stack(
        [scene_rows(scene, [(None, np.nan), (T, 2.0)], 3), scene_rows(scene, [(None, np.nan)] * 2, 3)]
    )
    found = answers_of(["test/a", "test/b"], stats)
    assert {name: list(frames) for name, frames in found.items()} == {
        "test_a": ["seq1/frame_00001.jpg"],
        "test_b": [],
    }
    assert found["test_a"]["seq1/frame_00001.jpg"].confidence == 2.0
    with pytest.raises(TaskError, match="two scenes"):
        answers_of(["test/a", "test_a"], stats)
