from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.metrics.human_matching import MIN_IOU, Matching, detection_scores_compat, match_people

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "multihmr_matching.json").read_text())


def people(rng: np.random.Generator, count: int, spread: float = 60.0, joints: int = 6) -> np.ndarray:
    """(count, joints, 2): clusters of key points, some of which overlap."""
    centres = rng.uniform(0, 4 * spread, (count, 1, 2))
    return centres + rng.normal(0, spread / 3, (count, joints, 2))


def iou_of_boxes(a: np.ndarray, b: np.ndarray) -> float:
    """By hand: widths count as max − min + 1."""
    ax0, ay0, ax1, ay1 = *a.min(0), *a.max(0)
    bx0, by0, bx1, by1 = *b.min(0), *b.max(0)
    w = max(0.0, min(ax1, bx1) - max(ax0, bx0) + 1)
    h = max(0.0, min(ay1, by1) - max(ay0, by0) + 1)
    union = (ax1 - ax0 + 1) * (ay1 - ay0 + 1) + (bx1 - bx0 + 1) * (by1 - by0 + 1) - w * h
    return w * h / union


def test_compat_equals_every_golden_case() -> None:
    assert len(GOLDEN["matching"]) == 120
    for case in GOLDEN["matching"]:
        found = match_people(np.array(case["pred"]), np.array(case["gt"]), "multihmr-compat")
        assert [list(m) for m in found.matches] == case["matches"]
        assert list(found.false_positives) == case["false_positives"]
        assert list(found.misses) == case["misses"]


def test_compat_scores_equal_every_golden_count_exactly() -> None:
    assert len(GOLDEN["prf"]) == 200
    for count, misses, false_positives, *expected in GOLDEN["prf"]:
        assert list(detection_scores_compat(count, misses, false_positives)) == expected


def test_golden_cases_show_that_the_quirks_matter() -> None:
    """The strict matcher finds more in some published cases and fewer in none."""
    more = 0
    for case in GOLDEN["matching"]:
        p, t = np.array(case["pred"]), np.array(case["gt"])
        strict = match_people(p, t, "strict")
        assert len(strict.matches) >= len(case["matches"])
        more += len(strict.matches) > len(case["matches"])
    assert more > 0


def test_compat_budget_loses_a_correct_third_match_and_strict_does_not() -> None:
    """Three people found exactly; two cross pairs lie close but do not overlap (§4.4, termination)."""
    narrow = np.array([[0, 0], [0, 100.0]])
    wide = np.array([[0, 0], [400.0, 0]])
    truth = np.stack([narrow, narrow + np.array([3, 0]), wide + np.array([0, 1000])])
    found = truth.copy()
    found[2, :, 0] += 200
    assert len(match_people(found, truth, "strict").matches) == 3
    compat = match_people(found, truth, "multihmr-compat")
    assert compat.matches == ((0, 0), (1, 1))
    assert compat.misses == (2,)
    assert compat.false_positives == (2,)


def brute_force(predicted: np.ndarray, truth: np.ndarray) -> tuple[int, float]:
    """(most pairs, least distance) over all one-to-one assignments behind the gate."""
    P, T = len(predicted), len(truth)
    best = (0, 0.0)
    for size in range(1, min(P, T) + 1):
        costs = []
        for rows in itertools.combinations(range(P), size):
            for columns in itertools.permutations(range(T), size):
                pairs = list(zip(rows, columns, strict=True))
                if all(iou_of_boxes(predicted[p], truth[t]) >= MIN_IOU for p, t in pairs):
                    costs.append(sum(cost(predicted[p], truth[t]) for p, t in pairs))
        if costs:
            best = (size, min(costs))
    return best


def cost(predicted: np.ndarray, truth: np.ndarray) -> float:
    diagonal = np.linalg.norm(truth.max(0) - truth.min(0) + 1)
    return float(np.mean([np.linalg.norm(a - b) for a, b in zip(predicted, truth, strict=True)]) / diagonal)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 4), st.integers(0, 4))
def test_strict_equals_brute_force(seed: int, P: int, T: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = people(rng, P), people(rng, T)
    found = match_people(predicted, truth, "strict")
    size, least = brute_force(predicted, truth)
    assert len(found.matches) == size
    assert sum(cost(predicted[p], truth[t]) for p, t in found.matches) == pytest.approx(least, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.integers(0, 6),
    st.integers(0, 6),
    st.sampled_from(["strict", "multihmr-compat"]),
)
def test_everybody_is_counted_once(seed: int, P: int, T: int, mode: str) -> None:
    rng = np.random.default_rng(seed)
    found = match_people(people(rng, P), people(rng, T), mode)  # type: ignore[arg-type]
    assert sorted([p for p, _ in found.matches] + list(found.false_positives)) == list(range(P))
    assert sorted([t for _, t in found.matches] + list(found.misses)) == list(range(T))
    assert found.truths == T


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_strict_does_not_depend_on_the_order_of_people(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = people(rng, 4), people(rng, 3)
    order, other = rng.permutation(4), rng.permutation(3)
    plain = set(match_people(predicted, truth, "strict").matches)
    mixed = match_people(predicted[order], truth[other], "strict").matches
    assert {(int(order[p]), int(other[t])) for p, t in mixed} == plain


@pytest.mark.parametrize("mode", ["strict", "multihmr-compat"])
def test_nan_prediction_is_a_false_positive_not_a_match(mode: str) -> None:
    truth = people(np.random.default_rng(0), 2)
    predicted = truth.copy()
    predicted[0, 3, 1] = np.nan
    found = match_people(predicted, truth, mode)  # type: ignore[arg-type]
    assert found.matches == ((1, 1),)
    assert found.false_positives == (0,)
    assert found.misses == (0,)


def test_ignored_people_are_neither_missed_nor_wrong() -> None:
    truth = np.array([[[0, 0], [10, 10]], [[100, 0], [110, 10]], [[200, 0], [210, 10.0]]])
    predicted = truth[[0, 1]] + 1.0
    found = match_people(predicted, truth, "strict", ignore=np.array([False, True, True]))
    assert found == Matching(matches=((0, 0),), false_positives=(), misses=(), ignored=(1,))
    assert found.truths == 1


def test_ignored_people_do_not_take_predictions_from_those_who_count() -> None:
    truth = np.array([[[0, 0], [10, 10]], [[1, 1], [11, 11.0]]])
    found = match_people(truth[[1]], truth, "strict", ignore=np.array([False, True]))
    assert found.matches == ((0, 0),)
    assert found.ignored == ()


@pytest.mark.parametrize("mode", ["strict", "multihmr-compat"])
def test_touching_gate_uses_published_box_convention(mode: str) -> None:
    """Boxes of widths w + 1: 20 and 1 pixel wide share 1 of 20 columns: IoU exactly 0.05, accepted."""
    truth = np.array([[[0.0, 0.0], [19.0, 0.0]]])
    inside = np.array([[[19.0, 0.0], [19.0, 0.0]]])
    outside = np.array([[[20.0, 0.0], [20.0, 0.0]]])
    assert match_people(inside, truth, mode).matches == ((0, 0),)  # type: ignore[arg-type]
    assert match_people(outside, truth, mode).matches == ()  # type: ignore[arg-type]


def test_bad_input_is_one_line() -> None:
    good = people(np.random.default_rng(1), 2)
    for predicted, truth, message in (
        (good[:, :5], good, "key points of shapes"),
        (good[0], good, "key points of shapes"),
        (good, np.full_like(good, np.nan), "not finite"),
    ):
        with pytest.raises(TaskError, match=message):
            match_people(predicted, truth, "strict")
    with pytest.raises(TaskError, match="no notion of ignored"):
        match_people(good, good, "multihmr-compat", ignore=np.zeros(2, bool))
    with pytest.raises(TaskError, match="`ignore` has shape"):
        match_people(good, good, "strict", ignore=np.zeros(3, bool))


def test_scores_by_hand_and_undefined_ones_are_nan() -> None:
    assert detection_scores_compat(1000, 33, 41) == (96.0, 97.0, 96.0)
    assert np.isnan(detection_scores_compat(0, 0, 3)[1])
    assert np.isnan(detection_scores_compat(3, 3, 0)[0])
    assert detection_scores_compat(3, 3, 0)[1] == 0
