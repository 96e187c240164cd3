"""Per-sample statistics of a runs folder, with those of answers that look at no image or know the truth.

What `dune-bench compare` does for two encoders, for entries that are not all encoders.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from trivial import ORACLES, TRIVIAL, Answers, statistics

from dune_bench.probes.base import Breakdown, ProbeContext
from dune_bench.registry.cards import TaskCard
from dune_bench.registry.lookup import load_registry
from dune_bench.results.stats import Estimate, Statistic, bootstrap, paired_difference
from dune_bench.results.store import ResultStore
from dune_bench.run.probing import RESERVED, Arrays, make_probe


@dataclass(frozen=True)
class Entry:
    """Per-sample statistics on one task of an encoder, of a trivial answer, or of an oracle."""

    label: str
    card: TaskCard
    arrays: Arrays
    kind: Literal["encoder", "trivial", "oracle"] = "encoder"

    @property
    def rows(self) -> Arrays:
        """The probe's own statistics."""
        return {name: values for name, values in self.arrays.items() if name not in RESERVED}

    def statistic(self) -> Statistic:
        """The primary metric as a function of sample weights."""
        probe, rows, primary = make_probe(self.card, load_registry()), self.rows, self.card.primary.id
        return lambda weights: {primary: probe.reduce(rows, weights)[primary]}

    def breakdowns(self) -> list[Breakdown]:
        """Metrics of parts of the data."""
        return make_probe(self.card, load_registry()).breakdowns(self.rows, ProbeContext())

    def estimate(self) -> Estimate:
        """The primary metric with its interval."""
        groups = [str(group) for group in self.arrays["group"]]
        return bootstrap(self.statistic(), groups, np.random.default_rng(0))[self.card.primary.id]

    @property
    def value(self) -> float:
        """The primary metric of all samples, larger is better."""
        found = self.statistic()(np.ones((1, len(self.arrays["id"]))))[self.card.primary.id]
        return float(found[0]) if self.card.primary.higher_is_better else -float(found[0])


KINDS: dict[Literal["trivial", "oracle"], Answers] = {"trivial": TRIVIAL, "oracle": ORACLES}


def entries(runs: Path, tasks: str, beside: Sequence[Literal["trivial", "oracle"]]) -> dict[str, list[Entry]]:
    """Task id -> its entries, the best first.  beside: what else than encoders.  What cannot be read is
    named on stderr."""
    registry = load_registry()
    store = ResultStore(runs)
    found, refused = store.load()
    for entry in refused:
        print(f"left out: {entry.reason}", file=sys.stderr)
    loaded: dict[str, dict[str, Entry]] = {}
    for path, result in sorted(found, key=lambda item: item[1].provenance.started):
        if result.status == "ok" and fnmatch.fnmatch(result.task.id, tasks):
            card = registry.task(result.task.id)
            arrays = dict(store.arrays(path, result))
            loaded.setdefault(card.id, {})[result.label] = Entry(result.label, card, arrays)
    for task, known in loaded.items():
        card = registry.task(task)
        for kind in beside:
            for name, arrays in statistics(card, registry, KINDS[kind]).items():
                known[name] = Entry(name, card, arrays, kind)
    return {
        task: sorted(known.values(), key=lambda entry: -entry.value) for task, known in sorted(loaded.items())
    }


def compare(a: Entry, b: Entry) -> Estimate:
    """a − b of the primary metric.  Raises UsageError if they are not of the same samples."""
    ids = tuple([str(name) for name in entry.arrays["id"]] for entry in (a, b))
    groups = [str(group) for group in a.arrays["group"]]
    found = paired_difference(
        a.statistic(), b.statistic(), (ids[0], ids[1]), groups, np.random.default_rng(0)
    )
    return found[a.card.primary.id]
