from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dune_bench.errors import UsageError
from dune_bench.metrics.units import Unit, convert
from dune_bench.registry.cards import TaskCard, load_card

TASKS = sorted(p for p in (Path(__file__).parents[2] / "tasks").rglob("*.yaml") if p.name != "suites.yaml")
SENSIBLE = {("m", "mm"): 2000.0, ("mm", "m"): 0.002, ("1", "%"): 200.0, ("%", "1"): 0.02}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(Unit, Unit)))
def test_metres_never_become_degrees(source: Unit, target: Unit) -> None:
    if source == target:
        assert convert(2.0, source, target) == 2.0
    elif (source.value, target.value) in SENSIBLE:
        assert convert(2.0, source, target) == pytest.approx(SENSIBLE[source.value, target.value])
    else:
        with pytest.raises(UsageError, match="cannot be converted"):
            convert(2.0, source, target)


def test_unknown_unit_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="unknown unit 'cm': use one of m, mm"):
        Unit.parse("cm")


@pytest.mark.parametrize("path", TASKS, ids=lambda p: p.stem)
def test_no_card_has_an_unknown_unit(path: Path) -> None:
    assert all(Unit.parse(m.unit) for m in load_card(path, TaskCard).metrics)
