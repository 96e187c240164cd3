"""Results as a table: one row per metric.  Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from dune_bench.results.schema import Result
from dune_bench.results.store import ResultStore

COLUMNS = ("encoder", "task", "metric", "value", "unit", "ci_low", "ci_high", "primary", "status")


def results_frame(runs: Path) -> pd.DataFrame:
    """Every readable result below a runs folder, in the order of their files."""
    good, _ = ResultStore(runs).load()
    return frame_of(result for _, result in good)


def frame_of(results: Iterable[Result]) -> pd.DataFrame:
    """encoder: as reports print it, with the brand of weights that are not the released ones.
    value, ci_low, ci_high: NaN where undefined.  A failed or unavailable result is one row without a
    metric."""
    return pd.DataFrame([row for result in results for row in _rows(result)], columns=list(COLUMNS))


def _rows(result: Result) -> list[dict[str, Any]]:
    about = {"encoder": result.label, "task": result.task.id, "status": result.status}
    nan = float("nan")
    if result.status != "ok":
        return [{**about, "metric": None, "value": nan, "ci_low": nan, "ci_high": nan, "primary": False}]
    return [
        {
            **about,
            "metric": metric.id,
            "value": nan if metric.value is None else metric.value,
            "unit": metric.unit,
            "ci_low": nan if metric.ci95 is None else metric.ci95[0],
            "ci_high": nan if metric.ci95 is None else metric.ci95[1],
            "primary": metric.primary,
        }
        for metric in result.metrics
    ]
