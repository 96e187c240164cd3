from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from dune_bench.data.base import Lazy, LazyItem
from dune_bench.data.samples import PairSample
from dune_bench.errors import TaskError
from dune_bench.probes.base import Head, ProbeContext
from dune_bench.probes.correspondence import (
    CorrespondenceNN,
    CorrespondenceProbe,
    Correspondences,
    score_places,
)
from dune_bench.probes.correspondence_truth import lattice, pair_truth, same_places
from dune_bench.probes.grids import TokenGrid
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes.fake_features import FakeFeatures
from tests.probes.pair_scene import SIZE, Ball, lazy_pairs, room_pair, surface_code

CARD = Path(__file__).parents[2] / "tasks" / "correspondence_minirooms.yaml"
CTX = ProbeContext()
GRID = TokenGrid((24, 24), (336, 336))
BALL = Ball()
RECALLS = ("recall@5px", "recall@10px", "recall@2cm", "recall@5cm")


def constants(**changes: Any) -> CorrespondenceNN:
    return CorrespondenceNN.model_validate({**load_card(CARD, TaskCard).protocol, **changes})


def probe(**changes: Any) -> CorrespondenceProbe:
    return CorrespondenceProbe(constants(**changes))


def codes(pairs: list[PairSample]) -> FakeFeatures:
    views = {v.image.id: v for p in pairs for v in (p.view1, p.view2)}
    return FakeFeatures({name: surface_code(v, GRID, BALL) for name, v in views.items()}, GRID.image_size)


def stack(rows: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def evaluate(features: FakeFeatures, pairs: list[PairSample], **changes: Any) -> dict[str, NDArray[Any]]:
    p = probe(**changes)
    predictions = p.predict(features, lazy_pairs(pairs), Head({}), {}, CTX)
    return stack([p.score(found, pair) for found, pair in zip(predictions, pairs, strict=True)])


def values(stats: dict[str, NDArray[Any]]) -> dict[str, float]:
    found = probe().reduce(stats, np.ones((1, len(stats["asked"]))))
    return {name: float(value[0]) for name, value in found.items()}


def pairs_of_all_bins() -> list[PairSample]:
    return [room_pair(yaw, 0.4, BALL, f"p{yaw}") for yaw in (5, 20, 40)]


def test_true_answers_do_not_miss() -> None:
    for pair in pairs_of_all_bins():
        truth = pair_truth(pair, lattice(SIZE, 24), 0.01)
        found = values(stack([score_places(truth.places2, pair, constants())]))
        assert [found[name] for name in RECALLS] == [100.0] * 4


def test_features_that_name_the_surface_reach_what_the_token_grid_allows() -> None:
    pairs = pairs_of_all_bins()
    stats = evaluate(codes(pairs), pairs)
    found = values(stats)
    # A token is 18.7 px wide: without refinement half of the answers are more than 7.5 px off.
    assert found["recall@10px"] > 90
    assert found["recall@5px"] > 70
    assert not stats["failed"].any()
    plain = {"centre": "none", "refine": "none", "temperature": 0.1}
    assert values(evaluate(codes(pairs), pairs, matching=plain))["recall@5px"] < found["recall@5px"] - 20


def test_the_same_place_does_not_pass_for_a_match() -> None:
    pair = room_pair(20.0, 0.5, BALL)
    found = values(stack([score_places(same_places(pair, 24), pair, constants())]))
    assert found["recall@10px"] < 2
    still = PairSample("still", "room", pair.view1, pair.view1, 1.0)
    found = values(stack([score_places(same_places(still, 24), still, constants())]))
    assert [found[name] for name in RECALLS] == [100.0] * 4


def test_nan_features_are_misses_and_are_reported() -> None:
    pairs = pairs_of_all_bins()
    features = codes(pairs)
    features.maps["p20-2"][0, 3, 3] = float("nan")
    stats = evaluate(features, pairs)
    assert stats["failed"].tolist() == [False, True, False]
    assert stats["answered"][1] == 0
    assert stats["asked"][1] >= 16
    assert not stats["hits_px"][1].any()
    assert not stats["hits_cm"][1].any()
    found = values(stats)
    assert found["recall@10px_rot15_30deg"] == 0.0
    rest = np.mean([found["recall@10px_rot0_15deg"], found["recall@10px_rot30_60deg"]])
    assert found["recall@10px"] == pytest.approx(2 / 3 * rest)


def test_a_pair_without_common_surface_is_left_out_and_is_no_zero_and_no_hit() -> None:
    apart = room_pair(180.0, 0.0, None, "apart")
    pairs = [room_pair(5, 0.4, BALL, "near"), apart]
    stats = evaluate(codes(pairs), pairs)
    assert stats["asked"].tolist()[1] == 0
    assert stats["failed"].tolist() == [False, True]
    alone = {name: rows[:1] for name, rows in stats.items()}
    assert values(stats)["recall@10px"] == values(alone)["recall@10px"]
    only = values({name: rows[1:] for name, rows in stats.items()})
    assert all(np.isnan(value) for value in only.values())


def test_too_few_points_fail_the_pair() -> None:
    pair = room_pair(20.0, 0.5, BALL)
    row = score_places(same_places(pair, 3), pair, constants(lattice=3))
    assert 0 < row["asked"] < 16
    assert row["failed"]


def test_answers_are_made_without_reading_the_truth() -> None:
    pair = room_pair(20.0, 0.5, BALL)
    features = codes([pair])

    def read() -> PairSample:
        raise AssertionError("the sample was read")

    blind: Lazy[PairSample] = Lazy([LazyItem(pair.id, "room", (pair.view1.image, pair.view2.image), read)])
    (found,) = probe().predict(features, blind, Head({}), {}, CTX)
    assert found.places2.shape == (576, 2)
    assert np.isfinite(found.places2).all()


def test_every_encoder_is_asked_the_same_points() -> None:
    pair = room_pair(20.0, 0.5, BALL)
    coarse = TokenGrid((11, 11), (336, 336), (8, 8, 8, 8))
    maps = {v.image.id: surface_code(v, coarse, BALL) for v in (pair.view1, pair.view2)}
    stats = evaluate(FakeFeatures(maps, (336, 336), coarse.padding), [pair])
    fine = evaluate(codes([pair]), [pair])
    assert stats["asked"] == fine["asked"]
    assert values(stats)["recall@10px"] > 40  # tokens of 43 px


def test_metrics_are_means_of_pairs_and_not_of_points() -> None:
    rng = np.random.default_rng(0)
    asked = np.array([400, 20, 3, 100])
    stats = {
        "asked": asked,
        "answered": asked,
        "hits_px": rng.integers(0, asked[:, None] + 1, (4, 2)),
        "hits_cm": rng.integers(0, asked[:, None] + 1, (4, 2)),
        "rotation_deg": np.array([3.0, 15.0, 15.0, 59.9]),
        "light_change": np.array([1.0, 1.3, 1.7, 1.3]),
        "failed": asked < 16,
    }
    weights = np.array([[1, 1, 1, 1], [2, 0, 5, 1], [0, 3, 1, 0]], dtype=float)
    found = probe().reduce(stats, weights)
    share = 100 * stats["hits_px"][:, 1] / asked
    for row, w in enumerate(weights):
        use = [0] * int(w[0]) + [1] * int(w[1]) + [3] * int(w[3])  # pair 2 has too few points
        assert found["recall@10px"][row] == pytest.approx(np.mean(share[use]))
        lit = [i for i in use if i in (1, 3)]
        assert found["recall@10px_light1.25_1.6"][row] == pytest.approx(np.mean(share[lit]))
    assert found["recall@10px_rot0_15deg"][0] == pytest.approx(share[0])
    assert found["recall@10px_rot15_30deg"][0] == pytest.approx(share[1])
    assert np.isnan(found["recall@10px_rot0_15deg"][2])


def test_breakdown_of_an_empty_bin_is_none_and_not_zero() -> None:
    pairs = pairs_of_all_bins()
    parts = {
        (part.metric, part.by): part.values for part in probe().breakdowns(evaluate(codes(pairs), pairs), CTX)
    }
    by_rotation = parts["recall@10px", "rotation_deg"]
    assert list(by_rotation) == ["0-15", "15-30", "30-60", "60-180"]
    assert by_rotation["60-180"] is None
    assert by_rotation["0-15"] is not None
    assert len(parts) == 8


def test_card_metrics_are_those_that_the_probe_returns() -> None:
    pairs = pairs_of_all_bins()
    wanted = {m.id for m in load_card(CARD, TaskCard).metrics}
    assert wanted <= set(values(evaluate(codes(pairs), pairs)))


def test_an_occlusion_test_coarser_than_a_threshold_is_refused() -> None:
    with pytest.raises(ValidationError, match="even true answers would miss"):
        constants(occlusion_cm=3.0)
    with pytest.raises(ValidationError, match="ascending"):
        constants(thresholds_px=[10, 5])


def test_another_number_of_answers_is_refused() -> None:
    pair = room_pair()
    with pytest.raises(TaskError, match="answers of shape"):
        probe().score(Correspondences(np.zeros((5, 2))), pair)


def test_there_is_nothing_to_fit() -> None:
    pair = room_pair()
    assert probe().fit(codes([pair]), lazy_pairs([pair]), {}, CTX).tensors == {}


def test_numbers_do_not_depend_on_the_threads() -> None:
    pairs = pairs_of_all_bins()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = evaluate(codes(pairs), pairs)
        torch.set_num_threads(2)
        two = evaluate(codes(pairs), pairs)
    finally:
        torch.set_num_threads(before)
    assert one["hits_px"].tolist() == two["hits_px"].tolist()
