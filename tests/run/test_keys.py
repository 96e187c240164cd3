"""What must miss, misses; what must hit, hits."""

from __future__ import annotations

from typing import Any

import pytest

from dune_bench.registry.cards import InputPolicy, MetricSpec
from dune_bench.run.keys import feature_key, head_key, placeholder_key, result_key, split_key
from tests.run.fakes import ToyEncoder, line_card

POLICY = InputPolicy(resolution=336)
IDENTITY = ToyEncoder().identity()


def head(**changes: Any) -> str:
    split = split_key("blocks@1", "train", "f00d", None)
    content = {
        "card": line_card(),
        "feature": "f",
        "split": split,
        "fit_version": 1,
        "upstream": {},
        "seed": None,
    }
    return head_key(**{**content, **changes})


def result(**changes: Any) -> str:
    split = split_key("blocks@1", "test", "beef", None)
    encoder = {"id": "toy", "weights": "released"}
    content = {"heads": ["h"], "split": split, "score_version": 1, "metrics": line_card().metrics}
    return result_key(**{**content, "encoder": encoder, **changes})


@pytest.mark.parametrize("name", ["weights_digest", "adapter", "mean", "std", "patch_size", "options"])
def test_features_of_another_encoder_are_not_served(name: str) -> None:
    assert feature_key({**IDENTITY, name: "other"}, "norm", POLICY) != feature_key(IDENTITY, "norm", POLICY)


@pytest.mark.parametrize(
    ("view", "policy"),
    [
        ("raw", POLICY),
        ("norm", InputPolicy(resolution=448)),
        ("norm", InputPolicy(resolution=336, dtype="bfloat16")),
        ("norm", InputPolicy(resize="none")),
    ],
)
def test_features_of_another_view_or_input_are_not_served(view: str, policy: InputPolicy) -> None:
    assert feature_key(IDENTITY, view, policy) != feature_key(IDENTITY, "norm", POLICY)


def test_facts_outside_the_allow_list_do_not_move_the_feature_key() -> None:
    more = {**IDENTITY, "device": "cuda", "threads": 2, "batch_size": 16, "workers": 4, "id": "another name"}
    assert feature_key(more, "norm", POLICY) == feature_key(IDENTITY, "norm", POLICY)


@pytest.mark.parametrize(
    "change",
    [
        {"feature": "g"},
        {"fit_version": 2},
        {"seed": 1},
        {"split": None},
        {"split": split_key("blocks@1", "train", "f00e", None)},
        {"split": split_key("blocks@1", "train", "f00d", 8)},
        {"split": split_key("blocks@1", "test", "f00d", None)},
        {"upstream": {"depth_head": "k"}},
        {"card": line_card(2)},
        {"card": line_card(protocol={"ridge": 1e-2})},
    ],
)
def test_head_of_other_data_or_protocol_is_not_served(change: dict[str, Any]) -> None:
    assert head(**change) != head()


@pytest.mark.parametrize(
    "card",
    [
        line_card(description="words"),
        line_card(suites=("mini", "paper")),
        line_card(references=("a table",)),
        line_card(metrics=(MetricSpec(id="mse", unit="1", higher_is_better=False, primary=True),)),
    ],
)
def test_words_and_metrics_of_a_card_do_not_refit_its_head(card: Any) -> None:
    assert head(card=card) == head()


@pytest.mark.parametrize(
    "change",
    [
        {"heads": ["i"]},
        {"heads": ["h", "h"]},
        {"score_version": 2},
        {"split": split_key("blocks@1", "test", "bee1", None)},
        {"split": split_key("blocks@1", "test", "beef", 4)},
        {"encoder": {"id": "toy", "weights": "random"}},
        {"encoder": {"id": "other", "weights": "released"}},
        {"metrics": line_card().metrics[:1]},
    ],
)
def test_result_of_another_identity_is_not_reused(change: dict[str, Any]) -> None:
    assert result(**change) != result()


def test_a_placeholder_never_stands_for_another_request() -> None:
    base: dict[str, Any] = {"card": "c", "weights": "auto", "task": "t", "overrides": {}}
    keys = {placeholder_key(**base)}
    for change in ({"card": "d"}, {"weights": "random"}, {"task": "u"}, {"overrides": {"view": "raw"}}):
        keys.add(placeholder_key(**{**base, **change}))
    assert len(keys) == 5
