"""Which tasks a universal encoder serves and which keep a specialist, under quality floors and a budget.

Imports no torch.
"""

from __future__ import annotations

import csv
import io
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.registry.lookup import Registry
from dune_bench.report.analysis_cost import QUANTITIES, analyse_cost
from dune_bench.report.format import column_name
from dune_bench.report.paired import reducer_of
from dune_bench.report.select import Found, choose
from dune_bench.results.measured import Measured, NotComparableError, measure, mismatch
from dune_bench.results.stats import RESAMPLES, Estimate, Floats, bootstrap, with_seeds
from dune_bench.results.store import ResultStore

MAX_SPECIALISTS = 12


@dataclass(frozen=True)
class Option:
    """An encoder on a task.  value: of the primary metric.  slack: by how much it is better than the
    floor, in the metric's unit; negative if it misses it.  probability: that it meets the floor, by the
    bootstrap over groups; None with fewer than 10 groups."""

    encoder: str
    value: float
    slack: float
    probability: float | None = None

    @property
    def meets(self) -> bool:
        return self.slack >= 0.0


@dataclass(frozen=True)
class Choice:
    """A task, its floor, the universal encoder on it, and the encoder that serves it.  best: the encoder
    that the floor is a share of, None for a floor that was given."""

    task: str
    metric: str
    unit: str
    floor: float
    universal: Option
    served: Option
    best: str | None


@dataclass(frozen=True)
class Plan:
    """encoders: those that run.  served: task -> encoder.  met: number of floors met.  ties: other sets of
    encoders that meet as many floors at the same cost."""

    encoders: tuple[str, ...]
    served: Mapping[str, str]
    met: int
    cost: float
    ties: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class HybridAnalysis:
    """quantity: key of QUANTITIES; budget, cost and all_specialists in its unit there.  jointly: a lower
    bound on the probability that all floors are met at once (Bonferroni), None if a part is unknown."""

    universal: str
    quantity: str
    budget: float
    cost: float
    all_specialists: float
    choices: tuple[Choice, ...]
    encoders: tuple[str, ...]
    ties: tuple[tuple[str, ...], ...]
    jointly: float | None
    conditions: str
    notes: tuple[str, ...]

    @property
    def unmet(self) -> tuple[str, ...]:
        return tuple(choice.task for choice in self.choices if not choice.served.meets)


def best_plan(
    options: Mapping[str, Mapping[str, Option]], costs: Mapping[str, float], universal: str, budget: float
) -> Plan:
    """The exact optimum: most floors met within the budget, then least cost, then most tasks with the
    universal encoder, then the first in the order of `costs`.

    options: task -> encoder -> what it does there.  costs: of every encoder, paid once if it serves at
    least one task.  Sets of encoders are enumerated, not assignments: the cost depends on the set only, and
    in a set each task is served best on its own.  Raises UnavailableError if nothing is within budget.
    """
    plans: list[tuple[tuple[float, ...], Plan]] = []
    names = list(costs)
    for size in range(1, len(names) + 1):
        for chosen in combinations(names, size):
            cost = sum(costs[name] for name in chosen)
            if cost > budget or any(not set(chosen) & set(found) for found in options.values()):
                continue
            served = {task: _server(found, chosen, universal) for task, found in options.items()}
            if set(served.values()) != set(chosen):
                continue  # one of them idles: the set without it is there, too
            met = sum(options[task][name].meets for task, name in served.items())
            mine = sum(name == universal for name in served.values())
            plans.append(((-met, cost, -mine), Plan(chosen, served, met, cost)))
    if not plans:
        raise UnavailableError(
            f"no encoder or set of encoders serves all tasks within the budget of {budget:g}: "
            f"{', '.join(f'{name} costs {cost:g}' for name, cost in costs.items())}"
        )
    key, best = min(plans, key=lambda entry: entry[0])
    ties = tuple(plan.encoders for other, plan in plans if other[:2] == key[:2] and plan is not best)
    return Plan(best.encoders, best.served, best.met, best.cost, ties)


def _server(found: Mapping[str, Option], chosen: Sequence[str], universal: str) -> str:
    """The universal encoder if it meets the floor, else the best of the set."""
    if universal in chosen and universal in found and found[universal].meets:
        return universal
    return max((name for name in chosen if name in found), key=lambda name: found[name].slack)


@dataclass(frozen=True)
class Floors:
    """values: task id or probe -> floor in the unit of its primary metric.  retention: for all other tasks,
    as a share of the best specialist; None: they are left out."""

    values: Mapping[str, float]
    retention: float | None = None


@dataclass(frozen=True)
class _Task:
    """A task measured for several encoders.  factor: the floor is factor · best specialist, 0 for a floor
    of its own."""

    measured: Mapping[str, Measured]
    floor: float
    best: str | None
    factor: float

    def option(self, name: str, resamples: int | None = None) -> Option:
        own = self.measured[name]
        value = float(own.metric.value or 0.0)
        slack = own.sign * (value - self.floor)
        return Option(name, value, slack, self._probability(own, resamples) if resamples else None)

    def _probability(self, own: Measured, resamples: int) -> float | None:
        against = self.measured[self.best] if self.best else None
        metric = own.metric.id

        def slack(weights: Floats) -> dict[str, Floats]:
            floor = self.factor * against.statistic(weights)[metric] if against else self.floor
            return {metric: own.sign * (own.statistic(weights)[metric] - floor)}

        rng = np.random.default_rng([2, zlib.crc32(own.task.id.encode())])
        found = bootstrap(slack, own.groups, rng, resamples)[metric]
        spread = own.between_seeds + (self.factor**2 * against.between_seeds if against else 0.0)
        return _positive(with_seeds(found, spread))


def _positive(estimate: Estimate) -> float | None:
    """One-sided confidence that the quantity is at least 0."""
    if estimate.p_value is None:
        return None
    if estimate.se == 0.0:
        return 1.0 if estimate.value >= 0.0 else 0.0
    return 1.0 - estimate.p_value / 2.0 if estimate.value >= 0.0 else estimate.p_value / 2.0


def analyse_hybrid(
    universal: str,
    specialists: Sequence[str],
    runs: Path,
    registry: Registry,
    floors: Floors,
    budget: tuple[str, float],
    resamples: int = RESAMPLES,
) -> HybridAnalysis:
    """budget: key of QUANTITIES and the limit in its unit there (ms, MiB).

    Raises UnavailableError if a cost or all qualities of an encoder are not measured, or nothing is within
    the budget; UsageError for floors of unknown tasks.
    """
    if len(specialists) > MAX_SPECIALISTS:
        raise UsageError(f"--against names {len(specialists)} specialists: at most {MAX_SPECIALISTS}")
    specialists = [name for name in specialists if name != universal]
    quantity, limit = budget
    costs, conditions = _costs(universal, specialists, runs, quantity)
    measured, notes = _measured((universal, *specialists), runs, registry)
    tasks, unfloored = _tasks(measured, specialists, floors)
    options = {task: {name: part.option(name) for name in part.measured} for task, part in tasks.items()}
    plan = best_plan(options, costs, universal, limit)
    choices = []
    for task, part in sorted(tasks.items()):
        metric = part.measured[universal].metric
        own = part.option(universal, resamples)
        name = plan.served[task]
        served = own if name == universal else part.option(name, resamples)
        choices.append(Choice(task, metric.id, metric.unit, part.floor, own, served, part.best))
    sure = [choice.served.probability for choice in choices]
    known = [p for p in sure if p is not None]
    return HybridAnalysis(
        universal, quantity, limit, plan.cost, sum(costs[name] for name in specialists), tuple(choices),
        plan.encoders, plan.ties, max(0.0, 1.0 - sum(1.0 - p for p in known)) if known == sure else None,
        conditions, (*notes, *unfloored),
    )  # fmt: skip


def _costs(
    universal: str, specialists: Sequence[str], runs: Path, quantity: str
) -> tuple[dict[str, float], str]:
    analysis = analyse_cost(universal, specialists, runs)
    unit = QUANTITIES[quantity][1]
    found = {row.name: row.value(quantity) for row in (analysis.universal, *analysis.specialists)}
    if missing := [name for name, value in found.items() if value is None]:
        raise UnavailableError(
            f"cost not measured under the same conditions ({analysis.conditions}): {', '.join(missing)}: "
            f"run dune-bench profile NAME for each, with --runs {runs}"
        )
    return {name: value / unit for name, value in found.items() if value is not None}, analysis.conditions


def _measured(
    names: Sequence[str], runs: Path, registry: Registry
) -> tuple[dict[str, dict[str, Measured]], list[str]]:
    """Task -> encoder -> result, for the tasks of the first encoder, and what was left out."""
    store, reducer = ResultStore(runs), reducer_of(registry)
    results, refused = store.load()
    notes = [f"{entry.path.name}: {entry.reason}" for entry in refused]
    tasks: dict[str, dict[str, Measured]] = {}

    def ready(item: Found) -> Measured:
        try:
            return measure(item[1], store.arrays(*item), reducer)
        except TaskError as error:
            raise NotComparableError(str(error)) from error

    for name in names:
        checkpoint = choose(results, name, runs, refused)
        notes += checkpoint.notes
        notes += [f"{column_name(lost.task)}: {name}: {reason}" for lost, reason in checkpoint.gone]
        for item in checkpoint.results:
            column = column_name(item[1].task)
            try:
                found = ready(item)
                if name != names[0]:
                    _same(tasks, column, names[0], found)
                tasks.setdefault(column, {})[name] = found
            except NotComparableError as error:
                notes.append(f"{column}: {name}: {error}")
    if not tasks:
        raise UnavailableError(f"{names[0]} has no usable result in {runs}: run dune-bench run -e {names[0]}")
    return tasks, notes


def _same(tasks: Mapping[str, Mapping[str, Measured]], column: str, first: str, found: Measured) -> None:
    """Raises NotComparableError unless the first encoder has this column on the same samples."""
    if column not in tasks:
        raise NotComparableError(f"{first} was not measured on it")
    own = tasks[column][first]
    reason = mismatch(own.result, found.result)
    if reason is None and (own.ids, own.groups) != (found.ids, found.groups):
        reason = "other samples"
    if reason is not None:
        raise NotComparableError(reason)


def _tasks(
    measured: Mapping[str, Mapping[str, Measured]], specialists: Sequence[str], floors: Floors
) -> tuple[dict[str, _Task], list[str]]:
    """The tasks that have a floor, and notes on those that have none."""
    tasks: dict[str, _Task] = {}
    notes: list[str] = []
    used: set[str] = set()
    for column, found in measured.items():
        info = next(iter(found.values()))
        words = {info.task.id, info.task.probe} & floors.values.keys()
        used |= words
        there = [name for name in specialists if name in found]
        if words:
            exact = info.task.id if info.task.id in words else info.task.probe
            tasks[column] = _Task(found, floors.values[exact], None, 0.0)
        elif floors.retention is None or not there:
            why = "no floor" if floors.retention is None else "no specialist was measured on it"
            notes.append(f"{column}: {why}: give --floor {info.task.probe}=VALUE")
        else:
            best = max(there, key=lambda name: found[name].sign * float(found[name].metric.value or 0.0))
            value = float(found[best].metric.value or 0.0)
            if value < 0.0:
                raise UnavailableError(
                    f"{column}: a share of {value:g} is no floor: give --floor {info.task.probe}=VALUE"
                )
            factor = floors.retention if info.sign > 0 else 1.0 / floors.retention
            tasks[column] = _Task(found, factor * value, best, factor)
    if unknown := sorted(floors.values.keys() - used):
        known = sorted({next(iter(found.values())).task.probe for found in measured.values()})
        raise UsageError(f"--floor {unknown[0]}: not a measured task; measured are {', '.join(known)}")
    if not tasks:
        raise UnavailableError(f"no task has a floor: {'; '.join(notes)}")
    return tasks, notes


def to_markdown(analysis: HybridAnalysis) -> str:
    lines = [
        "| task | metric | floor | universal | P(meets) | served by | value | P(meets) | floor met |",
        "|---|---|---:|---:|---:|---|---:|---:|---|",
    ]
    for c in analysis.choices:
        cells = [
            c.task, f"{c.metric} ({c.unit})" if c.unit else c.metric, f"{c.floor:.4g}",
            f"{c.universal.value:.4g}", _percent(c.universal.probability), c.served.encoder,
            f"{c.served.value:.4g}", _sure(c), "yes" if c.served.meets else "no",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    heading = QUANTITIES[analysis.quantity][0]
    saved = analysis.all_specialists - analysis.cost
    gain = f"saved {saved:.1f} ({saved / analysis.all_specialists:.0%})" if saved > 0 else "nothing is saved"
    if saved < 0:
        gain = f"{-saved:.1f} more: the specialists alone cost less"
    lines += [
        "",
        f"Runs: {', '.join(analysis.encoders)}. {heading}: {analysis.cost:.1f} of {analysis.budget:g}; all "
        f"specialists {analysis.all_specialists:.1f}, {gain}. {analysis.conditions}.",
        f"Probability that all floors are met at once: {_at_least(analysis.jointly)}.",
    ]
    if any(c.served.encoder == c.best for c in analysis.choices):
        lines.append(
            "By definition: the floor is a share of this encoder's own value, which says nothing new."
        )
    if analysis.ties:
        others = "; ".join(" + ".join(names) for names in analysis.ties)
        lines.append(
            f"As many floors at the same cost: {others}. Taken: most tasks with the universal encoder, "
            "then the order of --against."
        )
    return "\n".join(lines) + "\n"


def _sure(choice: Choice) -> str:
    return "by definition" if choice.served.encoder == choice.best else _percent(choice.served.probability)


def _percent(share: float | None) -> str:
    """A bootstrap is never quite sure, so neither 100 nor 0 is printed."""
    if share is None:
        return "–"
    if 0.0005 < share < 0.9995:
        return f"{100 * share:.1f} %"
    return ">99.9 %" if share > 0.5 else "<0.1 %"


def _at_least(share: float | None) -> str:
    return "unknown (too few groups)" if share is None else f"at least {math.floor(1000 * share) / 10:.1f} %"


def to_csv(analysis: HybridAnalysis) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["task", "metric", "unit", "floor", "universal", "universal_p", "served_by", "value", "p", "met"]
    )
    for c in analysis.choices:
        p = ["" if o.probability is None else o.probability for o in (c.universal, c.served)]
        writer.writerow([c.task, c.metric, c.unit, c.floor, c.universal.value, p[0], c.served.encoder,
                         c.served.value, p[1], c.served.meets])  # fmt: skip
    return text.getvalue()


def to_json(analysis: HybridAnalysis) -> str:
    return json.dumps(asdict(analysis) | {"unmet": analysis.unmet}, indent=1, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[HybridAnalysis], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
}
