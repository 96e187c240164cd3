"""The leaderboard as Markdown: what was measured, under which conditions, and what was not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dune_bench.report.board import Board, Column
from dune_bench.report.conditions import data_text
from dune_bench.report.format import (
    FAILED_MEANS,
    NO_SPREAD,
    NO_SPREAD_MEANS,
    column_name,
    escape,
    has_no_spread,
    heading,
    overlaps,
    with_interval,
)
from dune_bench.results.schema import Json, Result, TaskInfo


def markdown(board: Board) -> str:
    """The whole page.  The same board gives the same bytes."""
    parts = ["# Leaderboard", _intro(board)]
    if board.columns:
        parts += ["## Primary metrics", _overview(board)]
        for column in board.columns:
            parts += [f"## {escape(column.name)}", _task_table(board, column), _conditions(board, column)]
        if described := _encoders(board):
            parts += ["## Encoders", described]
    if board.missing:
        parts += ["## Not measured", _missing(board)]
    if board.refused:
        parts += ["## Files refused", _refused(board)]
    return "\n\n".join(parts) + "\n"


def _intro(board: Board) -> str:
    count = sum(len(column.entries) for column in board.columns)
    lines = [
        f"Made by `dune-bench report` from {count} result{'' if count == 1 else 's'}; do not edit.",
        "Brackets are 95 % intervals (bootstrap over the data's groups); none where groups are too few.",
        "↑ higher is better, ↓ lower is better.  Columns differ in task, protocol, input, data or limit: "
        "numbers compare within a column only.",
    ]
    if any(overlaps(entry.result) for column in board.columns for entry in column.entries):
        lines.append("† the encoder was trained on data of this set, by its card.")
    metrics = [metric for c in board.columns for entry in c.entries for metric in entry.result.metrics]
    if has_no_spread(metrics):
        lines.append(f"{NO_SPREAD} {NO_SPREAD_MEANS}.")
    if any(metric.n_failed for metric in metrics):
        lines.append(f"(n failed): {FAILED_MEANS}.")
    lines += [f"{escape(data)}: {escape(text)}." for data, text in board.descriptions.datasets.items()]
    lines += [f"{escape(line)}." for line in board.not_shown()]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped already."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def _overview(board: Board) -> str:
    """Encoder × column, primary metric."""
    cells: dict[str, dict[str, str]] = {}
    for column in board.columns:
        for entry in column.entries:
            row = cells.setdefault(board.label(entry.result), {})
            row[column.identity] = _primary(entry.result)
    header = ["encoder", *(f"{escape(c.name)}<br>{escape(_primary_heading(c))}" for c in board.columns)]
    rows = [
        [escape(label), *(row.get(column.identity, "") for column in board.columns)]
        for label, row in sorted(cells.items())
    ]
    return _table(header, rows)


def _primary_heading(column: Column) -> str:
    return next((heading(metric) for metric in column.metrics if metric.primary), "no primary metric")


def _primary(result: Result) -> str:
    primary = result.primary
    return ("" if primary is None else escape(with_interval(primary))) + _marks(result)


def _marks(result: Result) -> str:
    return " †" if overlaps(result) else ""


def _task_table(board: Board, column: Column) -> str:
    """Every metric of one column, best first."""
    metrics = column.metrics
    rows = []
    for entry in column.entries:
        own = {metric.id: metric for metric in entry.result.metrics}
        values = [escape(with_interval(own[m.id])) if m.id in own else "" for m in metrics]
        name = escape(board.label(entry.result)) + _marks(entry.result)
        rows.append([name, *values, escape(entry.result.encoder.view)])
    return _table(["encoder", *(escape(heading(metric)) for metric in metrics), "view"], rows)


def _encoders(board: Board) -> str:
    """What the cards say of the encoders."""
    texts = sorted((board.labels[identity], text) for identity, text in board.descriptions.encoders.items())
    return "\n".join(f"- {escape(label)}: {escape(text)}" for label, text in texts)


def _conditions(board: Board, column: Column) -> str:
    """What holds for the whole column, in one paragraph."""
    task = column.task
    results = [entry.result for entry in column.entries]
    facts = [
        f"Input: {_pairs(task.input)}.",
        f"Data: {escape(data_text(board, column))}{_fingerprints(task)}.",
        f"Protocol {escape(task.protocol)}, fingerprint {task.protocol_fingerprint[:12]}.",
        f"Computed with dune-bench {_distinct(r.provenance.dune_bench for r in results)}, "
        f"torch {_distinct(r.provenance.torch for r in results)}, "
        f"on {_distinct(r.provenance.device for r in results)}.",
    ]
    if any(result.provenance.dirty for result in results):
        facts.append("Some of it from a checkout with uncommitted changes.")
    return "\n".join(facts)


def _pairs(content: Mapping[str, Json]) -> str:
    return ", ".join(f"{escape(k)} {escape(str(v))}" for k, v in sorted(content.items()) if v is not None)


def _fingerprints(task: TaskInfo) -> str:
    prints = ", ".join(f"{escape(s)} {f[:12]}" for s, f in sorted(task.dataset_fingerprints.items()))
    return f"; fingerprints: {prints}" if prints else ""


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted({escape(value) for value in values}))


def _missing(board: Board) -> str:
    """One row per encoder and reason, with all tasks that it holds for."""
    tasks: dict[tuple[str, str, str], list[str]] = {}
    for entry in board.missing:
        result = entry.result
        reason = (board.label(result), result.status, result.error or "")
        tasks.setdefault(reason, []).append(escape(column_name(result.task)))
    rows = [
        (escape(label), "<br>".join(sorted(names)), escape(status), escape(reason))
        for (label, status, reason), names in sorted(tasks.items())
    ]
    header = "| encoder | task | status | reason |\n| --- | --- | --- | --- |\n"
    return header + "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _refused(board: Board) -> str:
    return "\n".join(f"- {escape(refused.reason)}" for refused in board.refused)
