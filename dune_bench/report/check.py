"""Whether results are still what their runs wrote.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import TaskError
from dune_bench.registry.lookup import Registry
from dune_bench.report.paired import reducer_of
from dune_bench.report.select import Found
from dune_bench.results.measured import NotComparableError, measure
from dune_bench.results.schema import Metric, Result
from dune_bench.results.store import Refused, ResultStore

RECOMPUTED = 1000
"""Up to so many results, each value is recomputed; a report of more would take a minute."""


@dataclass(frozen=True)
class Checked:
    """The results that a report may show, and those that it may not, with the reasons."""

    found: tuple[Found, ...]
    refused: tuple[Refused, ...]


class Checker:
    """Holds results against their statistics.

    The bytes of the statistics are always held against the hash in the result.  recompute: the primary
    metric is computed from them again; else it must lie in its own interval.  unknown: how many
    could not be recomputed, as no card here declares their protocol.
    """

    def __init__(self, registry: Registry, *, recompute: bool) -> None:
        self.recompute, self.unknown = recompute, 0
        self._registry, self._reducer = registry, reducer_of(registry)

    def check(self, found: Sequence[Found], store: ResultStore) -> Checked:
        """Parts the results of one folder; the reasons name files by their paths in it."""
        good, refused = [], []
        for path, result in found:
            reason = self.reason(path, result, store)
            if reason is None:
                good.append((path, result))
            else:
                inside = path.relative_to(store.root.parent).as_posix()
                refused.append(Refused(path, f"{inside}: {reason}"))
        return Checked(tuple(good), tuple(refused))

    def reason(self, path: Path, result: Result, store: ResultStore) -> str | None:
        """Why a report may not show a result, or None.  One that is not ok has nothing to check."""
        if result.status != "ok":
            return None
        if result.primary is None:
            return "has no primary metric: run again"
        try:
            if not (self.recompute and self._known(result)):
                store.check_arrays(path, result)
                return _outside(result.primary)
            arrays = store.arrays(path, result)
            if result.primary.value is not None:
                measure(result, arrays, self._reducer)
        except (TaskError, NotComparableError) as error:
            return str(error).replace(f"{path.parent}/", "")
        return None

    def _known(self, result: Result) -> bool:
        task = self._registry.tasks.get(result.task.id)
        known = task is not None and task.protocol_fingerprint() == result.task.protocol_fingerprint
        self.unknown += not known
        return known

    def notes(self) -> list[str]:
        """What was not recomputed, in a line each."""
        if not self.recompute:
            return [
                f"more than {RECOMPUTED} results: their statistics are unchanged, but the values were not "
                "recomputed from them; --verify does"
            ]
        if self.unknown:
            count = f"{self.unknown} result{'' if self.unknown == 1 else 's'}"
            return [
                f"{count} not recomputed: no card here declares the same protocol (--include names cards)"
            ]
        return []


def _outside(metric: Metric) -> str | None:
    if metric.value is None or metric.ci95 is None or metric.ci95[0] <= metric.value <= metric.ci95[1]:
        return None
    low, high = metric.ci95
    return f"{metric.id} is {metric.value:g}, outside of its own interval [{low:g}, {high:g}]: edited"
