from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from dune_bench.data.samples import HumanSample
from dune_bench.errors import TaskError
from dune_bench.metrics.human_errors import ERRORS
from dune_bench.metrics.human_statistics import penalised_id
from dune_bench.probes.base import Head, ProbeContext, SilentProgress
from dune_bench.probes.hmr_bodies import GROUPS
from dune_bench.probes.hmr_oracles import mean_bodies, mean_row, oracle
from dune_bench.probes.hmr_prediction import PeoplePrediction, nobody
from dune_bench.registry.cards import TaskCard, load_card
from dune_bench.run.probing import score_all
from tests.probes.fake_features import FakeFeatures
from tests.probes.hmr_world import (
    CARD,
    GRID,
    bodies,
    crowd,
    lazy,
    model,
    person,
    probe,
    sample,
    someone,
    telling,
    upright,
)

CTX = ProbeContext()
TRAIN, TEST = 30, 6


@cache
def train() -> tuple[list[HumanSample], FakeFeatures]:
    samples = crowd(TRAIN)
    return samples, telling(samples)


@cache
def head() -> Head:
    samples, features = train()
    return probe().fit(features, lazy(samples), {}, CTX)


def metrics(found: Iterable[PeoplePrediction], samples: list[HumanSample]) -> dict[str, float]:
    p = probe()
    stats = score_all(p, found, samples, SilentProgress())
    return {name: float(value[0]) for name, value in p.reduce(stats, np.ones((1, len(samples)))).items()}


def truth(samples: list[HumanSample], **options: Any) -> list[PeoplePrediction]:
    return list(oracle(lazy(samples), GRID, bodies(), probe().protocol, **options))


def test_true_bodies_are_not_wrong() -> None:
    samples = crowd(3, seed=3)
    found = metrics(truth(samples), samples)
    assert found["f1"] == found["f1@multihmr"] == 100.0
    assert found["pve_mm"] < 0.1
    for name in ERRORS:
        assert found[name] < 0.1


def test_card_metrics_are_those_that_the_probe_returns() -> None:
    samples = crowd(2, seed=4)
    assert set(metrics(truth(samples), samples)) >= {m.id for m in load_card(CARD, TaskCard).metrics}


def test_what_the_features_say_of_bodies_is_not_lost() -> None:
    samples = crowd(TEST, seed=1)
    features = telling(samples, seed=6)
    found = metrics(probe().predict(features, lazy(samples), head(), {}, CTX), samples)
    blind = metrics(probe().predict(features, lazy(samples), mean_bodies(head()), {}, CTX), samples)
    assert found["recall"] == 100.0
    assert found["precision"] == 100.0
    assert found["pve_mm"] < 0.4 * blind["pve_mm"]
    assert found["depth_error_m"] < 0.5 * blind["depth_error_m"]


def test_held_out_f1_is_that_of_a_detector_that_works() -> None:
    assert head().choices["held_out_f1"] > 98.0
    assert head().choices["bodies"]["orientation"]["held_out_share"] < 0.2
    assert head().choices["people"] == 2 * TRAIN


def test_blind_features_do_not_find_people() -> None:
    samples, features = train()
    rng = np.random.default_rng(0)
    noise = {name: torch.from_numpy(rng.normal(size=x.shape)).float() for name, x in features.maps.items()}
    blind = probe().fit(FakeFeatures(noise, (336, 336)), lazy(samples), {}, CTX)
    assert blind.choices["held_out_f1"] < 30.0
    assert blind.choices["bodies"]["orientation"]["held_out_share"] > 0.9


def test_fit_does_not_depend_on_the_chunk_budget() -> None:
    samples, features = train()
    other = probe().fit(features, lazy(samples), {}, replace(CTX, chunk_bytes=1)).tensors
    # The detector's solver stops at a tolerance, on float32 sums whose blocks follow the budget.
    for name, value in other.items():
        assert torch.allclose(head().tensors[name], value, rtol=1e-3, atol=1e-3), name


def test_nan_image_is_not_zero_error() -> None:
    samples = crowd(2, seed=1)
    features = telling(samples, seed=6)
    features.maps["i1"][3, 5, 5] = np.nan
    p = probe()
    found = list(p.predict(features, lazy(samples), head(), {}, CTX))
    assert [bool(f.failed) for f in found] == [False, True]
    stats = score_all(p, found, samples, SilentProgress())
    assert stats["failed"].tolist() == [False, True]
    assert stats["misses"].tolist() == [0, 2]
    only = {name: float(v[0]) for name, v in p.reduce(stats, np.array([[0.0, 1.0]])).items()}
    assert only["pve_mm@miss350mm"] == 350.0
    assert np.isnan(only["pve_mm"])
    assert only["recall"] == 0.0


def test_nan_training_image_is_one_clear_line() -> None:
    samples, features = train()
    broken = FakeFeatures({**features.maps, "i3": features.maps["i3"] * np.nan}, (336, 336))
    with pytest.raises(TaskError, match="the features are not finite"):
        probe().fit(broken, lazy(samples), {}, CTX)


def test_head_of_other_features_is_refused() -> None:
    samples = crowd(1)
    narrow = FakeFeatures({"i0": torch.zeros(7, 24, 24)}, (336, 336))
    with pytest.raises(TaskError, match="the head takes 32 channels, the features have 7"):
        next(iter(probe().predict(narrow, lazy(samples), head(), {}, CTX)))


def test_nobody_to_find_and_nobody_found_is_neither_right_nor_wrong() -> None:
    empty = [sample("i", [])]
    found = metrics([nobody(model())], empty)
    assert all(np.isnan(value) for value in found.values())


def test_missing_everyone_does_not_pay() -> None:
    samples = crowd(1, seed=3)
    found = metrics([nobody(model())], samples)
    for name, penalty in probe().protocol.penalties.items():
        assert found[penalised_id(name, penalty)] == penalty


def test_prediction_behind_the_camera_finds_nobody() -> None:
    samples = crowd(1, seed=3)
    (there,) = truth(samples)
    away = np.eye(4, dtype=np.float32)
    away[2, 3] = -20.0
    behind = replace(there, bodies=there.bodies.moved(torch.from_numpy(away)))
    found = metrics([behind], samples)
    assert (found["recall"], found["precision"], found["pve_mm@miss350mm"]) == (0.0, 0.0, 350.0)


def test_hidden_person_is_neither_hit_nor_false_positive() -> None:
    (plain,) = crowd(1, seed=3)
    (there,) = truth([plain])
    hidden = replace(plain, people=(replace(plain.people[0], visible_fraction=0.1), plain.people[1]))
    stats = probe().score(there, hidden)
    assert {k: int(stats[k]) for k in ("matched", "misses", "false_positives")} == {
        "matched": 1,
        "misses": 0,
        "false_positives": 0,
    }
    # The published matcher knows of nobody to be ignored.
    assert int(stats["multihmr.false_positives"]) == 1


def test_second_head_of_a_token_is_a_miss() -> None:
    body = someone(np.random.default_rng(0))
    near, far = (person(name, upright(0.1, z, 0.0), body) for name, z in (("near", 3.0), ("far", 3.02)))
    crowded = [sample("i", [near, far])]
    assert metrics(truth(crowded, one_per_token=False), crowded)["recall"] == 100.0
    assert metrics(truth(crowded), crowded)["recall"] == 50.0


def test_oracle_without_a_part_is_not_the_truth() -> None:
    samples = crowd(4, seed=3)
    mean = mean_row(lazy(crowd(8)), GRID, bodies(), probe().protocol)
    wrong = {
        group: metrics(truth(samples, unknown=(group,), mean=mean, one_per_token=False), samples)
        for group in GROUPS
    }
    assert wrong["distance"]["depth_error_m"] > 0.1
    assert wrong["distance"]["pve_mm"] < 0.1
    assert wrong["orientation"]["pve_mm"] > 100.0
    assert wrong["orientation"]["pa_pve_mm"] < 0.1
    assert wrong["pose"]["pa_pve_mm"] > 1.0
    assert wrong["shape"]["pa_pve_mm"] > 1.0
    middle = metrics(truth(samples, offset_known=False), samples)
    assert 0.5 < middle["pve_mm"] < 30.0


def test_resampled_rooms_are_counted_as_often_as_drawn() -> None:
    samples = crowd(3, seed=1)
    mean = mean_row(lazy(crowd(8)), GRID, bodies(), probe().protocol)
    found = truth(samples, unknown=GROUPS, mean=mean)
    p = probe()
    stats = score_all(p, found, samples, SilentProgress())
    drawn = p.reduce(stats, np.array([[2.0, 0.0, 1.0]]))
    again = p.reduce({k: v[[0, 0, 2]] for k, v in stats.items()}, np.ones((1, 3)))
    for name in drawn:
        assert drawn[name] == pytest.approx(again[name], nan_ok=True)


def test_broken_truth_is_named() -> None:
    (plain,) = crowd(1, seed=3)
    (there,) = truth([plain])
    body = {k: v for k, v in plain.people[0].body.items() if k != "phenotype"}
    broken = replace(plain, people=(replace(plain.people[0], body=body), plain.people[1]))
    with pytest.raises(TaskError, match=r"sample i0, p0\.0: anny body: no phenotype"):
        probe().score(there, broken)


def test_wrong_constants_are_refused() -> None:
    with pytest.raises(ValueError, match="min_depth_m must be below"):
        probe(min_depth_m=30.0)
    with pytest.raises(ValueError, match="penalties: one for each"):
        probe(penalties={"pve_mm": 350.0})
    with pytest.raises(ValueError, match="is empty"):
        probe(regression={"windows": {"a": [(0.1, 0, 0.1, 1)]}, "kind_weights": [1], "lambda_per_n": [1]})
