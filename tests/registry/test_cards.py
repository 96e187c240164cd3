"""Cards: a wrong one is refused with the file, the key and the nearest key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.errors import ExitCode, UsageError
from dune_bench.registry.cards import (
    EncoderCard,
    InputPolicy,
    TaskCard,
    WeightSource,
    fingerprint,
    load_card,
    parse_card,
)

TASK: dict[str, Any] = {
    "id": "depth/toy/convex@1",
    "suites": ["mini"],
    "probe": "depth",
    "dataset": {"name": "toy@1", "fit": "train", "score": "test"},
    "input": {"resolution": 336},
    "protocol": {"folds": 5},
    "metrics": [{"id": "rmse_m", "unit": "m", "higher_is_better": False, "primary": True, "margin": 0.02}],
}


def task(**changes: Any) -> TaskCard:
    return parse_card(TASK | changes, TaskCard, "card.yaml")


def test_unknown_key_names_file_key_and_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "depth.yaml"
    path.write_text(yaml.safe_dump(TASK | {"suite": ["mini"]}))
    with pytest.raises(UsageError) as caught:
        load_card(path, TaskCard)
    assert str(caught.value) == f"{path}: unknown key 'suite' (did you mean suites?)"
    assert caught.value.exit_code is ExitCode.USAGE


def test_unknown_key_inside_a_part_is_not_accepted() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'input\.resolutoin' \(did you mean resolution"):
        task(input={"resolution": 336, "resolutoin": 3})


def test_unknown_key_inside_a_list_of_parts_names_its_place() -> None:
    metrics = [TASK["metrics"][0] | {"units": "m"}]
    with pytest.raises(UsageError, match=r"unknown key 'metrics\.0\.units' \(did you mean unit"):
        task(metrics=metrics)


@pytest.mark.parametrize("content", ["- a\n- b\n", "just text\n", "", "3\n"])
def test_a_card_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"card\.yaml: a card is a mapping"):
        load_card(path, TaskCard)


@pytest.mark.parametrize("content", [b"a: [1,\n", b"\xff\xfe\x00", b"a: b: c\n", b"\t- x"])
def test_damaged_yaml_is_one_line_naming_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "card.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_card(path, TaskCard)
    assert str(caught.value).startswith(f"{path}: not a YAML card")
    assert "\n" not in str(caught.value)


def test_a_card_cannot_run_code(tmp_path: Path) -> None:
    victim = tmp_path / "touched"
    path = tmp_path / "card.yaml"
    path.write_text(f"id: !!python/object/apply:os.mkdir ['{victim}']\n")
    with pytest.raises(UsageError, match="not a YAML card"):
        load_card(path, TaskCard)
    assert not victim.exists()


def test_a_missing_card_file_is_a_known_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.yaml"):
        load_card(tmp_path / "gone.yaml", TaskCard)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": "depth/toy/convex"}, "probe/dataset/protocol@version"),
        ({"id": "semseg/toy/convex@1"}, "the id says probe 'semseg', the card 'depth'"),
        ({"metrics": []}, "metrics"),
        ({"metrics": [TASK["metrics"][0] | {"primary": False}]}, "exactly one metric primary"),
        ({"metrics": TASK["metrics"] * 2}, "exactly one metric primary"),
        ({"metrics": [TASK["metrics"][0], TASK["metrics"][0] | {"primary": False}]}, "stands twice"),
        ({"metrics": [TASK["metrics"][0] | {"margin": -0.1}]}, "margin"),
        ({"metrics": [TASK["metrics"][0] | {"id": "RMSE (m)"}]}, "metrics.0.id"),
        ({"input": {"resize": "none", "resolution": 3}}, "resize: none takes none"),
        ({"input": {}}, "needs a resolution"),
        ({"input": {"resolution": 0}}, "resolution"),
        ({"input": {"resolution": 336, "dtype": "float16"}}, "dtype"),
    ],
)
def test_a_contradiction_in_a_task_card_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        task(**changes)


def test_cards_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        task().description = "other"  # type: ignore[misc]


def test_sizes_read_as_people_write_them() -> None:
    assert WeightSource(url="https://x", licence="MIT", size="420 MB").size == 420_000_000  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="420 MB"):
        WeightSource(url="https://x", licence="MIT", size="420 megs")  # type: ignore[arg-type]


@pytest.mark.parametrize("places", [{}, {"url": "https://x", "hub": "a/b:c"}])
def test_a_weight_source_names_exactly_one_place(places: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        WeightSource(licence="MIT", **places)


def test_weights_without_a_licence_are_refused() -> None:
    with pytest.raises(UsageError, match=r"weights\.0\.licence"):
        parse_card({"id": "x", "kind": "timm", "weights": [{"url": "https://x"}]}, EncoderCard, "x.yaml")


@pytest.mark.parametrize("name", ["", "../x", "a b", "a/b", ".hidden"])
def test_an_encoder_id_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="id"):
        parse_card({"id": name, "kind": "timm"}, EncoderCard, "x.yaml")


MOVES_A_HEAD = {
    "id": {"id": "depth/toy/convex@2"},
    "protocol": {"protocol": {"folds": 4}},
    "requires": {"requires": {"other": "depth/toy/convex@3"}},
}
MOVES_NO_HEAD = {
    "description": {"description": "text"},
    "suites": {"suites": []},
    "references": {"references": ["row"]},
    "margin": {"metrics": [TASK["metrics"][0] | {"margin": 0.5}]},
}


@pytest.mark.parametrize("changes", MOVES_A_HEAD.values(), ids=MOVES_A_HEAD.keys())
def test_protocol_fingerprint_misses_what_moves_numbers(changes: dict[str, Any]) -> None:
    assert task(**changes).protocol_fingerprint() != task().protocol_fingerprint()


@pytest.mark.parametrize("changes", MOVES_NO_HEAD.values(), ids=MOVES_NO_HEAD.keys())
def test_protocol_fingerprint_survives_what_moves_none(changes: dict[str, Any]) -> None:
    assert task(**changes).protocol_fingerprint() == task().protocol_fingerprint()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_fingerprint_ignores_the_order_of_keys(value: dict[str, Any]) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


@given(json_values, json_values)
def test_fingerprint_tells_values_apart(one: Any, two: Any) -> None:
    same = yaml.safe_dump([one], sort_keys=True) == yaml.safe_dump([two], sort_keys=True)
    assert (fingerprint(one) == fingerprint(two)) == same


def test_fingerprint_refuses_nan() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        fingerprint({"x": float("nan")})


def test_input_policy_defaults_are_the_documented_ones() -> None:
    policy = InputPolicy(resolution=14)
    assert (policy.resize, policy.dtype) == ("stretch", "float32")


def test_a_released_decoder_does_not_make_two_encoders_of_one() -> None:
    card = EncoderCard(id="mine", kind="timm")
    source = WeightSource(url="https://example.org/decoder.pth", licence="any")
    assert card.model_copy(update={"decoders": (source,)}).fingerprint() == card.fingerprint()
    assert card.model_copy(update={"resolution": 448}).fingerprint() != card.fingerprint()
