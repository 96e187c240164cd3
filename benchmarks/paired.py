"""Paired differences between the encoders of a runs folder: the same test images, whole rooms resampled.

    python benchmarks/paired.py [RUNS]

Prints, for each task and each pair of encoders, the difference of the primary metric (the first is the
better one) and its 95 % interval.  `*`: the interval excludes 0.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dune_bench.registry.lookup import load_registry
from dune_bench.results.schema import Result
from dune_bench.results.stats import Estimate, Statistic, paired_difference
from dune_bench.results.store import ResultStore

Loaded = tuple[Result, dict[str, np.ndarray[Any, Any]]]


def statistic(result: Result, arrays: dict[str, np.ndarray[Any, Any]]) -> Statistic:
    """The primary metric as a function of sample weights."""
    registry = load_registry()
    card = registry.task(result.task.id)
    probe_class = registry.probe(card.probe)
    protocol = probe_class.protocols[card.protocol_name.partition("@")[0]]
    probe = probe_class(protocol.model_validate(card.protocol))
    rows = {name: values for name, values in arrays.items() if name not in ("id", "group")}
    return lambda weights: {card.primary.id: probe.reduce(rows, weights)[card.primary.id]}


def compare(a: Loaded, b: Loaded) -> Estimate:
    ids = (list(a[1]["id"]), list(b[1]["id"]))
    rng = np.random.default_rng(0)
    found = paired_difference(statistic(*a), statistic(*b), ids, list(a[1]["group"]), rng)
    return next(iter(found.values()))


def main(runs: Path) -> None:
    store = ResultStore(runs)
    found, refused = store.load()
    for entry in refused:
        print(f"left out: {entry.reason}", file=sys.stderr)
    tasks: dict[str, list[Loaded]] = {}
    for path, result in found:
        if result.status == "ok":
            tasks.setdefault(result.task.id, []).append((result, store.arrays(path, result)))
    rows: list[tuple[str, str, Estimate]] = []
    for task, loaded in sorted(tasks.items()):
        primary = load_registry().task(task).primary
        sign = 1 if primary.higher_is_better else -1
        loaded.sort(key=lambda item: -sign * item[0].primary.value)
        for a, b in itertools.combinations(loaded, 2):
            rows.append((f"{task.split('/')[0]} {primary.id}", f"{a[0].label} − {b[0].label}", compare(a, b)))
    width = max((len(pair) for _, pair, _ in rows), default=0)
    for task, pair, estimate in rows:
        if estimate.ci95 is None:
            print(f"{task:16} {pair:{width}} {estimate.value:+8.3f}  no interval ({estimate.groups} groups)")
            continue
        low, high = estimate.ci95
        mark = "*" if low > 0 or high < 0 else " "
        print(f"{task:16} {pair:{width}} {estimate.value:+8.3f} [{low:+.3f}, {high:+.3f}] {mark}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
