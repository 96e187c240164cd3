"""Which results may stand side by side."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.report.board import Board, column_identity, make_board
from dune_bench.results.schema import Result
from tests.report.factory import digest, make_result, metric, task_info


def board(*results: Result) -> Board:
    return make_board([(Path("r") / f"{i}.json", result) for i, result in enumerate(results)], [], Path("r"))


OTHER_MEASUREMENTS = {
    "task": {"task": "semseg/toy/convex@2"},
    "protocol": {"protocol_fingerprint": digest("other")},
    "resolution": {"input": {"resolution": 224, "resize": "stretch", "dtype": "float32"}},
    "dtype": {"input": {"resolution": 336, "resize": "stretch", "dtype": "bfloat16"}},
    "override": {"overrides": {"view": "raw"}},
    "test data": {"dataset_fingerprints": {"train": digest("train"), "test": digest("new")}},
    "training data": {"dataset_fingerprints": {"train": digest("new"), "test": digest("test")}},
    "limit": {"limited": 8},
    "scoring code": {"score_version": 2},
}


@pytest.mark.parametrize("changes", OTHER_MEASUREMENTS.values(), ids=OTHER_MEASUREMENTS.keys())
def test_another_measurement_never_shares_a_column(changes: dict[str, object]) -> None:
    made = board(make_result("a"), make_result("b", task=task_info(**changes)))
    assert len(made.columns) == 2
    assert len({column.name for column in made.columns}) == 2


def test_limits_that_keep_the_same_groups_share_a_column() -> None:
    """Whole groups are kept, so that many limits keep the same: it is named after the smallest."""
    kept = {"groups": {"train": 2, "test": 2}, "split_sizes": {"train": 12, "test": 12}}
    values = {12: 3.0, 1: 1.0, 8: 2.0}
    results = [
        make_result(f"limit{n}", task=task_info(limited=n, **kept), metrics=(metric(value),))
        for n, value in values.items()
    ]
    (column,) = board(*results).columns
    assert column.name == f"{task_info().id} (limit 1)"
    assert column.task.limited == 1
    more = task_info(limited=20, groups={"train": 2, "test": 3}, split_sizes={"train": 12, "test": 18})
    assert len(board(*results, make_result("more", task=more)).columns) == 2


def test_the_encoders_own_upstream_head_does_not_split_a_column() -> None:
    one = make_result("a", task=task_info(upstream={"depth_head": digest("a")}))
    two = make_result("b", task=task_info(upstream={"depth_head": digest("b")}))
    assert len(board(one, two).columns) == 1


def test_best_is_first_in_both_directions_and_undefined_is_last() -> None:
    values = {"low": 1.0, "undefined": None, "high": 2.0}
    up = board(*(make_result(name, metrics=(metric(value),)) for name, value in values.items()))
    assert [e.result.encoder.id for e in up.columns[0].entries] == ["high", "low", "undefined"]
    down = board(*(make_result(n, metrics=(metric(v, higher_is_better=False),)) for n, v in values.items()))
    assert [e.result.encoder.id for e in down.columns[0].entries] == ["low", "high", "undefined"]


def test_two_checkpoints_of_one_name_are_not_one_row() -> None:
    made = board(make_result("vit", weights_digest="a"), make_result("vit", weights_digest="b"))
    labels = {made.label(entry.result) for entry in made.columns[0].entries}
    assert labels == {f"vit (weights {digest('a')[:7]})", f"vit (weights {digest('b')[:7]})"}


def test_a_failed_attempt_does_not_rename_the_good_result() -> None:
    made = board(make_result("vit"), make_result("vit", status="failed", error="x", weights_digest=None))
    assert set(made.labels.values()) == {"vit"}


def test_same_weights_with_another_card_are_not_one_row() -> None:
    card = make_result("vit")
    edited = card.model_copy(
        update={"encoder": card.encoder.model_copy(update={"card_fingerprint": digest("x")}), "key": "k"}
    )
    made = board(card, edited)
    assert len({made.label(entry.result) for entry in made.columns[0].entries}) == 2


def test_random_weights_are_branded() -> None:
    made = board(make_result("vit"), make_result("vit", weights="random", weights_digest="r"))
    labels = {made.label(entry.result) for entry in made.columns[0].entries}
    assert labels == {"vit", "vit [random weights]"}


def test_the_newest_of_equal_identity_counts_once() -> None:
    old = make_result(metrics=(metric(1.0),), started="2026-01-01T00:00:00+00:00")
    new = make_result(metrics=(metric(2.0),), started="2026-01-02T00:00:00+00:00")
    made = board(new, old)
    assert [e.result.metrics[0].value for e in made.columns[0].entries] == [2.0]
    assert len(made.superseded) == 1
    assert "1 older result, replaced by a newer one of the same encoder and column: " in made.not_shown()[0]


def test_a_copy_is_not_called_an_older_result() -> None:
    result = make_result()
    made = make_board(
        [(Path("runs/results/vit") / name, result) for name in ("a.json", "b.json")], (), Path("runs")
    )
    assert made.superseded == ()
    assert made.not_shown() == ["1 copy of a result, counted once: vit/a.json"]


def test_a_failure_that_a_later_run_mended_is_not_listed() -> None:
    failed = make_result(status="failed", error="NaN", weights_digest=None)
    mended = make_result(started="2026-01-02T00:00:00+00:00")
    assert board(failed, mended).missing == ()


def test_a_failure_after_a_success_is_listed() -> None:
    good = make_result()
    failed = make_result(status="failed", error="NaN", started="2026-01-02T00:00:00+00:00")
    made = board(good, failed)
    assert [entry.result.status for entry in made.missing] == ["failed"]
    assert len(made.columns) == 1


def test_a_failure_is_not_listed_once_the_encoder_came_with_weights_of_another_label() -> None:
    failed = make_result(status="failed", error="torn file", weights_digest=None)
    mended = make_result(weights="file", weights_digest="f", started="2026-01-02T00:00:00+00:00")
    assert board(failed, mended).missing == ()


def test_a_success_of_another_task_or_limit_or_encoder_or_before_does_not_mend_a_failure() -> None:
    failed = make_result(
        status="failed", error="torn", weights_digest=None, started="2026-01-02T00:00:00+00:00"
    )
    later = "2026-01-03T00:00:00+00:00"
    others = (
        make_result(weights="file", task=task_info("depth/toy/convex@1"), started=later),
        make_result(weights="file", task=task_info(limited=8), started=later),
        make_result("other", weights="file", started=later),
        make_result(weights="file", started="2026-01-01T00:00:00+00:00"),
    )
    assert [entry.result.error for entry in board(failed, *others).missing] == ["torn"]


def test_random_weights_do_not_make_up_for_missing_weights() -> None:
    missing = make_result("dune", status="unavailable", error="no weights", weights_digest=None)
    randomly = make_result("dune", weights="random", started="2026-01-02T00:00:00+00:00")
    assert [entry.result.error for entry in board(missing, randomly).missing] == ["no weights"]


@given(st.randoms(use_true_random=False))
def test_the_order_of_files_found_changes_nothing(rng: random.Random) -> None:
    results = [
        make_result("a", metrics=(metric(1.0),)),
        make_result("b", metrics=(metric(1.0),)),
        make_result("b", task=task_info("depth/toy/convex@1")),
        make_result("c", status="failed", error="NaN"),
    ]
    found = [(Path("r") / f"{i}.json", result) for i, result in enumerate(results)]
    shuffled = list(found)
    rng.shuffle(shuffled)
    assert make_board(shuffled, [], Path("r")) == make_board(found, [], Path("r"))


def test_column_identity_is_sensitive_to_every_field_but_upstream() -> None:
    """A new field of TaskInfo must not silently be left out of the comparison."""
    task = task_info()
    other = {
        "id": "x", "probe": "x", "dataset": "x", "protocol": "x", "protocol_fingerprint": "x",
        "input": {}, "overrides": {"view": "raw"}, "dataset_fingerprints": {}, "split_sizes": {},
        "groups": {}, "limited": 3, "score_version": 9, "upstream": {"depth_head": "x"},
    }  # fmt: skip
    assert set(other) == set(type(task).model_fields)
    same = {
        name
        for name, value in other.items()
        if column_identity(task.model_copy(update={name: value})) == column_identity(task)
    }
    assert same == {"upstream"}
