"""Metrics are explained to readers who never saw the project."""

from __future__ import annotations

import pytest

from dune_bench.registry.lookup import load_registry
from dune_bench.report.glossary import PROBES, explain, group_word

METRICS = sorted({m.id for card in load_registry().tasks.values() for m in card.metrics})


@pytest.mark.parametrize("metric", METRICS)
def test_no_shipped_metric_is_printed_without_its_meaning(metric: str) -> None:
    assert explain(metric)


def test_no_shipped_probe_is_printed_without_its_question() -> None:
    assert set(load_registry().probes) <= set(PROBES)


def test_thresholds_and_conditions_are_part_of_the_meaning() -> None:
    text = explain("recall@10px_rot0_15deg")
    assert text is not None
    assert "within 10 px" in text
    assert "turned by 0 to 15 degrees" in text
    assert "0.1 of the image's diagonal" in str(explain("auc_vcre@0.1diag"))
    assert "share 15 to 35 %" in str(explain("maa@30deg_covis15_35"))
    assert "published Multi-HMR" in str(explain("pve_mm@multihmr"))
    assert "a missed person counts as 150 mm" in str(explain("pa_pve_mm@miss150mm"))


@pytest.mark.parametrize(
    "metric", ["my_metric", "my_metric@aligned", "recall@manypx", "xmiou", "miou@somewhere"]
)
def test_an_unknown_metric_gets_no_wrong_meaning(metric: str) -> None:
    assert explain(metric) is None


def test_groups_are_rooms_only_where_they_are() -> None:
    assert group_word("minirooms@1") == group_word("minirooms-long@0") == "rooms"
    assert group_word("other@1") == "groups"
