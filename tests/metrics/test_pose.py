"""Relative-pose metrics against the published histogram and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dune_bench.metrics import pose


def transform(angle: float, direction: tuple[float, float, float], axis: str = "y") -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler(axis, angle, degrees=True).as_matrix()
    T[:3, 3] = direction
    return T


def stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def random_stats(seed: int, n: int = 50) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        angle = rng.exponential(12)
        estimate = transform(min(angle, 180), tuple(rng.normal((1, 0, 0), 0.3)))
        if rng.random() < 0.1:
            estimate[:3, 3] *= -1
        rows.append(pose.pair_errors(None if rng.random() < 0.05 else estimate, transform(0, (1, 0, 0))))
    return stack(rows)


@given(seed=st.integers(0, 3000))
def test_maa_equals_the_published_histogram(seed: int) -> None:
    stats = random_stats(seed)
    for name, trans in (("maa@30deg", "trans_line_deg"), ("maa_signed@30deg", "trans_deg")):
        errors = np.maximum(stats["rot_deg"], stats[trans])
        histogram, _ = np.histogram(errors, bins=np.arange(31))
        published = 100 * np.mean(np.cumsum(histogram / len(errors)))
        got = pose.reduce_pairs(stats, np.ones((1, 50)))
        assert got[name][0] == pytest.approx(published, abs=1e-9)


@given(errors=st.lists(st.sampled_from([0.0, 0.5, 1.0, 29.0, 29.5, 30.0, 30.5, 180.0]), min_size=1))
def test_bin_edges_fall_as_in_the_histogram(errors: list[float]) -> None:
    histogram, _ = np.histogram(errors, bins=np.arange(31))
    published = np.mean(np.cumsum(histogram / len(errors)))
    assert pose.maa_credit(np.array(errors)).mean() == pytest.approx(published)


def test_exact_area_is_below_the_histogram_by_about_half_a_bin() -> None:
    stats = random_stats(1, 3000)
    got = pose.reduce_pairs(stats, np.ones((1, 3000)))
    errors = np.maximum(stats["rot_deg"], stats["trans_line_deg"])
    grid = np.linspace(0, 30, 30_001)
    area = np.mean([(errors < t).mean() for t in grid[::10]])
    assert got["maa_exact@30deg"][0] == pytest.approx(100 * area, abs=0.1)
    assert 0.5 < got["maa@30deg"][0] - got["maa_exact@30deg"][0] < 2.5


def test_opposite_translation_is_right_only_without_the_sign() -> None:
    true = transform(0, (0, 0, 1))
    row = pose.pair_errors(transform(3, (0, 0, -2)), true)
    assert row["rot_deg"] == pytest.approx(3)
    assert row["trans_deg"] == 180
    assert row["trans_line_deg"] == 0
    got = pose.reduce_pairs(stack([row]), np.ones((1, 1)))
    assert (got["rta@15deg"][0], got["rta_signed@15deg"][0]) == (100, 0)
    assert got["maa@30deg"][0] == pytest.approx(100 * 27 / 30)
    assert got["maa_exact@30deg"][0] == pytest.approx(100 * 27 / 30)
    assert got["maa_signed@30deg"][0] == 0


@given(angle=st.floats(0, 90))
def test_line_error_is_the_published_formula(angle: float) -> None:
    a, b = np.array([1.0, 0, 0]), np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0])
    published = np.degrees(np.arccos(np.sqrt(1 - max(1e-15, 1 - (a @ b) ** 2))))
    row = pose.pair_errors(transform(0, tuple(3 * b)), transform(0, tuple(a)))
    assert row["trans_line_deg"] == pytest.approx(published, abs=1e-5)


def test_missing_estimate_is_a_miss_not_a_zero_error() -> None:
    true = transform(0, (1, 0, 0))
    no_direction = transform(1, (np.nan, np.nan, np.nan))
    rows = [
        pose.pair_errors(None, true),
        pose.pair_errors(np.full((4, 4), np.nan), true),
        pose.pair_errors(no_direction, true),
    ]
    stats = stack(rows)
    assert stats["failed"].tolist() == [True, True, False]
    got = pose.reduce_pairs(stats, np.ones((1, 3)))
    assert got["rra@15deg"][0] == pytest.approx(100 / 3)
    for name in ("rta@15deg", "rta_signed@15deg", "maa@30deg", "maa_exact@30deg"):
        assert got[name][0] == 0


def test_pure_rotation_pair_counts_for_rotation_only() -> None:
    still = pose.pair_errors(transform(0, (1, 2, 3)), transform(0, (0, 0, 0)))
    moving = pose.pair_errors(transform(0, (1, 0, 0)), transform(0, (1, 0, 0)))
    got = pose.reduce_pairs(stack([still, moving]), np.array([[1.0, 1.0], [1.0, 0.0]]))
    assert got["rra@5deg"].tolist() == [100, 100]
    np.testing.assert_array_equal(got["rta@15deg"], [100, np.nan])


@given(seed=st.integers(0, 500))
def test_weights_are_multiplicities(seed: int) -> None:
    stats = random_stats(seed, 12)
    copies = np.random.default_rng(seed).integers(0, 4, 12)
    copies[0] += 1
    repeated = {name: np.repeat(values, copies) for name, values in stats.items()}
    got = pose.reduce_pairs(stats, copies[None].astype(float))
    want = pose.reduce_pairs(repeated, np.ones((1, copies.sum())))
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, atol=1e-9)


def test_rotation_thresholds_are_strict() -> None:
    row = {"rot_deg": np.array([5.0, 15.0]), "trans_deg": np.array([15.0, 14.9])}
    row |= {"trans_line_deg": row["trans_deg"], "has_baseline": np.array([True, True])}
    got = pose.reduce_pairs(row, np.ones((1, 2)))
    assert (got["rra@5deg"][0], got["rra@15deg"][0], got["rta@15deg"][0]) == (0, 50, 50)
