from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.data.samples import SegSample
from dune_bench.errors import TaskError
from dune_bench.probes.base import Head, ProbeContext
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.semseg import SegPrediction, SemsegConvex, SemsegProbe
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes.fake_features import FakeFeatures, lazy, seg_sample

CARD = Path(__file__).parents[2] / "tasks" / "semseg_minirooms.yaml"
CLASSES = ("wall", "floor", "chair")
CTX = ProbeContext(classes=CLASSES)


def probe() -> SemsegProbe:
    return SemsegProbe(SemsegConvex.model_validate(load_card(CARD, TaskCard).protocol))


def scenes(count: int = 12, seed: int = 0) -> tuple[FakeFeatures, list[SegSample]]:
    """Images of 4 × 4 tokens, 8 label pixels each, whose features say the class with some noise."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, 6))
    maps, samples = {}, []
    for i in range(count):
        cells = rng.integers(0, 3, (4, 4))
        labels = np.kron(cells, np.ones((8, 8), int)).astype(np.uint8)
        labels[rng.random(labels.shape) < 0.1] = 255
        x = centres[cells] + 0.5 * rng.normal(size=(4, 4, 6))
        maps[f"i{i}"] = torch.from_numpy(x.transpose(2, 0, 1)).float()
        seen = np.zeros((32, 32), bool)
        seen[:, :16] = True
        samples.append(seg_sample(f"i{i}", labels, f"room{i // 2}", seen))
    return FakeFeatures(maps, (56, 56)), samples


def evaluate(features: FakeFeatures, samples: list[SegSample], head: Head) -> dict[str, np.ndarray]:
    p = probe()
    rows = [
        p.score(prediction, sample)
        for prediction, sample in zip(p.predict(features, lazy(samples), head, {}, CTX), samples, strict=True)
    ]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_head_does_not_miss_what_the_features_say() -> None:
    features, samples = scenes()
    head = probe().fit(features, lazy(samples), {}, CTX)
    test_features, test_samples = scenes(seed=1)
    stats = evaluate(test_features, test_samples, head)
    metrics = probe().reduce(stats, np.ones((1, len(test_samples))))
    assert metrics["miou"][0] > 60  # cell borders cost some: the upsampling is bilinear
    assert head.choices["converged"] is True
    assert head.choices["excess_loss_at_most"] <= 1e-6


def test_card_metrics_are_those_that_the_probe_returns() -> None:
    features, samples = scenes()
    stats = evaluate(features, samples, probe().fit(features, lazy(samples), {}, CTX))
    metrics = probe().reduce(stats, np.ones((1, len(samples))))
    assert set(metrics) == {m.id for m in load_card(CARD, TaskCard).metrics}


def test_fit_does_not_depend_on_the_chunk_budget() -> None:
    features, samples = scenes()
    heads = [
        probe().fit(features, lazy(samples), {}, replace(CTX, chunk_bytes=size)) for size in (1, 1000, 2**20)
    ]
    maps = [
        np.stack([p.logits for p in probe().predict(features, lazy(samples), head, {}, CTX)])
        for head in heads
    ]
    shares = [np.exp(m) / np.exp(m).sum(1, keepdims=True) for m in maps]
    assert np.abs(shares[0] - shares[1]).max() < 1e-3
    assert np.abs(shares[0] - shares[2]).max() < 1e-3


def test_predictions_do_not_depend_on_the_chunk_budget_at_all() -> None:
    features, samples = scenes()
    head = probe().fit(features, lazy(samples), {}, CTX)
    whole = [p.logits for p in probe().predict(features, lazy(samples), head, {}, CTX)]
    single = [
        p.logits for p in probe().predict(features, lazy(samples), head, {}, replace(CTX, chunk_bytes=1))
    ]
    assert all(np.array_equal(a, b) for a, b in zip(whole, single, strict=True))


def test_streamed_fit_never_holds_all_features() -> None:
    features, samples = scenes(count=40)
    budget = 4 * features.image_bytes
    probe().fit(features, lazy(samples), {}, replace(CTX, chunk_bytes=budget))
    assert features.batches_read > 10
    # Each thread works on one block while the next is read; here a batch makes one small block.
    assert features.most_alive <= (torch.get_num_threads() + 3) * budget
    assert features.most_alive < 40 * features.image_bytes


def test_one_room_cannot_choose_lambda() -> None:
    features, samples = scenes(count=2)
    with pytest.raises(TaskError, match="at least 2 groups"):
        probe().fit(features, lazy(samples), {}, CTX)


def test_unknown_label_names_the_sample() -> None:
    features, samples = scenes()
    samples[3].labels[0, 0] = 7
    with pytest.raises(TaskError, match="sample i3 has label 7"):
        probe().fit(features, lazy(samples), {}, CTX)


def test_nan_features_fail_the_prediction_by_name() -> None:
    features, samples = scenes()
    head = probe().fit(features, lazy(samples), {}, CTX)
    features.maps["i5"][0, 0, 0] = float("nan")
    with pytest.raises(TaskError, match="i5"):
        list(probe().predict(features, lazy(samples), head, {}, CTX))


def test_head_of_other_features_is_refused() -> None:
    features, samples = scenes()
    head = probe().fit(features, lazy(samples), {}, CTX)
    other = FakeFeatures({k: v[:4] for k, v in features.maps.items()}, (56, 56))
    with pytest.raises(TaskError, match="takes 6 channels, the features have 4"):
        list(probe().predict(other, lazy(samples), head, {}, CTX))


def test_wholly_ignored_image_changes_nothing() -> None:
    features, samples = scenes()
    head = probe().fit(features, lazy(samples), {}, CTX)
    stats = evaluate(features, samples, head)
    blank = [*samples, replace(samples[0], labels=np.full((32, 32), 255, np.uint8))]
    more = evaluate(features, blank, head)
    a = probe().reduce(stats, np.ones((1, 12)))
    b = probe().reduce(more, np.ones((1, 13)))
    assert {k: v.tolist() for k, v in a.items()} == {k: v.tolist() for k, v in b.items()}


def test_seen_and_unseen_pixels_add_up_and_share_their_classes() -> None:
    features, samples = scenes()
    head = probe().fit(features, lazy(samples), {}, CTX)
    stats = evaluate(features, samples, head)
    assert (stats["confusion_seen"] <= stats["confusion"]).all()
    seen = stats["confusion_seen"].copy()
    seen[:, 2, :] = 0  # no chair of a seen model: chairs leave both means
    metrics = probe().reduce({**stats, "confusion_seen": seen}, np.ones((1, 12)))
    rest = (stats["confusion"] - seen).sum(0)
    union = rest.sum(0) + rest.sum(1) - np.diag(rest)
    assert metrics["miou@unseen"][0] == pytest.approx(100 * (np.diag(rest) / union)[:2].mean())


def test_breakdown_of_an_absent_class_is_none_and_not_zero() -> None:
    counts = np.zeros((2, 3, 3), np.int64)
    counts[:, 0, 0], counts[:, 1, 0] = 5, 5
    (iou,) = probe().breakdowns({"confusion": counts}, CTX)
    assert iou.values == {"wall": 50.0, "floor": 0.0, "chair": None}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31))
def test_labels_are_not_other_than_argmax_of_the_upsampled_logits(
    h: int, w: int, height: int, width: int, seed: int
) -> None:
    logits = np.random.default_rng(seed).integers(-3, 3, (4, h, w)).astype(np.float32)
    prediction = SegPrediction(logits, TokenGrid((h, w), (14 * h, 14 * w)))
    expected = prediction.grid.upsample(logits, (height, width)).argmax(0)
    assert np.array_equal(prediction.labels((height, width)), expected)
