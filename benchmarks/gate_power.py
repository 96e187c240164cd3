"""False alarms and power of the gate, and coverage of the intervals, on real per-sample statistics.

    python benchmarks/gate_power.py [--rooms N] [--trials N] RUNS [RUNS ...]

docs/gate.md has the runs it was made for and what it printed.  The test rooms of a result are taken for the
whole population.  One trial draws N of them with replacement and computes, with the gate's own
functions, the paired difference of two encoders, its standard error, interval and tolerance.  The
population's own difference is the truth, so what is a false alarm (the true drop moved to 0) or found (moved
to twice the margin) is known.  Each pair counts in both directions.

A gate has the primary metrics of all tasks in RUNS, each with rooms of its own: dependence between tasks
would only lower the rate.  With fewer than five tasks, further metrics of the same tasks make up five, with
the margin that their task's primary metric has as a share of its value.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.registry.lookup import load_registry
from dune_bench.report.board import column_identity
from dune_bench.report.paired import reducer_of
from dune_bench.results.gate import FALSE_ALARMS, POWER
from dune_bench.results.measured import Arrays, OfWeights, measure
from dune_bench.results.schema import Result
from dune_bench.results.stats import Statistic, bootstrap, detectable_drop, tolerance_factor
from dune_bench.results.store import ResultStore

AT_LEAST = 5
RESAMPLES = 400
Floats = NDArray[np.float64]
Loaded = tuple[Result, Arrays]


@dataclass
class Trials:
    """Of one metric and two encoders, an entry a trial.

    error: estimated minus true drop.  covered: whether the interval of the drop holds the true one.
    margin: of the metric.  tests: metrics of the gate.
    """

    error: Floats
    se: Floats
    acceleration: Floats
    covered: NDArray[np.bool_]
    margin: float
    groups: int
    tests: int

    def back(self) -> Trials:
        """The other encoder against this one."""
        return replace(self, error=-self.error, acceleration=-self.acceleration)

    def factors(self) -> Floats:
        found = [tolerance_factor(self.groups, self.tests, FALSE_ALARMS, a) for a in self.acceleration]
        return np.array(found)

    def fails(self, margin: float, true_drop: float = 0.0) -> NDArray[np.bool_]:
        return np.asarray(self.error + true_drop > np.maximum(margin, self.factors() * self.se))

    def powered(self) -> NDArray[np.bool_]:
        """Whether the gate does not say `underpowered`."""
        pairs = zip(self.se, self.factors(), strict=True)
        found = [detectable_drop(se, self.groups, self.margin, k, POWER) for se, k in pairs]
        return np.array(found) <= 2.0 * self.margin


@dataclass
class Metric:
    """A metric that stands for a task's primary one."""

    name: str
    id: str
    higher_is_better: bool
    margin: float


def load(runs: Path) -> list[list[Loaded]]:
    """The comparable results of each task of a folder that has two or more, checked."""
    found: dict[str, list[Loaded]] = defaultdict(list)
    store = ResultStore(runs)
    for path, result in store.load()[0]:
        if result.status == "ok":
            arrays = store.arrays(path, result)
            measure(result, arrays, reducer_of(load_registry()))
            found[column_identity(result.task)].append((result, arrays))
    return [column for column in found.values() if len(column) > 1]


def metrics_of(column: list[Loaded], share: int) -> Iterator[Metric]:
    """The primary metric of a task and further ones, `share` in all."""
    result = column[0][0]
    primary = result.primary
    assert primary is not None
    assert primary.value
    assert primary.margin
    others = [m for m in result.metrics if not m.primary and m.value]
    for metric in [primary, *others][:share]:
        margin = primary.margin * abs((metric.value or 0.0) / primary.value)
        yield Metric(f"{result.task.probe} {metric.id}", metric.id, metric.higher_is_better, margin)


class Simulation:
    """Trials on one task's results."""

    def __init__(self, options: Any) -> None:
        self.rooms, self.trials = options.rooms, options.trials
        self.reducer = reducer_of(load_registry())
        self.rng = np.random.default_rng(0)

    def of_rows(self, loaded: Loaded, metric: Metric, rows: NDArray[Any]) -> OfWeights:
        result, arrays = loaded
        own = {name: values[rows] for name, values in arrays.items() if name not in ("id", "group")}
        return self.reducer(result)(own, metric.id)

    def whole(self, loaded: Loaded, metric: Metric) -> float:
        count = len(loaded[1]["id"])
        return float(self.of_rows(loaded, metric, np.arange(count))(np.ones((1, count)))[0])

    def draw(self, groups: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
        """Rows of rooms drawn with replacement, and their new groups."""
        names, index = np.unique(groups, return_inverse=True)
        picked = [np.flatnonzero(index == room) for room in self.rng.integers(0, len(names), self.rooms)]
        return np.concatenate(picked), [str(i) for i, rows in enumerate(picked) for _ in rows]

    def pair(self, a: Loaded, b: Loaded, metric: Metric, tests: int) -> Trials:
        """b against a."""
        sign = -1.0 if metric.higher_is_better else 1.0
        true = sign * (self.whole(b, metric) - self.whole(a, metric))
        rows = []
        for _ in range(self.trials):
            picked, groups = self.draw(a[1]["group"])
            first, second = (self.of_rows(x, metric, picked) for x in (a, b))
            found = bootstrap(_drop(sign, first, second), groups, self.rng, RESAMPLES)["drop"]
            assert found.ci95 is not None
            covered = found.ci95[0] <= true <= found.ci95[1]
            rows.append((found.value - true, found.se, found.acceleration, covered))
        error, se, acceleration, inside = np.array(rows, dtype=np.float64).T
        return Trials(error, se, acceleration, inside.astype(bool), metric.margin, self.rooms, tests)

    def coverage(self, loaded: Loaded, metric: Metric) -> float:
        """Share of trials whose interval of one encoder's metric holds the population's value."""
        true, hits = self.whole(loaded, metric), []
        for _ in range(self.trials):
            picked, groups = self.draw(loaded[1]["group"])
            value = _drop(1.0, None, self.of_rows(loaded, metric, picked))
            low, high = bootstrap(value, groups, self.rng, RESAMPLES)["drop"].ci95 or (np.nan, np.nan)
            hits.append(low <= true <= high)
        return float(np.mean(hits))


def _drop(sign: float, first: OfWeights | None, second: OfWeights) -> Statistic:
    if first is None:
        return lambda weights: {"drop": sign * second(weights)}
    return lambda weights: {"drop": sign * (second(weights) - first(weights))}


@dataclass
class Found:
    """gates: of each ordered pair of encoders, its metrics' trials.  alone: coverage of one encoder's
    intervals by metric."""

    gates: list[dict[str, Trials]]
    alone: dict[str, list[float]]

    def all_of(self, name: str) -> list[Trials]:
        return [gate[name] for gate in self.gates if name in gate]


def simulate(options: Any) -> Found:
    simulation = Simulation(options)
    found = Found([], defaultdict(list))
    for runs in options.runs:
        gates: dict[tuple[str, str], dict[str, Trials]] = defaultdict(dict)
        tasks = load(runs)
        tests = max(AT_LEAST, len(tasks))
        for i, column in enumerate(tasks):
            share = tests // len(tasks) + (i < tests % len(tasks))
            for metric in metrics_of(column, share):
                for a, b in itertools.combinations(column, 2):
                    trials = simulation.pair(a, b, metric, tests)
                    gates[a[0].label, b[0].label][metric.name] = trials
                    gates[b[0].label, a[0].label][metric.name] = trials.back()
                for one in column:
                    found.alone[metric.name].append(simulation.coverage(one, metric))
        found.gates += gates.values()
    return found


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def print_row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def print_tables(found: Found, options: Any) -> None:
    print(f"{options.rooms} rooms, {options.trials} trials, {len(found.gates)} ordered pairs of encoders\n")
    print_row("metric", "covers the difference", "covers one encoder's value", "SE by true SE")
    print_row("---", "---:", "---:", "---:")
    for name, alone in found.alone.items():
        trials = found.all_of(name)
        covered = float(np.mean([t.covered.mean() for t in trials]))
        ratio = float(np.mean([t.se.mean() / t.error.std() for t in trials]))
        print_row(name, percent(covered), percent(float(np.mean(alone))), f"{ratio:.2f}")
    print()
    print_row("no task dropped", "gates that fail", "between the pairs")
    print_row("---", "---:", "---:")
    for title, with_margin in (("margins as in the cards", True), ("without margins: k · SE alone", False)):
        rates = [family(gate, with_margin) for gate in found.gates]
        print_row(title, percent(float(np.mean(rates))), f"{percent(min(rates))} to {percent(max(rates))}")
    print()
    print_row("metric", "margin", "not underpowered", "twice the margin found there", "anywhere")
    print_row("---", "---:", "---:", "---:", "---:")
    for name in found.alone:
        print_power(name, f"{found.all_of(name)[0].margin:.2g}", found.all_of(name))
    print_power("all", "", [trials for gate in found.gates for trials in gate.values()])


def print_power(name: str, margin: str, trials: list[Trials]) -> None:
    powered = np.concatenate([t.powered() for t in trials])
    hits = np.concatenate([t.fails(t.margin, 2.0 * t.margin) for t in trials])
    power = percent(float(hits[powered].mean())) if powered.any() else "–"
    share = f"{percent(float(powered.mean()))} of {len(powered)}"
    print_row(name, margin, share, power, percent(float(hits.mean())))


def family(gate: dict[str, Trials], with_margin: bool) -> float:
    """Share of trials in which any metric fails although none dropped."""
    fails = [t.fails(t.margin if with_margin else 0.0) for t in gate.values()]
    return float(np.mean(np.any(fails, axis=0)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--rooms", type=int, default=30)
    parser.add_argument("--trials", type=int, default=300)
    arguments = parser.parse_args()
    print_tables(simulate(arguments), arguments)
