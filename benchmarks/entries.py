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
from dune_bench.report.format import column_name, qualifiers
from dune_bench.results.measured import IDENTITY, Arrays, arrays_by_seed
from dune_bench.results.stats import Estimate, Floats, Statistic, bootstrap, paired_difference, with_seeds
from dune_bench.results.store import ResultStore
from dune_bench.run.probing import RESERVED, make_probe

Kind = Literal["encoder", "trivial", "oracle"]


@dataclass(frozen=True)
class Entry:
    """Per-sample statistics on one task of an encoder, of a trivial answer, or of an oracle.

    rows: the probe's own statistics, once for each fit seed.
    """

    label: str
    card: TaskCard
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    rows: tuple[Arrays, ...]
    kind: Kind = "encoder"

    def statistic(self) -> Statistic:
        """The primary metric, a mean over the fit seeds, as a function of sample weights."""
        return lambda weights: {self.card.primary.id: np.mean(self._by_seed(weights), axis=0)}

    def _by_seed(self, weights: Floats) -> list[Floats]:
        probe, primary = make_probe(self.card, load_registry()), self.card.primary.id
        return [probe.reduce(rows, weights)[primary] for rows in self.rows]

    @property
    def between_seeds(self) -> float:
        """Variance of the mean over the fit seeds, 0 without."""
        values = np.concatenate(self._by_seed(np.ones((1, len(self.ids)))))
        return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0

    def breakdowns(self) -> list[Breakdown]:
        """Metrics of parts of the data, means over the fit seeds; None where a seed leaves one undefined."""
        probe = make_probe(self.card, load_registry())
        seeds = [probe.breakdowns(rows, ProbeContext()) for rows in self.rows]
        return [_mean_of(parts) for parts in zip(*seeds, strict=True)]

    def estimate(self) -> Estimate:
        """The primary metric with its interval, widened by what the fit seeds differ."""
        found = bootstrap(self.statistic(), list(self.groups), np.random.default_rng(0))
        return with_seeds(found[self.card.primary.id], self.between_seeds)

    @property
    def value(self) -> float:
        """The primary metric of all samples, larger is better."""
        found = self.statistic()(np.ones((1, len(self.ids))))[self.card.primary.id]
        return float(found[0]) if self.card.primary.higher_is_better else -float(found[0])


def _mean_of(parts: Sequence[Breakdown]) -> Breakdown:
    values: dict[str, float | None] = {}
    for key in parts[0].values:
        found = [part.values[key] for part in parts]
        values[key] = (
            None if None in found else float(np.mean([value for value in found if value is not None]))
        )
    return Breakdown(parts[0].metric, parts[0].by, values)


def _entry(
    label: str, card: TaskCard, arrays: Arrays, rows: tuple[Arrays, ...], kind: Kind = "encoder"
) -> Entry:
    ids, groups = (tuple(map(str, arrays[name])) for name in IDENTITY)
    return Entry(label, card, ids, groups, rows, kind)


KINDS: dict[Literal["trivial", "oracle"], Answers] = {"trivial": TRIVIAL, "oracle": ORACLES}


def entries(runs: Path, tasks: str, beside: Sequence[Literal["trivial", "oracle"]]) -> dict[str, list[Entry]]:
    """Task id -> its entries, the best first.  beside: what else than encoders.  What cannot be read is
    named on stderr, and so are results of fewer samples, other options or other seeds than the card's."""
    registry = load_registry()
    store = ResultStore(runs)
    found, refused = store.load()
    for unread in refused:
        print(f"left out: {unread.reason}", file=sys.stderr)
    loaded: dict[str, dict[str, Entry]] = {}
    for path, result in sorted(found, key=lambda item: item[1].provenance.started):
        if result.status == "ok" and fnmatch.fnmatch(result.task.id, tasks):
            card = registry.task(result.task.id)
            if qualifiers(result.task):
                print(f"left out: {result.label} on {column_name(result.task)}", file=sys.stderr)
                continue
            arrays = store.arrays(path, result)
            entry = _entry(result.label, card, arrays, arrays_by_seed(result, arrays))
            loaded.setdefault(card.id, {})[result.label] = entry
    for task, known in loaded.items():
        card = registry.task(task)
        for kind in beside:
            for name, arrays in statistics(card, registry, KINDS[kind]).items():
                own = {key: values for key, values in arrays.items() if key not in RESERVED}
                known[name] = _entry(name, card, arrays, (own,), kind)
    return {
        task: sorted(known.values(), key=lambda entry: -entry.value) for task, known in sorted(loaded.items())
    }


def compare(a: Entry, b: Entry) -> Estimate:
    """a − b of the primary metric.  Raises UsageError if they are not of the same samples."""
    rng = np.random.default_rng(0)
    found = paired_difference(a.statistic(), b.statistic(), (a.ids, b.ids), list(a.groups), rng)
    return with_seeds(found[a.card.primary.id], a.between_seeds + b.between_seeds)
