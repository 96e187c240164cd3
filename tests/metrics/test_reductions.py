"""Reductions without torch give what the probes' own `reduce` gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dune_bench
from dune_bench.registry.lookup import PROBES, REDUCTIONS, load_registry
from dune_bench.report.paired import reducer_of
from dune_bench.results.store import ResultStore
from dune_bench.run.probing import make_probe
from tests.data.minirooms_fixture import write_tiny_minirooms


def test_every_probe_has_a_reduction() -> None:
    assert PROBES.keys() <= REDUCTIONS.keys()
    assert all(callable(load_registry().reduction(probe)) for probe in REDUCTIONS)


def test_reductions_give_the_numbers_of_the_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stored statistics of a real run, under random weights, every metric that they give."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "cache"))
    write_tiny_minirooms(tmp_path / "rooms", rooms_train=3, rooms_test=3, views=2)
    frame = dune_bench.run("pixels", data=tmp_path / "rooms", resolution=56, offline=True)
    assert set(frame.status) == {"ok"}
    registry, store = load_registry(), ResultStore(Path("runs"))
    found = store.load()[0]
    assert found
    for path, result in found:
        card, arrays = registry.task(result.task.id), store.arrays(path, result)
        probe, reduce = make_probe(card, registry), reducer_of(registry)(result)
        weights = np.random.default_rng(0).integers(0, 3, (20, len(arrays["id"]))).astype(np.float64)
        assert not result.seeds
        theirs = probe.reduce(arrays, weights)
        given = []
        for spec in card.metrics:
            try:
                mine = reduce(arrays, spec.id)(weights)
            except KeyError:
                continue
            np.testing.assert_allclose(mine, theirs[spec.id], rtol=1e-12, err_msg=spec.id)
            given.append(spec.id)
        assert card.primary.id in given
        with pytest.raises(KeyError):
            reduce(arrays, "no_such_metric")(weights)


def test_the_primary_metric_of_every_card_has_a_reduction() -> None:
    """By name: also of tasks whose data is not run here."""
    registry = load_registry()
    assert {task.probe for task in registry.tasks.values()} <= registry.reductions.keys()
