"""Two protocols of one probe, or two encoders, on the same samples: paired differences of any metric.

    python benchmarks/protocols.py RUNS ENCODER:TASK ENCODER:TASK [--metrics inliers@25cm,maa@30deg]

`dune-bench compare` refuses to set two tasks side by side, for they measure different things; whether a
learned decoder is worth its minutes is that very question.  Takes the newest results that are as on the
card, or at least of the same samples.  Prints a markdown line per metric (default: the first task's primary
one): both values, second − first with its 95 % interval over rooms, widened by what the fit seeds differ.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dune_bench.registry.lookup import load_registry
from dune_bench.report.format import qualifiers
from dune_bench.results.measured import Measured, arrays_by_seed
from dune_bench.results.schema import Result
from dune_bench.results.stats import paired_difference, with_seeds
from dune_bench.results.store import ResultStore
from dune_bench.run.probing import Arrays, make_probe


@dataclass(frozen=True)
class Stored:
    """A result and the statistics of its samples."""

    result: Result
    arrays: Arrays

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(map(str, self.arrays["id"]))

    def about(self) -> str:
        """What the reader must know of it."""
        return ", ".join([f"{len(self.ids)} samples", *qualifiers(self.result.task)])


def best_first(store: ResultStore, name: str) -> list[Stored]:
    """The results of `ENCODER:TASK`: those as on the card before limited or changed ones."""
    encoder, _, task = name.partition(":")
    load_registry().task(task)  # a misspelt one is said to be that
    found = [
        (path, result)
        for path, result in store.load()[0]
        if (result.encoder.id, result.task.id, result.status) == (encoder, task, "ok")
    ]
    if not found:
        raise SystemExit(f"{name}: no result in {store.root}")
    found.sort(key=lambda pair: pair[1].provenance.started, reverse=True)
    found.sort(key=lambda pair: bool(qualifiers(pair[1].task)))
    return [Stored(result, store.arrays(path, result)) for path, result in found]


def same_samples(firsts: list[Stored], seconds: list[Stored]) -> tuple[Stored, Stored]:
    """The first two that are of the same samples."""
    for first, second in itertools.product(firsts, seconds):
        if set(first.ids) == set(second.ids):
            return first, second
    raise SystemExit(
        f"no two results of the same samples: {'; '.join(one.about() for one in firsts)} against "
        f"{'; '.join(one.about() for one in seconds)}"
    )


def measured(stored: Stored, metric: str) -> Measured:
    """One metric of a result as a function of sample weights."""
    result, registry = stored.result, load_registry()
    probe = make_probe(registry.task(result.task.id), registry)
    of_metric = next((m for m in result.metrics if m.id == metric), None)
    if of_metric is None:
        known = ", ".join(m.id for m in result.metrics)
        raise SystemExit(f"{result.task.id} has no metric {metric}; it has {known}")

    def reduction(stats: Arrays) -> object:
        return lambda weights: probe.reduce(stats, weights)[metric]

    return Measured(
        result,
        of_metric,
        stored.ids,
        tuple(map(str, stored.arrays["group"])),
        tuple(reduction(stats) for stats in arrays_by_seed(result, stored.arrays)),  # type: ignore[misc]
    )


def row(metric: str, first: Stored, second: Stored) -> str:
    """A line of the table."""
    a, b = measured(first, metric), measured(second, metric)
    found = paired_difference(b.statistic, a.statistic, (b.ids, a.ids), a.groups, np.random.default_rng(0))
    estimate = with_seeds(found[metric], a.between_seeds + b.between_seeds)
    text = f"{estimate.value:+.3g} (too few rooms for an interval)"
    if estimate.ci95 is not None:
        low, high = estimate.ci95
        mark = "**" if low > 0 or high < 0 else ""
        text = f"{mark}{estimate.value:+.3g} [{low:+.3g}, {high:+.3g}]{mark}"
    return f"| `{metric}` | {a.metric.value:.3g} | {b.metric.value:.3g} | {text} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--metrics", help="ids of metrics that both tasks have, comma-separated")
    arguments = parser.parse_args()
    store = ResultStore(arguments.runs)
    first, second = same_samples(*(best_first(store, name) for name in (arguments.first, arguments.second)))
    for name, one in ((arguments.first, first), (arguments.second, second)):
        print(f"{name}: {one.about()}")
    metrics = arguments.metrics.split(",") if arguments.metrics else [first.result.primary.id]
    rows = [row(metric, first, second) for metric in metrics]
    print(f"\n| metric | {arguments.first} | {arguments.second} | difference |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
