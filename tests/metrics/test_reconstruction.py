"""Point-map and cloud errors against brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.metrics import reconstruction as rec

CLIP, FAR = 5.0, 1e3


def clouds(seed: int, n: int = 40, m: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal((0, 0, 3), 1, (n, 3)), rng.normal((0, 0, 3), 1, (m, 3))


@given(seed=st.integers(0, 2000))
def test_cloud_errors_equal_all_pairs(seed: int) -> None:
    predicted, true = clouds(seed)
    distances = np.linalg.norm(predicted[:, None] - true[None], axis=2)
    got = rec.cloud_errors(predicted, true, CLIP)
    assert got["accuracy_m"] == pytest.approx(distances.min(1).mean(), rel=1e-9)
    assert got["completeness_m"] == pytest.approx(distances.min(0).mean(), rel=1e-9)
    assert got["chamfer_m"] == pytest.approx(
        (distances.min(1).mean() + distances.min(0).mean()) / 2, rel=1e-9
    )


def test_accuracy_and_completeness_are_not_swapped() -> None:
    """One of two true points is predicted, exactly: all accurate, half complete."""
    true = np.array([[0.0, 0, 1], [3, 0, 1]])
    got = rec.cloud_errors(true[:1], true, CLIP)
    assert got["accuracy_m"] == 0
    assert got["completeness_m"] == 1.5


def test_large_cloud_is_thinned_evenly_and_deterministically() -> None:
    predicted, true = clouds(0, 5000, 4000)
    full, thin, again = (rec.cloud_errors(predicted, true, CLIP, n) for n in (20_000, 1000, 1000))
    assert thin == again
    assert thin["chamfer_m"] == pytest.approx(full["chamfer_m"], rel=0.1)
    assert thin != full


def test_nan_point_is_no_point_and_no_truth_has_no_distance() -> None:
    predicted, true = clouds(1)
    holes = np.concatenate([predicted, np.full((5, 3), np.nan)])
    assert rec.cloud_errors(holes, true, CLIP) == rec.cloud_errors(predicted, true, CLIP)
    assert all(np.isnan(v) for v in rec.cloud_errors(predicted, true[:0], CLIP).values())


def test_empty_cloud_is_as_far_as_can_be() -> None:
    predicted, true = clouds(1)
    assert set(rec.cloud_errors(predicted * np.nan, true, 2.5).values()) == {2.5}


@given(seed=st.integers(0, 500), clip=st.floats(0.05, 3))
def test_distances_are_clipped_one_by_one(seed: int, clip: float) -> None:
    predicted, true = clouds(seed)
    distances = np.linalg.norm(predicted[:, None] - true[None], axis=2)
    got = rec.cloud_errors(predicted, true, clip)
    assert got["accuracy_m"] == pytest.approx(np.minimum(distances.min(1), clip).mean(), rel=1e-9)
    assert got["completeness_m"] == pytest.approx(np.minimum(distances.min(0), clip).mean(), rel=1e-9)
    points = rec.point_errors(predicted[:30], true, clip)
    expected = np.minimum(np.linalg.norm(predicted[:30] - true, axis=1), clip).mean()
    assert points["pointmap_m"] == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 2000), scale=st.floats(0.1, 10))
def test_scaled_error_does_not_see_the_scale(seed: int, scale: float) -> None:
    predicted, true = clouds(seed, 30, 30)
    one, other = (rec.point_errors(points, true, FAR) for points in (predicted, scale * predicted))
    assert one["pointmap_scaled_m"] == pytest.approx(other["pointmap_scaled_m"], rel=1e-9)
    perfect = rec.point_errors(scale * true, true, FAR)
    assert perfect["pointmap_scaled_m"] == pytest.approx(0, abs=1e-9)
    assert perfect["pointmap_m"] == pytest.approx(abs(scale - 1) * np.linalg.norm(true, axis=1).mean())


def test_hand_computed_point_errors() -> None:
    """Four known points: two near, one 7 m off, one not predicted; a fifth without truth."""
    true = np.array([[0.0, 0, 2], [1, 0, 2], [0, 1, 2], [1, 1, 2], [np.nan, 0, 0]])
    offsets = np.array([[0.04, 0, 0], [0.2, 0, 0], [7, 0, 0], [np.nan, 0, 0], [0, 0, 0]])
    got = rec.point_errors(true + offsets, true, CLIP)
    assert got["pointmap_m"] == pytest.approx((0.04 + 0.2 + 5 + 5) / 4)
    assert got["inliers@5cm"] == got["inliers@10cm"] == pytest.approx(25.0)
    assert got["inliers@25cm"] == pytest.approx(50.0)
    assert got["coverage"] == pytest.approx(75.0)


def test_inliers_are_those_nearer_than_their_limit() -> None:
    true = np.array([[0.0, 0, 2]] * 3)
    predicted = true + np.array([[0.049, 0, 0], [0.099, 0, 0], [0.249, 0, 0]])
    got = rec.point_errors(predicted, true, CLIP)
    assert [got[name] for name in rec.INLIERS_M] == pytest.approx([100 / 3, 200 / 3, 100])


def test_missing_prediction_is_a_miss_and_missing_truth_is_nothing() -> None:
    true = clouds(0)[0]
    none = rec.point_errors(np.full_like(true, np.nan), true, CLIP)
    assert none["inliers@5cm"] == none["inliers@25cm"] == none["coverage"] == 0
    assert none["pointmap_m"] == none["pointmap_scaled_m"] == CLIP
    assert all(np.isnan(v) for v in rec.point_errors(true, true * np.nan, CLIP).values())


@given(seed=st.integers(0, 500))
def test_leaving_a_point_out_is_never_better(seed: int) -> None:
    predicted, true = clouds(seed, 30, 30)
    less = predicted.copy()
    less[np.random.default_rng(seed).integers(30)] = np.nan
    full, part = rec.point_errors(predicted, true, CLIP), rec.point_errors(less, true, CLIP)
    assert part["pointmap_m"] >= full["pointmap_m"]
    assert part["inliers@25cm"] <= full["inliers@25cm"]


def test_failed_sample_counts_the_clip_and_one_without_truth_nothing() -> None:
    predicted, true = clouds(2, 30, 30)
    rows = [
        rec.point_errors(p, t, CLIP) | rec.cloud_errors(p, t, CLIP)
        for p, t in ((predicted, true), (true, true), (true * np.nan, true), (true, true * np.nan))
    ]
    stats = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    got = rec.reduce_points(stats, np.array([[1.0, 1, 1, 1], [0, 0, 1, 1], [2, 0, 0, 5], [0, 0, 0, 1]]))
    first = rows[0]
    for name in (*rec.INLIERS_M, "coverage"):
        np.testing.assert_allclose(got[name], [(first[name] + 100) / 3, 0, first[name], np.nan])
    for name in ("pointmap_m", "pointmap_scaled_m", *rec.CLOUDS):
        np.testing.assert_allclose(got[name], [(first[name] + CLIP) / 3, CLIP, first[name], np.nan])


def test_shapes_and_scale_are_checked() -> None:
    with pytest.raises(TaskError, match="shapes"):
        rec.point_errors(np.zeros((4, 3)), np.zeros((5, 3)), CLIP)
    with pytest.raises(TaskError, match="no scale"):
        rec.point_errors(np.zeros((4, 3)), np.ones((4, 3)), CLIP)
