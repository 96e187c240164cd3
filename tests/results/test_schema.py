from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from dune_bench.errors import TaskError
from dune_bench.results import schema
from dune_bench.results.schema import SCHEMA, finite_or_none, json_schema, parse_result
from tests.results.example import ENCODER, METRIC, example


def raw() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(example().model_dump(mode="json", by_alias=True)))
    return found


def test_result_survives_its_own_json() -> None:
    assert raw()["schema"] == SCHEMA
    assert parse_result(raw(), "x") == example()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_number_never_reaches_a_file(value: float) -> None:
    with pytest.raises(ValidationError):
        METRIC.model_validate({**METRIC.model_dump(), "value": value})
    with pytest.raises(ValidationError):
        METRIC.model_validate({**METRIC.model_dump(), "ci95": (0.0, value)})


def test_undefined_is_null_and_not_zero() -> None:
    assert finite_or_none(math.nan) is None
    assert finite_or_none(math.inf) is None
    assert finite_or_none(0.0) == 0.0


def test_ok_without_metrics_and_failure_without_a_reason_are_refused() -> None:
    with pytest.raises(ValidationError, match="has metrics"):
        example(metrics=())
    for status in ("failed", "unavailable"):
        with pytest.raises(ValidationError, match="says why"):
            example(status=status, metrics=())


@pytest.mark.parametrize("version", [None, "1", 1.0, True, [1]])
def test_file_without_an_integer_schema_is_not_a_result(version: object) -> None:
    with pytest.raises(TaskError, match="not a dune-bench result"):
        parse_result({**raw(), "schema": version}, "a.json")
    with pytest.raises(TaskError, match="not a dune-bench result"):
        parse_result([1], "a.json")


def test_newer_schema_is_refused_with_advice() -> None:
    with pytest.raises(TaskError, match=r"a\.json: schema 99 is newer than this dune-bench .*upgrade"):
        parse_result({**raw(), "schema": 99}, "a.json")


def test_older_schema_is_migrated_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "SCHEMA", 3)

    def add_key(old: dict[str, Any]) -> dict[str, Any]:
        old["key"] = old.pop("name")
        return old

    def add_schema(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "schema": 3}

    old = raw()
    old["name"] = old.pop("key")
    old["schema"] = 1
    migrated = parse_result(old, "a.json", {1: add_key, 2: add_schema})
    assert migrated.key == example().key
    assert "name" in old  # the caller's data is left alone
    with pytest.raises(TaskError, match="no migration from schema 2"):
        parse_result(old, "a.json", {1: add_key})


def test_wrong_field_is_named() -> None:
    bad = raw()
    bad["metrics"][0]["n"] = "many"
    with pytest.raises(TaskError, match=r"a\.json: not a valid result: metrics\.0\.n: "):
        parse_result(bad, "a.json")
    with pytest.raises(TaskError, match="colour"):
        parse_result({**raw(), "colour": "red"}, "a.json")


def test_reason_of_our_own_check_is_told_without_pydantics_words() -> None:
    with pytest.raises(TaskError, match=r"a\.json: not a valid result: result: a result with status ok has"):
        parse_result({**raw(), "metrics": []}, "a.json")


def test_result_cannot_be_edited() -> None:
    with pytest.raises(ValidationError):
        example().status = "failed"


@pytest.mark.parametrize(
    ("weights", "label"),
    [
        ("released", "toy"),
        ("random", "toy [random weights]"),
        ("file", "toy [file weights]"),
        ("none", "toy"),
    ],
)
def test_random_weights_are_branded(weights: str, label: str) -> None:
    assert example(encoder=ENCODER.model_copy(update={"weights": weights})).label == label


def test_json_schema_describes_the_file_as_it_is_written() -> None:
    described = json_schema()
    written = raw()
    assert set(described["properties"]) == set(written)
    assert set(described["required"]) <= set(written)
    assert "schema" in described["properties"]
    assert described["additionalProperties"] is False


def test_primary_metric_is_found() -> None:
    other = METRIC.model_copy(update={"id": "abs_rel", "primary": False})
    assert example(metrics=(other, METRIC)).primary == METRIC
    assert example(metrics=(other,)).primary is None
