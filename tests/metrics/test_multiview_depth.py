from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.errors import TaskError, UsageError
from dune_bench.metrics.multiview_depth import (
    fuse_depths,
    fused_pairs,
    multiview_errors,
    resize_nearest,
    view_set_errors,
)

sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 2**31)


def brute(prediction: list[list[float]], truth: list[list[float]], alignment: str) -> tuple[float, float]:
    """rel and tau pixel by pixel."""
    height, width = len(truth), len(truth[0])
    pairs = []
    for y in range(height):
        for x in range(width):
            if truth[y][x] > 0:
                row = math.floor((y + 0.5) * len(prediction) / height)
                column = math.floor((x + 0.5) * len(prediction[0]) / width)
                pairs.append((prediction[row][column], truth[y][x]))
    scale = 1.0
    if alignment == "median":
        both = [(p, g) for p, g in pairs if p != 0]
        scale = statistics.median(g for _, g in both) / statistics.median(p for p, _ in both)
    clipped = [(min(max(p * scale, 0.1), 100.0), g) for p, g in pairs]
    rel = sum(abs(p - g) / g for p, g in clipped) / len(pairs)
    tau = sum(max(p / g, g / p) < 1.03 for p, g in clipped) / len(pairs)
    return 100 * rel, 100 * tau


@settings(max_examples=80, deadline=None)
@given(seeds, sizes, sizes, st.sampled_from(["none", "median"]))
def test_errors_are_not_off_brute_force(
    seed: int, of: tuple[int, int], to: tuple[int, int], alignment
) -> None:
    rng = np.random.default_rng(seed)
    truth = np.exp(rng.normal(0, 2, to)) * (rng.random(to) < 0.8)
    truth[0, 0] = 2.0
    prediction = np.where(rng.random(of) < 0.7, 2.0 * np.exp(rng.normal(0, 0.05, of)), rng.normal(0, 60, of))
    found = multiview_errors(prediction, truth, alignment)
    rel, tau = brute(prediction.tolist(), truth.tolist(), alignment)
    assert found == {"rel": pytest.approx(rel, rel=1e-9), "tau@1.03": pytest.approx(tau)}


def test_a_hand_computed_sample() -> None:
    truth = np.array([[1.0, 2.0], [4.0, 0.0]])
    prediction = np.array([[1.02, 1.0], [4.4, 50.0]])
    found = multiview_errors(prediction, truth, "none")
    assert found["rel"] == pytest.approx(100 * (0.02 + 0.5 + 0.1) / 3)
    assert found["tau@1.03"] == pytest.approx(100 / 3)
    aligned = multiview_errors(prediction, truth, "median")  # medians 2 and 1.02
    scale = 2 / 1.02
    assert aligned["rel"] == pytest.approx(100 * ((2 - 1) + (2 - scale) / 2 + (4.4 * scale - 4) / 4) / 3)


def test_the_threshold_is_strict_and_cuts_both_ways() -> None:
    truth = np.full((1, 4), 1.0)
    prediction = np.array([[1.03, 1.0299, 1 / 1.0299, 1 / 1.0301]])
    assert multiview_errors(prediction, truth, "none")["tau@1.03"] == 50.0


def test_clipping_comes_after_alignment() -> None:
    truth = np.array([[1.0, 1.0, 1.0]])
    assert multiview_errors(np.array([[1e4, 1e4, 1e4]]), truth, "median")["rel"] == 0.0
    assert multiview_errors(np.array([[1e4, 1e4, 1e4]]), truth, "none")["rel"] == pytest.approx(9900.0)
    assert multiview_errors(np.array([[-3.0, 0.0, 0.01]]), truth, "none")["rel"] == pytest.approx(90.0)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.01, 50.0))
def test_median_alignment_forgets_the_scale_and_none_does_not(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    truth, prediction = np.exp(rng.normal(0, 0.3, (2, 5, 6)))
    plain, scaled = (multiview_errors(p, truth, "median")["rel"] for p in (prediction, prediction * scale))
    assert plain == pytest.approx(scaled)
    assert multiview_errors(truth * 2, truth, "none")["rel"] == pytest.approx(100.0)


def test_no_truth_is_undefined_and_not_zero() -> None:
    for hole in (0.0, -1.0, np.nan, np.inf):
        found = multiview_errors(np.ones((2, 2)), np.full((2, 2), hole), "median")
        assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_depth_is_not_zero_error(bad: float) -> None:
    with pytest.raises(TaskError, match="not finite"):
        multiview_errors(np.array([[1.0, bad]]), np.ones((1, 2)), "none")


def test_pixels_without_prediction_do_not_set_the_scale() -> None:
    found = multiview_errors(np.array([[0.0, 0.0, 1.0, 1.0, 1.0]]), np.full((1, 5), 2.0), "median")
    assert found["tau@1.03"] == 60.0
    assert multiview_errors(np.array([[0.0, 0.0, 1.0]]), np.full((1, 3), 2.0), "median")["tau@1.03"] > 0


@pytest.mark.parametrize("depth", [[0.0, 0.0], [-1.0, 1.0]])
def test_a_median_of_zero_is_not_aligned_in_silence(depth: list[float]) -> None:
    with pytest.raises(TaskError, match="cannot be aligned"):
        multiview_errors(np.array([depth]), np.ones((1, 2)), "median")


def test_resizing_takes_pixels_and_blends_none() -> None:
    depth = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert resize_nearest(depth, (1, 4)).tolist() == [[3.0, 3.0, 4.0, 4.0]]
    assert resize_nearest(depth, (2, 2)).tolist() == depth.tolist()
    assert resize_nearest(np.arange(9.0)[None], (1, 3)).tolist() == [[1.0, 4.0, 7.0]]


TRUTH = np.full((3, 4), 2.0)
FACTORS = {0: 1.3, 1: 0.9, 3: 1.02, 4: 0.5}


def pairs_of(factors: dict[int, float]):
    return fused_pairs({v: TRUTH * f for v, f in factors.items()}, {v: np.ones((3, 4)) for v in factors})


def test_quasi_optimal_adds_views_by_their_own_error() -> None:
    found = view_set_errors(pairs_of(FACTORS), (0, 1, 3, 4), 2, TRUTH, "quasi-optimal", "none")
    assert found.order == (3, 1, 0, 4)
    means = [1.02, (1.02 + 0.9) / 2, (1.02 + 0.9 + 1.3) / 3, (1.02 + 0.9 + 1.3 + 0.5) / 4]
    assert found.rel == pytest.approx([100 * abs(mean - 1) for mean in means])
    assert found.tau.tolist() == [100.0, 0.0, 0.0, 0.0]
    assert found.best_views == 1
    assert found.best == {"rel": pytest.approx(2.0), "tau@1.03": 100.0}


def test_nearest_reads_no_truth_to_order_views() -> None:
    found = view_set_errors(pairs_of(FACTORS), (4, 3, 1, 0), 2, TRUTH, "nearest", "none")
    assert found.order == (1, 3, 0, 4)
    other = view_set_errors(pairs_of(FACTORS), (4, 3, 1, 0), 2, TRUTH * 9, "nearest", "none")
    assert other.order == found.order
    assert found.best_views == 2


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 5), st.sampled_from(["nearest", "quasi-optimal"]))
def test_each_row_is_the_error_of_its_own_set(seed: int, count: int, order) -> None:
    rng = np.random.default_rng(seed)
    truth = np.exp(rng.normal(size=(3, 4)))
    sources = [int(v) for v in rng.permutation(8)[:count] if v != 4] or [0]
    depths = {v: truth * np.exp(rng.normal(0, 0.3, (2, 3, 4)))[0] for v in sources}
    weights = {v: 1 + np.exp(rng.normal(size=(3, 4))) for v in sources}
    asked = []
    fused = fused_pairs(depths, weights)

    def predict(views: tuple[int, ...]):
        asked.append(views)
        return fused(views)

    found = view_set_errors(predict, sources, 4, truth, order, "median")
    assert sorted(found.order) == sorted(sources)
    assert len(asked) == len(set(asked)), "no set is predicted twice"
    for k in range(len(sources)):
        views = found.order[: k + 1]
        mean = sum(depths[v] * weights[v] for v in views) / sum(weights[v] for v in views)
        expected = multiview_errors(mean, truth, "median")
        assert (found.rel[k], found.tau[k]) == pytest.approx(tuple(expected.values()))
    assert found.best["rel"] == found.rel.min()
    if order == "quasi-optimal":
        alone = [multiview_errors(depths[v], truth, "median")["rel"] for v in found.order]
        assert alone == sorted(alone)


def test_confidence_decides_pixel_by_pixel() -> None:
    depths = np.array([[[1.0, 1.0]], [[3.0, 3.0]]])
    assert fuse_depths(depths, np.array([[[1.0, 3.0]], [[1.0, 1.0]]])).tolist() == [[2.0, 1.5]]


@pytest.mark.parametrize(
    ("depth", "confidence", "message"),
    [(np.nan, 1.0, "depth"), (1.0, 0.0, "above 0"), (1.0, np.inf, "above 0"), (1.0, np.nan, "above 0")],
)
def test_fusion_hides_no_bad_number(depth: float, confidence: float, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        fuse_depths(np.full((1, 1, 1), depth), np.full((1, 1, 1), confidence))


def test_unlike_maps_and_empty_sets_are_refused() -> None:
    with pytest.raises(TaskError, match="do not belong together"):
        fuse_depths(np.ones((2, 1, 1)), np.ones((1, 1, 1)))
    with pytest.raises(UsageError, match="at least one source view"):
        view_set_errors(pairs_of(FACTORS), (), 2, TRUTH, "nearest", "none")
    with pytest.raises(TaskError, match="no true depth"):
        view_set_errors(pairs_of(FACTORS), (1,), 2, TRUTH * 0, "nearest", "none")
