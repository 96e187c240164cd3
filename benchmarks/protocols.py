"""Two protocols of one probe, or two encoders, on the same samples: paired differences of any metric.

    python benchmarks/protocols.py RUNS ENCODER:TASK ENCODER:TASK [--metrics inliers@25cm,maa@30deg]

`dune-bench compare` refuses to set two tasks side by side, for they measure different things; whether a
learned decoder is worth its minutes is that very question.  Prints a markdown line per metric: both values,
second − first with its 95 % interval over rooms, widened by what the fit seeds differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dune_bench.registry.lookup import load_registry
from dune_bench.results.measured import Measured, arrays_by_seed
from dune_bench.results.stats import paired_difference, with_seeds
from dune_bench.results.store import ResultStore
from dune_bench.run.probing import Arrays, make_probe

METRICS = "inliers@25cm,pointmap_m,rra@15deg,maa@30deg"


def measured(store: ResultStore, name: str, metric: str) -> Measured:
    """One metric of the newest result of `ENCODER:TASK`, as a function of sample weights."""
    encoder, _, task = name.partition(":")
    found = [
        (path, result)
        for path, result in store.load()[0]
        if (result.encoder.id, result.task.id, result.status) == (encoder, task, "ok")
    ]
    if not found:
        raise SystemExit(f"{name}: no result in {store.root}")
    path, result = max(found, key=lambda pair: pair[1].provenance.started)
    arrays, registry = store.arrays(path, result), load_registry()
    probe = make_probe(registry.task(task), registry)
    of_metric = next((m for m in result.metrics if m.id == metric), None)
    if of_metric is None:
        raise SystemExit(
            f"{task} has no metric {metric}: name some with --metrics, such as {result.primary.id}"
        )

    def reduction(stats: Arrays) -> object:
        return lambda weights: probe.reduce(stats, weights)[metric]

    return Measured(
        result,
        of_metric,
        tuple(map(str, arrays["id"])),
        tuple(map(str, arrays["group"])),
        tuple(reduction(stats) for stats in arrays_by_seed(result, arrays)),  # type: ignore[misc]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--metrics", default=METRICS)
    arguments = parser.parse_args()
    store = ResultStore(arguments.runs)
    print(f"| metric | {arguments.first} | {arguments.second} | difference |\n|---|---|---|---|")
    for metric in arguments.metrics.split(","):
        a, b = (measured(store, name, metric) for name in (arguments.first, arguments.second))
        rng = np.random.default_rng(0)
        found = paired_difference(b.statistic, a.statistic, (b.ids, a.ids), a.groups, rng)[metric]
        estimate = with_seeds(found, a.between_seeds + b.between_seeds)
        low, high = estimate.ci95 or (float("nan"), float("nan"))
        mark = "**" if low > 0 or high < 0 else ""
        values = f"{a.metric.value:.3g} | {b.metric.value:.3g}"
        print(f"| `{metric}` | {values} | {mark}{estimate.value:+.3g} [{low:+.3g}, {high:+.3g}]{mark} |")


if __name__ == "__main__":
    main()
