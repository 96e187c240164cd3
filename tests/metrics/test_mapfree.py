"""Map-free metrics: calibration values, hand-computed cases, quirks kept and mended."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dune_bench.errors import TaskError, UnavailableError
from dune_bench.metrics import mapfree, mapfree_compat
from dune_bench.metrics.mapfree_format import Answer
from dune_bench.metrics.mapfree_scenes import FrameCamera
from tests.metrics.mapfree_data import make_zip, true_lines, write_scene

K = np.array([[590.0, 0, 270.0], [0, 590.0, 360.0], [0, 0, 1]])
SIZE = (720, 540)
CALIBRATION = [
    ("shift", 0.10, 21.6),
    ("shift", 0.25, 53.9),
    ("shift", 0.50, 103.8),
    ("yaw", 5.0, 51.7),
    ("yaw", 10.0, 100.1),
]


def moved(kind: str, amount: float) -> np.ndarray:
    T = np.eye(4)
    if kind == "shift":
        T[0, 3] = amount
    else:
        T[:3, :3] = Rotation.from_euler("y", amount, degrees=True).as_matrix()
    return T


def compat_vcre(T: np.ndarray) -> float:
    x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
    camera = FrameCamera(K.astype(np.float32), SIZE)
    truth, answer = Answer((1, 0, 0, 0), (0, 0, 0)), Answer((w, x, y, z), tuple(T[:3, 3]))
    return mapfree_compat._frame_errors(truth, answer, camera, SIZE)[2]


@pytest.mark.parametrize(("kind", "amount", "pixels"), CALIBRATION)
def test_vcre_calibration(kind: str, amount: float, pixels: float) -> None:
    T = moved(kind, amount)
    assert compat_vcre(T) == pytest.approx(pixels, abs=0.06)
    assert mapfree.vcre_px(T, np.eye(4), K, SIZE) == pytest.approx(pixels, abs=0.06)


def test_half_turn_is_not_a_small_error_in_strict() -> None:
    T = moved("yaw", 180.0)
    assert compat_vcre(T) == pytest.approx(138, abs=1)
    assert mapfree.vcre_px(T, np.eye(4), K, SIZE) == pytest.approx(900.0)


def test_points_behind_the_estimate_cost_the_diagonal() -> None:
    """2.5 m too far forward: the planes at z ≤ 2.4 (3 of 7) are passed."""
    T = np.eye(4)
    T[2, 3] = -2.5
    points = mapfree.virtual_points()[:3].T
    ahead = points[points[:, 2] > 2.5]
    assert len(ahead) == 196 * 4 // 7
    far = ahead - [0, 0, 2.5]
    limits = np.array([540, 720])
    seen = np.clip((far / far[:, 2:] @ K.T)[:, :2], 0, limits)
    true = np.clip((ahead / ahead[:, 2:] @ K.T)[:, :2], 0, limits)
    distance = np.linalg.norm(seen - true, axis=1).sum()
    assert mapfree.vcre_px(T, np.eye(4), K, SIZE) == pytest.approx((distance + 84 * 900) / 196)


@given(seed=st.integers(0, 2000))
def test_strict_equals_compat_when_all_is_in_front(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.15, 3)).as_matrix()
    T[:3, 3] = rng.normal(0, 0.2, 3)
    assert mapfree.vcre_px(T, np.eye(4), K, SIZE) == pytest.approx(compat_vcre(T), rel=1e-9)


def ap_by_hand(confidence: list[float], hits: list[bool], failures: int) -> float:
    total, area = len(hits) + failures, 0.0
    for c in sorted(set(confidence), reverse=True):
        chosen = [h for d, h in zip(confidence, hits, strict=True) if d >= c]
        area += confidence.count(c) / total * (sum(chosen) / len(chosen))
    return area


frames = st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), min_size=1, max_size=30)


@given(rows=frames)
def test_average_precision_equals_the_definition(rows: list[tuple[int, bool, bool]]) -> None:
    confidence = np.array([float(c) for c, _, _ in rows])
    hits, answered = (np.array([row[i] for row in rows]) for i in (1, 2))
    want = ap_by_hand(confidence[answered].tolist(), hits[answered].tolist(), int((~answered).sum()))
    shown = np.where(answered, confidence, np.nan)
    got = mapfree.average_precision(shown, hits, answered, np.ones((1, len(rows))))
    assert got[0] == pytest.approx(want, abs=1e-12)
    failures = int((~answered).sum())
    official = mapfree_compat.average_precision(confidence[answered], hits[answered], failures)
    assert official == pytest.approx(want, abs=1e-5)


@given(rows=frames, seed=st.integers(0, 99))
def test_weights_are_multiplicities(rows: list[tuple[int, bool, bool]], seed: int) -> None:
    errors = toy_frames(rows)
    copies = np.random.default_rng(seed).integers(0, 4, 3)  # of three scenes
    weights = copies[errors.scene].astype(float)[None]
    got = mapfree.reduce_frames(errors, weights)
    rows_of = [np.flatnonzero(errors.scene == s) for s in range(3)]
    parts = [(s, k) for s in range(3) for k in range(copies[s]) if len(rows_of[s])]
    if not parts:
        assert all(np.isnan(value[0]) for value in got.values())
        return
    repeated = np.concatenate([rows_of[s] for s, _ in parts])
    scene = np.concatenate([np.full(len(rows_of[s]), i) for i, (s, _) in enumerate(parts)])
    copied = mapfree.FrameErrors(
        *(getattr(errors, f)[repeated] for f in list(vars(errors))[:-1]), scene.astype(np.int64)
    )
    want = mapfree.reduce_frames(copied, np.ones((1, len(repeated))))
    for name, value in want.items():
        assert got[name][0] == pytest.approx(value[0], abs=1e-9), name


def toy_frames(rows: list[tuple[int, bool, bool]]) -> mapfree.FrameErrors:
    """Answered or not, good (1 cm, 1°) or 0.4 m and 7° off, in scenes 0, 1, 2 by turns."""
    parts = []
    for i, (confidence, good, answered) in enumerate(rows):
        T = moved("yaw", 1.0 if good else 7.0)
        T[1, 3] = 0.01 if good else 0.4
        parts.append(
            mapfree.frame_errors(T if answered else None, np.eye(4), K, SIZE, float(confidence), scene=i % 3)
        )
    return mapfree.FrameErrors.stack(parts)


def test_hand_computed_metrics() -> None:
    """Two scenes; hits 1, miss 1, unanswered 2 of 4 frames."""
    rows = [(3, True, True), (2, False, True), (0, True, False), (0, True, False)]
    errors = toy_frames(rows)
    errors = mapfree.FrameErrors(*list(vars(errors).values())[:-1], np.array([0, 0, 1, 1]))
    got = {name: float(v[0]) for name, v in mapfree.reduce_frames(errors, np.ones((1, 4))).items()}
    assert got["answered"] == 50.0
    assert got["precision@25cm_5deg"] == 25.0
    assert got["precision@50cm_10deg"] == 50.0
    assert got["auc@25cm_5deg"] == pytest.approx(0.25 * 1 + 0.25 * 0.5)
    assert got["auc@50cm_10deg"] == pytest.approx(0.5)
    assert got["median_rot_deg"] == pytest.approx((4.0 + 180.0) / 2)
    assert got["median_vcre_px"] > 450
    assert got["median_trans_m"] == pytest.approx((errors.trans_m[:2].mean() + 10.0) / 2)


def test_constant_confidence_gives_the_precision_and_ranking_moves_the_auc() -> None:
    hits = np.random.default_rng(0).random(10_000) < 0.581
    ones, everyone = np.ones((1, len(hits))), np.ones(len(hits), bool)
    share = hits.mean()
    area = mapfree.average_precision(np.zeros(len(hits)), hits, everyone, ones)[0]
    assert area == pytest.approx(share)
    assert mapfree_compat.average_precision(np.zeros(len(hits)), hits, 0) == pytest.approx(share)
    best = mapfree.average_precision(np.where(hits, 1.0, 0.0), hits, everyone, ones)[0]
    perfect = mapfree.average_precision(
        -np.argsort(np.argsort(~hits, kind="stable")) + 0.0, hits, everyone, ones
    )
    assert perfect[0] == pytest.approx(share * (1 - np.log(share)), abs=0.01)
    assert best < perfect[0]


def test_thresholds_are_strict() -> None:
    T = np.eye(4)
    T[0, 3] = 0.25
    got = mapfree.reduce_frames(mapfree.frame_errors(T, np.eye(4), K, SIZE), np.ones((1, 1)))
    assert got["precision@25cm_5deg"] == 0.0
    assert got["precision@50cm_10deg"] == 100.0


def test_diagonal_threshold_scales_with_the_image_and_pixels_do_not() -> None:
    """0.4 m sideways: about 84 px at 540×720, half of it at 270×360."""
    T = moved("shift", 0.5)
    small = np.diag([0.5, 0.5, 1]) @ K
    rows = [mapfree.frame_errors(T, np.eye(4), *camera) for camera in ((K, SIZE), (small, (360, 270)))]
    big, half = (mapfree.reduce_frames(row, np.ones((1, 1))) for row in rows)
    assert rows[1].vcre_px[0] == pytest.approx(rows[0].vcre_px[0] / 2)
    assert big["precision_vcre@90px"][0] == big["precision_vcre@0.1diag"][0] == 0.0
    assert half["precision_vcre@90px"][0] == 100.0
    assert half["precision_vcre@0.1diag"][0] == 0.0


def test_answering_never_scores_worse_than_silence() -> None:
    T = moved("yaw", 180.0)
    T[0, 3] = 1e308
    bad, silent = (mapfree.frame_errors(answer, np.eye(4), K, SIZE) for answer in (T, None))
    for name in ("trans_m", "rot_deg", "vcre_px"):
        assert getattr(bad, name)[0] <= getattr(silent, name)[0]
        assert np.isfinite(getattr(bad, name)[0])


def test_nan_pose_is_a_failure_not_a_zero_error() -> None:
    row = mapfree.frame_errors(np.full((4, 4), np.nan), np.eye(4), K, SIZE, 3.0)
    assert not row.answered[0]
    assert (row.trans_m[0], row.rot_deg[0], row.vcre_px[0]) == (10.0, 180.0, 900.0)
    with pytest.raises(TaskError, match="confidence"):
        mapfree.frame_errors(np.eye(4), np.eye(4), K, SIZE, float("nan"))


def test_weights_within_a_scene_must_agree() -> None:
    errors = toy_frames([(1, True, True)] * 6)
    with pytest.raises(TaskError, match="whole scenes"):
        mapfree.reduce_frames(errors, np.arange(6.0)[None])


# Scoring a submission.


def test_perfect_submission_is_perfect_in_both_forms(tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        write_scene(tmp_path / "val", name)
    zipped = make_zip(
        tmp_path / "a.zip", {f"pose_{n}.txt": true_lines(tmp_path / "val", n) for n in ("s1", "s2")}
    )
    strict = mapfree.score_reloc(zipped, tmp_path / "val")
    assert strict.issues.total == 0
    for name, value in strict.metrics.items():
        if name.startswith("median"):
            assert value == pytest.approx(0, abs=1e-9)
        else:
            assert value == (1.0 if name.startswith("auc") else 100.0), name
    compat = mapfree.score_reloc(zipped, tmp_path / "val", "mapfree-compat")
    assert compat.metrics["AUC @ VCRE < 90px"] == 1.0
    assert compat.metrics["Precision @ Pose Error < (25.0cm, 5deg)"] == 1.0


def test_missing_scene_is_not_five_failures_in_strict(tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        write_scene(tmp_path / "val", name, queries=20)
    zipped = make_zip(tmp_path / "a.zip", {"pose_s1.txt": true_lines(tmp_path / "val", "s1")})
    strict = mapfree.score_reloc(zipped, tmp_path / "val")
    assert strict.metrics["answered"] == 50.0
    assert any("pose_s2.txt: missing" in note for note in strict.issues.notes)
    compat = mapfree.score_reloc(zipped, tmp_path / "val", "mapfree-compat")
    assert compat.metrics["Estimates for % of frames"] == pytest.approx(4 / (4 + 20))
    written = make_zip(
        tmp_path / "b.zip", {"pose_s1.txt": true_lines(tmp_path / "val", "s1"), "pose_s2.txt": ""}
    )
    empty = mapfree.score_reloc(written, tmp_path / "val", "mapfree-compat")
    assert empty.metrics["Estimates for % of frames"] == pytest.approx(4 / (4 + 4))


def test_sequence_is_honoured_in_strict(tmp_path: Path) -> None:
    """Answers for seq0 are answers to another question; the official program takes them."""
    write_scene(tmp_path / "val", "s1")
    text = true_lines(tmp_path / "val", "s1").replace("seq1/", "seq0/")
    zipped = make_zip(tmp_path / "a.zip", {"pose_s1.txt": text})
    compat = mapfree.score_reloc(zipped, tmp_path / "val", "mapfree-compat")
    assert compat.metrics["Precision @ VCRE < 90px"] == 1.0
    strict = mapfree.score_reloc(zipped, tmp_path / "val")
    assert strict.metrics["precision_vcre@90px"] == 0.0
    assert "no frame 'seq0/frame_00001.jpg'" in strict.issues.notes[0]


def test_own_camera_of_each_frame(tmp_path: Path) -> None:
    """The last line's size clamps every frame of the official program; strict takes each frame's."""
    write_scene(tmp_path / "val", "s1", queries=6)
    file = tmp_path / "val" / "s1" / "intrinsics.txt"
    lines = file.read_text().splitlines()
    lines[-1] = lines[-1].replace("540 720", "54 72")
    file.write_text("\n".join(lines))
    text = true_lines(tmp_path / "val", "s1").replace("1 0 0 0 0.0 0 0", "1 0 0 0 -0.4 0 0")
    zipped = make_zip(tmp_path / "a.zip", {"pose_s1.txt": text})
    strict = mapfree.score_reloc(zipped, tmp_path / "val")
    assert strict.frames is not None
    assert strict.frames.vcre_px[0] == pytest.approx(
        mapfree.vcre_px(moved("shift", -0.4), np.eye(4), K, SIZE)
    )
    assert strict.frames.diagonal_px.tolist() == pytest.approx([900.0, 90.0])
    compat = mapfree.score_reloc(zipped, tmp_path / "val", "mapfree-compat")
    assert compat.per_scene is not None
    assert compat.per_scene["s1"].reproj_err is not None
    assert compat.per_scene["s1"].reproj_err[0] < 10


def test_every_fifth_query_is_evaluated_and_every_one_on_request(tmp_path: Path) -> None:
    write_scene(tmp_path / "val", "s1", queries=11)
    zipped = make_zip(tmp_path / "a.zip", {"pose_s1.txt": true_lines(tmp_path / "val", "s1")})
    for every, count in ((5, 3), (1, 11)):
        score = mapfree.score_reloc(zipped, tmp_path / "val", every=every)
        assert score.frames is not None
        assert len(score.frames.scene) == count
    with pytest.raises(TaskError, match="fifth"):
        mapfree.score_reloc(zipped, tmp_path / "val", "mapfree-compat", every=1)


@pytest.mark.parametrize("mode", ["strict", "mapfree-compat"])
def test_nothing_answered_is_zero_precision_not_a_crash(tmp_path: Path, mode: str) -> None:
    write_scene(tmp_path / "val", "s1")
    zipped = make_zip(tmp_path / "a.zip", {"readme.md": "hello"})
    score = mapfree.score_reloc(zipped, tmp_path / "val", mode)  # type: ignore[arg-type]
    for name, value in score.metrics.items():
        if "median" not in name.lower():
            assert value == 0.0, name
    assert score.issues.total == 2


def test_overflowing_answers_do_not_crash(tmp_path: Path) -> None:
    write_scene(tmp_path / "val", "s1")
    text = "seq1/frame_00000.jpg 1e300 1e300 0 0 1e308 1e308 1e308 1e308\n"
    text += "seq1/frame_00005.jpg 1e-7 0 0 0 1e308 -1e308 1e308 0\n"
    zipped = make_zip(tmp_path / "a.zip", {"pose_s1.txt": text})
    strict = mapfree.score_reloc(zipped, tmp_path / "val")
    assert strict.metrics["precision_vcre@0.1diag"] == 0.0
    assert strict.metrics["median_trans_m"] == 10.0
    compat = mapfree.score_reloc(zipped, tmp_path / "val", "mapfree-compat")
    assert compat.metrics["Precision @ VCRE < 90px"] == 0.0


def test_missing_or_damaged_truth_is_one_clear_error(tmp_path: Path) -> None:
    zipped = make_zip(tmp_path / "a.zip", {})
    with pytest.raises(UnavailableError, match="no such directory"):
        mapfree.score_reloc(zipped, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnavailableError, match=r"poses\.txt"):
        mapfree.score_reloc(zipped, tmp_path / "empty")
    write_scene(tmp_path / "test", "s1", queries=0)
    with pytest.raises(TaskError, match="not public"):
        mapfree.score_reloc(zipped, tmp_path / "test")
    write_scene(tmp_path / "val", "s1")
    poses = tmp_path / "val" / "s1" / "poses.txt"
    good = poses.read_text()
    poses.write_text(good.replace("-0.3 0 0", "nan 0 0"))
    with pytest.raises(TaskError, match=r"poses\.txt:6: a field is no finite"):
        mapfree.score_reloc(zipped, tmp_path / "val")
    poses.write_text(good)
    cameras = tmp_path / "val" / "s1" / "intrinsics.txt"
    kept = cameras.read_text()
    for bad, message in (
        (kept.replace("seq1/frame_00003.jpg", "seq1/frame_00099.jpg"), "no line for frame"),
        (kept.replace("590 590", "590"), "intrinsics.txt:1"),
        (kept.replace("590 590", "-590 590"), "focal"),
        (kept.replace("540 720", "540.5 720"), "whole pixels"),
        (kept.replace("540 720", "nan 720"), "whole pixels"),
    ):
        cameras.write_text(bad)
        with pytest.raises(TaskError, match=message):
            mapfree.score_reloc(zipped, tmp_path / "val")
    cameras.unlink()
    with pytest.raises(TaskError, match="cannot be read"):
        mapfree.score_reloc(zipped, tmp_path / "val")
