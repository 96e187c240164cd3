"""Which samples a panel shows: by name, or so many of them from worst to best as a stored result has it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import UsageError
from dune_bench.registry.cards import MetricSpec
from dune_bench.registry.suggest import did_you_mean
from dune_bench.run.probing import RESERVED, AnyProbe, Arrays


class Pick(StrEnum):
    """spread: from worst to best in even steps.  worst, best, median: the nearest to that end.
    even: spread over the groups, whatever their numbers; needs no result."""

    spread = "spread"
    worst = "worst"
    best = "best"
    median = "median"
    even = "even"


@dataclass(frozen=True)
class Chosen:
    """A sample by its index in the split, and its place among the others (or empty)."""

    index: int
    place: str = ""


def sample_value(probe: AnyProbe, stats: Mapping[str, NDArray[Any]], metric: str) -> float:
    """A metric of one sample alone.  stats: arrays of one row.  NaN where it is undefined."""
    return float(probe.reduce(stats, np.ones((1, 1)))[metric][0])


def ranking(probe: AnyProbe, arrays: Arrays, metric: MetricSpec, seed: int | None) -> list[str]:
    """Ids of the samples from worst to best by a metric of each alone; of equal ones the earlier first.

    A failed sample is worse than any; one whose metric is undefined (nothing to find) has no rank.
    arrays: as a result stores them.  seed: whose statistics.
    """
    prefix = "" if seed is None else f"seed{seed}."
    names = [name for name in arrays if name not in RESERVED and name.startswith(prefix)]
    rows = {name.removeprefix(prefix): arrays[name] for name in names}
    values = np.full(len(arrays["id"]), np.nan)
    for i in range(len(values)):
        stats = {name: column[i : i + 1] for name, column in rows.items()}
        good = sample_value(probe, stats, metric.id) * (1 if metric.higher_is_better else -1)
        values[i] = -np.inf if _failed(stats) else good
    order = np.argsort(values, kind="stable")
    return [str(arrays["id"][i]) for i in order if not np.isnan(values[i])]


def _failed(stats: Mapping[str, NDArray[Any]]) -> bool:
    return "failed" in stats and bool(np.all(stats["failed"]))


def by_rank(ids: Sequence[str], ranked: Sequence[str], pick: Pick, count: int) -> list[Chosen]:
    """At most `count` samples of a ranking (worst first), in its order."""
    total = len(ranked)
    count = min(count, total)
    if pick is Pick.spread:
        # One alone is the middle; more include both ends.
        middle = [(total - 1) // 2]
        positions = [round(i * (total - 1) / (count - 1)) for i in range(count)] if count > 1 else middle
    else:
        first = {Pick.worst: 0, Pick.best: total - count, Pick.median: (total - count) // 2}[pick]
        positions = list(range(first, first + count))
    where = {name: index for index, name in enumerate(ids)}
    return [Chosen(where[ranked[p]], _place(p, total)) for p in dict.fromkeys(positions[:total])]


def _place(position: int, total: int) -> str:
    if position == 0:
        return f"worst of {total}"
    return f"best of {total}" if position == total - 1 else f"rank {total - position} of {total} (1 is best)"


def evenly(groups: Sequence[str], count: int) -> list[Chosen]:
    """At most `count` samples over as many groups as there are: the first of each, then the second …"""
    seen: dict[str, int] = {}
    turn = []
    for group in groups:
        seen[group] = seen.get(group, -1) + 1
        turn.append(seen[group])
    names = list(dict.fromkeys(groups))
    if count <= len(names):
        kept = {names[i * len(names) // count] for i in range(count)}
        return [Chosen(i) for i, group in enumerate(groups) if group in kept and turn[i] == 0]
    order = sorted(range(len(groups)), key=lambda i: (turn[i], i))
    return [Chosen(i) for i in sorted(order[:count])]


def by_name(ids: Sequence[str], patterns: Sequence[str]) -> list[Chosen]:
    """The samples with these ids; globs are allowed.  Raises UsageError naming the nearest ids."""
    chosen: dict[int, None] = {}
    for pattern in patterns:
        found = [i for i, name in enumerate(ids) if name == pattern or fnmatch.fnmatchcase(name, pattern)]
        if not found:
            raise UsageError(f"--samples: no sample {pattern!r}{did_you_mean(pattern, ids)}")
        chosen.update(dict.fromkeys(found))
    return [Chosen(i) for i in chosen]
