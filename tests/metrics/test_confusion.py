from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.metrics.confusion import ClassTotals, confusion

K = 5
maps = arrays(np.uint8, (3, 6, 7), elements=st.sampled_from([0, 1, 2, 3, 4, 255]))
predictions = arrays(np.uint8, (3, 6, 7), elements=st.integers(0, K - 1))


def counts_of(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.stack([confusion(t, p, K) for t, p in zip(truth, prediction, strict=True)])


def brute_force(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Intersections and unions (n, K), pixel by pixel."""
    intersection = np.zeros((len(truth), K), np.int64)
    union = np.zeros((len(truth), K), np.int64)
    for i in range(len(truth)):
        for t, p in zip(truth[i].ravel().tolist(), prediction[i].ravel().tolist(), strict=True):
            if t == 255:
                continue
            intersection[i, t] += t == p
            union[i, t] += 1
            union[i, p] += t != p
    return intersection, union


@settings(max_examples=60, deadline=None)
@given(maps, predictions)
def test_intersections_and_unions_are_not_off_brute_force(truth, prediction) -> None:
    totals = ClassTotals.of(counts_of(truth, prediction))
    intersection, union = brute_force(truth, prediction)
    assert np.array_equal(totals.right, intersection)
    assert np.array_equal(totals.truth + totals.predicted - totals.right, union)


def test_intersections_and_unions_are_not_off_mmsegmentation(tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 4, 255], (8, 60, 70)).astype(np.uint8)  # class 3 is absent
    truth[5] = 255
    prediction = rng.integers(0, K, truth.shape).astype(np.uint8)
    np.savez(tmp_path / "in.npz", truth=truth, prediction=prediction, classes=K)
    script = Path(__file__).with_name("mmseg_reference.py")
    subprocess.run(
        [sys.executable, script, tmp_path / "in.npz", tmp_path / "out.npz"], check=True, capture_output=True
    )
    reference = np.load(tmp_path / "out.npz")
    totals = ClassTotals.of(counts_of(truth, prediction))
    assert np.array_equal(totals.right, reference["intersection"])
    assert np.array_equal(totals.truth + totals.predicted - totals.right, reference["union"])


@settings(max_examples=40, deadline=None)
@given(maps, predictions, st.permutations(range(K)), arrays(float, (4, 3), elements=st.integers(0, 3)))
def test_renamed_classes_give_the_same_means(truth, prediction, order, weights) -> None:
    table = np.array([*order, *[0] * (255 - K), 255], np.uint8)
    a = ClassTotals.of(counts_of(truth, prediction))
    b = ClassTotals.of(counts_of(table[truth], table[prediction]))
    assert np.allclose(a.mean_iou(weights, a.present), b.mean_iou(weights, b.present), equal_nan=True)
    assert np.allclose(a.pixel_accuracy(weights), b.pixel_accuracy(weights), equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(maps, predictions, arrays(np.int64, 3, elements=st.integers(0, 3)))
def test_weights_are_not_other_than_repeated_images(truth, prediction, weights) -> None:
    totals = ClassTotals.of(counts_of(truth, prediction))
    repeated = ClassTotals.of(counts_of(truth, prediction).repeat(weights, axis=0))
    found = totals.iou(weights[None].astype(float))[0]
    assert np.allclose(found, repeated.iou(np.ones((1, weights.sum())))[0], equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(maps)
def test_perfect_prediction_is_not_below_one(truth) -> None:
    prediction = np.where(truth == 255, 0, truth).astype(np.uint8)
    totals = ClassTotals.of(counts_of(truth, prediction))
    value = totals.mean_iou(np.ones((1, 3)), totals.present)[0]
    assert value == 1.0 or not totals.present.any()


def test_hand_computed_case() -> None:
    truth = np.array([[0, 0, 1, 255]], np.uint8)
    prediction = np.array([[0, 1, 1, 2]], np.uint8)
    totals = ClassTotals.of(confusion(truth, prediction, 3)[None])
    assert totals.iou(np.ones((1, 1)))[0][:2].tolist() == [0.5, 0.5]
    assert totals.pixel_accuracy(np.ones((1, 1)))[0] == pytest.approx(2 / 3)


def test_class_absent_from_the_truth_is_not_in_the_mean() -> None:
    """Predicted where it never is, it costs the others' unions, but is no class of the mean."""
    truth = np.array([[0, 0, 1, 1]], np.uint8)
    prediction = np.array([[0, 2, 1, 1]], np.uint8)
    totals = ClassTotals.of(confusion(truth, prediction, 4)[None])
    assert totals.present.tolist() == [True, True, False, False]
    assert totals.mean_iou(np.ones((1, 1)), totals.present)[0] == pytest.approx((0.5 + 1.0) / 2)
    assert np.isnan(totals.iou(np.ones((1, 1)))[0, 3])


def test_resample_without_a_class_is_not_a_zero_for_it() -> None:
    truth = np.array([[[0, 0]], [[1, 1]]], np.uint8)
    totals = ClassTotals.of(np.stack([confusion(t, t, 2) for t in truth]))
    assert totals.mean_iou(np.array([[2.0, 0.0]]), totals.present)[0] == 1.0


def test_split_without_a_labelled_pixel_has_no_metric() -> None:
    blank = np.full((2, 2), 255, np.uint8)
    totals = ClassTotals.of(confusion(blank, np.zeros_like(blank), 3)[None])
    assert np.isnan(totals.mean_iou(np.ones((1, 1)), totals.present)[0])
    assert np.isnan(totals.pixel_accuracy(np.ones((1, 1)))[0])


@pytest.mark.parametrize(("truth", "prediction"), [(3, 0), (0, 3), (0, 255), (254, 0)])
def test_label_outside_the_classes_is_refused(truth: int, prediction: int) -> None:
    with pytest.raises(TaskError, match="3 classes"):
        confusion(np.array([[truth]], np.uint8), np.array([[prediction]], np.uint8), 3)


def test_unequal_sizes_are_refused() -> None:
    with pytest.raises(TaskError, match="truth is"):
        confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 3)
    with pytest.raises(TaskError, match="mask"):
        confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 3, np.ones((1, 2), bool))
