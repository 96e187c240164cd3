"""The leaderboard as CSV: one row per metric, one per failed or unavailable result."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

from dune_bench.report.board import Board, Column, Entry
from dune_bench.results.schema import Metric

COLUMNS = (
    "encoder", "weights", "digest", "adapter", "view",
    "task", "probe", "dataset", "protocol", "protocol_fingerprint", "comparable",
    "status", "metric", "value", "unit", "higher_is_better", "primary", "ci_low", "ci_high", "n", "n_failed",
    "limited", "overrides", "input", "seeds", "error",
    "dune_bench", "commit", "dirty", "torch", "device", "started", "key", "file",
)  # fmt: skip
"""Stable order; new columns go to the end.  `comparable` is equal exactly for comparable results."""


def csv_text(board: Board) -> str:
    """The whole file.  Numbers are written in full, undefined ones as nothing."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for column in board.columns:
        for entry in column.entries:
            writer.writerows(_rows(entry, column))
    for entry in board.missing:
        writer.writerow(_common(entry))
    return buffer.getvalue()


def _rows(entry: Entry, column: Column) -> Iterator[dict[str, object]]:
    common = _common(entry) | {"comparable": column.identity[:12]}
    for metric in entry.result.metrics:
        yield common | _metric(metric)


def _metric(metric: Metric) -> dict[str, object]:
    low, high = metric.ci95 or (None, None)
    return {
        "metric": metric.id,
        "value": metric.value,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "primary": metric.primary,
        "ci_low": low,
        "ci_high": high,
        "n": metric.n,
        "n_failed": metric.n_failed,
    }


def _common(entry: Entry) -> dict[str, object]:
    result = entry.result
    encoder, task, made = result.encoder, result.task, result.provenance
    return {
        "encoder": encoder.id,
        "weights": encoder.weights,
        "digest": encoder.digest,
        "adapter": encoder.adapter,
        "view": encoder.view,
        "task": task.id,
        "probe": task.probe,
        "dataset": task.dataset,
        "protocol": task.protocol,
        "protocol_fingerprint": task.protocol_fingerprint,
        "status": result.status,
        "limited": task.limited,
        "overrides": _json(task.overrides),
        "input": _json(task.input),
        "seeds": " ".join(map(str, result.seeds)),
        "error": result.error,
        "dune_bench": made.dune_bench,
        "commit": made.commit,
        "dirty": made.dirty,
        "torch": made.torch,
        "device": made.device,
        "started": made.started,
        "key": result.key,
        "file": entry.file,
    }


def _json(content: object) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=False) if content else ""
