"""Point-map and cloud errors against brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.metrics import reconstruction as rec


def clouds(seed: int, n: int = 40, m: int = 30) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal((0, 0, 3), 1, (n, 3)), rng.normal((0, 0, 3), 1, (m, 3))


@given(seed=st.integers(0, 2000))
def test_cloud_errors_equal_all_pairs(seed: int) -> None:
    predicted, true = clouds(seed)
    distances = np.linalg.norm(predicted[:, None] - true[None], axis=2)
    got = rec.cloud_errors(predicted, true)
    assert got["accuracy_m"] == pytest.approx(distances.min(1).mean(), rel=1e-9)
    assert got["completeness_m"] == pytest.approx(distances.min(0).mean(), rel=1e-9)
    assert got["chamfer_m"] == pytest.approx(
        (distances.min(1).mean() + distances.min(0).mean()) / 2, rel=1e-9
    )


def test_accuracy_and_completeness_are_not_swapped() -> None:
    """One of two true points is predicted, exactly: all accurate, half complete."""
    true = np.array([[0.0, 0, 1], [3, 0, 1]])
    got = rec.cloud_errors(true[:1], true)
    assert got["accuracy_m"] == 0
    assert got["completeness_m"] == 1.5


def test_large_cloud_is_thinned_evenly_and_deterministically() -> None:
    predicted, true = clouds(0, 5000, 4000)
    full, thin, again = (rec.cloud_errors(predicted, true, n) for n in (20_000, 1000, 1000))
    assert thin == again
    assert thin["chamfer_m"] == pytest.approx(full["chamfer_m"], rel=0.1)
    assert thin != full


def test_nan_point_is_no_point_and_an_empty_cloud_has_no_distance() -> None:
    predicted, true = clouds(1)
    holes = np.concatenate([predicted, np.full((5, 3), np.nan)])
    assert rec.cloud_errors(holes, true) == rec.cloud_errors(predicted, true)
    assert all(np.isnan(v) for v in rec.cloud_errors(predicted * np.nan, true).values())
    assert all(np.isnan(v) for v in rec.cloud_errors(predicted, true[:0]).values())


@given(seed=st.integers(0, 2000), scale=st.floats(0.1, 10))
def test_scaled_error_does_not_see_the_scale(seed: int, scale: float) -> None:
    predicted, true = clouds(seed, 30, 30)
    one, other = rec.point_errors(predicted, true), rec.point_errors(scale * predicted, true)
    assert one["pointmap_scaled_m"] == pytest.approx(other["pointmap_scaled_m"], rel=1e-9)
    perfect = rec.point_errors(scale * true, true)
    assert perfect["pointmap_scaled_m"] == pytest.approx(0, abs=1e-9)
    assert perfect["pointmap_m"] == pytest.approx(abs(scale - 1) * np.linalg.norm(true, axis=1).mean())


def test_hand_computed_point_errors() -> None:
    true = np.array([[0.0, 0, 2], [1, 0, 2], [0, 1, 2], [np.nan, 0, 0]])
    offsets = np.array([[0.04, 0, 0], [0.06, 0, 0], [np.nan, 0, 0], [0, 0, 0]])
    predicted = true + offsets
    got = rec.point_errors(predicted, true)
    assert got["pointmap_m"] == pytest.approx(0.05)
    assert got["inliers@5cm"] == pytest.approx(100 / 3)
    assert got["coverage"] == pytest.approx(200 / 3)


def test_missing_prediction_is_a_miss_and_missing_truth_is_nothing() -> None:
    true = clouds(0)[0]
    none = rec.point_errors(np.full_like(true, np.nan), true)
    assert none["inliers@5cm"] == none["coverage"] == 0
    assert np.isnan(none["pointmap_m"])
    assert all(np.isnan(v) for v in rec.point_errors(true, true * np.nan).values())


def test_failed_sample_lowers_inliers_and_does_not_turn_into_zero_distance() -> None:
    predicted, true = clouds(2, 30, 30)
    rows = [
        rec.point_errors(p, t) | rec.cloud_errors(p, t)
        for p, t in ((predicted, true), (true, true), (true * np.nan, true), (true, true * np.nan))
    ]
    stats = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    got = rec.reduce_points(stats, np.array([[1.0, 1, 1, 1], [0, 0, 1, 1], [2, 0, 0, 5], [0, 0, 0, 1]]))
    first = rows[0]
    share = first["inliers@5cm"]
    np.testing.assert_allclose(got["inliers@5cm"], [(share + 100) / 3, 0, share, np.nan])
    np.testing.assert_allclose(got["coverage"], [200 / 3, 0, 100, np.nan])
    for name in rec.DISTANCES:
        np.testing.assert_allclose(got[name], [first[name] / 2, np.nan, first[name], np.nan], atol=1e-12)


def test_shapes_and_scale_are_checked() -> None:
    with pytest.raises(TaskError, match="shapes"):
        rec.point_errors(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(TaskError, match="no scale"):
        rec.point_errors(np.zeros((4, 3)), np.ones((4, 3)))
