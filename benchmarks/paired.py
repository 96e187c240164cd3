"""Paired differences between the encoders of a runs folder: the same samples, whole rooms resampled.

    python benchmarks/paired.py [RUNS] [--tasks GLOB] [--trivial]

Prints, for each task and each pair of encoders, the difference of the primary metric (the first is the
better one) and its 95 % interval.  `*`: the interval excludes 0.  --trivial: with the answers that look
at no image among them.  With results of one encoder under several weights or limits, the newest counts.
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from trivial import ORACLES, TRIVIAL, Answers, statistics

from dune_bench.errors import UsageError
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


def shown(estimate: Estimate, sign: str = "+") -> str:
    """Value and interval; `*` if the interval excludes 0."""
    if estimate.ci95 is None:
        return f"{estimate.value:{sign}9.3f}  no interval ({estimate.groups} groups)"
    low, high = estimate.ci95
    mark = "*" if sign and (low > 0 or high < 0) else " "
    return f"{estimate.value:{sign}9.3f} [{low:{sign}.3f}, {high:{sign}.3f}] {mark}"


def parse(description: str, trivial: bool) -> argparse.Namespace:
    """The options that this and `baselines.py` share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"))
    parser.add_argument("--tasks", default="*", help="a glob over task ids")
    if trivial:
        parser.add_argument("--trivial", action="store_true", help="with answers that look at no image")
    return parser.parse_args()


def main() -> None:
    options = parse("Paired differences between encoders.", trivial=True)
    beside: list[Literal["trivial", "oracle"]] = ["trivial"] if options.trivial else []
    found = entries(options.runs, options.tasks, beside)
    if all(len(loaded) < 2 for loaded in found.values()):
        sys.exit(
            f"{options.runs}: no two results of one task that matches {options.tasks!r}: nothing to compare"
        )
    for loaded in found.values():
        width = max((len(f"{a.label} − {b.label}") for a, b in itertools.combinations(loaded, 2)), default=0)
        for a, b in itertools.combinations(loaded, 2):
            head = f"{a.card.probe} {a.card.primary.id}"
            try:
                text = shown(compare(a, b))
            except UsageError as error:
                text = f"not comparable: {error}"
            print(f"{head:28} {f'{a.label} − {b.label}':{width}} {text}".rstrip(), flush=True)


if __name__ == "__main__":
    main()
