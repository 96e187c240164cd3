"""Mean rank over a fixed, named panel of encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import rankdata

from dune_bench.report.board import Column
from dune_bench.results.schema import Result

RANDOM = "random_vits14"
"""An encoder that is random by its card: the member of every default panel, and the zero of retention
where the student itself was not measured with random weights."""


@dataclass(frozen=True)
class MeanRank:
    """ranks: mean rank of each member of the panel, 1 is best; None with `why_not` unless every member
    has a value in at least one column.  columns: the names of those it is over."""

    panel: tuple[str, ...]
    ranks: dict[str, float] | None
    columns: tuple[str, ...]
    why_not: str = ""


def mean_ranks(columns: Sequence[Column], panel: Sequence[str]) -> MeanRank:
    """Ranks of the panel, whoever else was measured.  Ties share the mean of their places.

    A column counts only if the whole panel has a value in it: a rank among fewer means another thing.
    """
    members = tuple(dict.fromkeys(panel))
    places: dict[str, list[float]] = {name: [] for name in members}
    used, absent = [], dict.fromkeys(members, 0)
    for column in columns:
        values = {name: _value(column, name) for name in members}
        for name in members:
            absent[name] += values[name] is None
        known = [value for value in values.values() if value is not None]
        if len(known) < len(members):
            continue
        used.append(column.name)
        for name, place in zip(members, rankdata([-value for value in known]), strict=True):
            places[name].append(float(place))
    if not used:
        missing = ", ".join(name for name in members if absent[name])
        return MeanRank(members, None, (), f"no task has the whole panel: missing {missing or 'all'}")
    return MeanRank(members, {name: sum(at) / len(at) for name, at in places.items()}, tuple(used))


def _value(column: Column, name: str) -> float | None:
    """The member's primary value, greater is better; None without it, or if two checkpoints have the
    name.  Random weights count only under their own label."""
    hits = [entry.result for entry in column.entries if _is(entry.result, name)]
    primary = hits[0].primary if len(hits) == 1 else None
    if primary is None or primary.value is None:
        return None
    return primary.value if primary.higher_is_better else -primary.value


def _is(result: Result, name: str) -> bool:
    by_id = name == result.encoder.id and (name == RANDOM or result.encoder.weights != "random")
    return by_id or name == result.label
