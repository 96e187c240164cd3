"""A comparison of two encoders as a table, Markdown, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from dune_bench.report.format import column_name, escape, heading, number
from dune_bench.report.grid import aligned, csv_table, fine, interval, markdown_table, p_text
from dune_bench.results.compare import Compared, Comparison, TaskComparison
from dune_bench.results.schema import finite_or_none

FORMAT = 1
HEADER = ("task", "metric", "A", "B", "B − A", "95 % interval", "p", "p (Holm)", "B is")
WORST_HEADER = ("sample", "group", "A", "B", "B − A")
NOTE = (
    "Interval and p: paired bootstrap over whole groups; p (Holm) is adjusted for all tasks.  "
    "B is better or worse where the interval excludes 0 and p (Holm) is below 0.05; "
    "`not after Holm`: the interval alone excludes 0.  `<`: a bound, as no resample is as extreme."
)


def table(comparison: Comparison) -> str:
    """For a terminal."""
    parts = [
        f"A: {who(comparison.first)}\nB: {who(comparison.second)}",
        aligned(HEADER, [row(task) for task in comparison.tasks]),
        NOTE,
    ]
    for task in comparison.tasks:
        if task.worst:
            parts.append(f"{worst_title(task)}\n{aligned(WORST_HEADER, worst_rows(task))}")
    return "\n\n".join(parts) + "\n"


def markdown(comparison: Comparison) -> str:
    """A page of its own."""
    first, second = (escape(who(side)) for side in (comparison.first, comparison.second))
    parts = [
        f"# {second} against {first}",
        f"A: {first}  \nB: {second}",
        markdown_table(HEADER, [row(task) for task in comparison.tasks]),
        NOTE,
    ]
    for task in comparison.tasks:
        if task.worst:
            parts += [f"## {escape(worst_title(task))}", markdown_table(WORST_HEADER, worst_rows(task))]
    if comparison.left_out:
        lines = [f"- {escape(entry.task)}: {escape(entry.reason)}" for entry in comparison.left_out]
        parts += ["## Not compared", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def csv_text(comparison: Comparison) -> str:
    """A row a task, numbers in full."""
    header = (
        "task", "metric", "unit", "higher_is_better", "first", "first_digest", "second", "second_digest",
        "first_value", "second_value", "difference", "se", "ci_low", "ci_high", "p", "p_is_bound", "p_holm",
        "groups", "outcome",
    )  # fmt: skip
    rows = []
    for task in comparison.tasks:
        found, metric = task.difference, task.metric
        low, high = found.ci95 or (None, None)
        rows.append([
            column_name(task.task), metric.id, metric.unit, metric.higher_is_better,
            comparison.first.label, comparison.first.encoder.digest,
            comparison.second.label, comparison.second.encoder.digest,
            task.first, task.second, found.value, found.se, low, high,
            found.p_value, found.p_is_bound, task.p_holm, found.groups, task.outcome,
        ])  # fmt: skip
    return csv_table(header, rows)


def json_text(comparison: Comparison) -> str:
    """Everything, the worst samples included."""
    content = {
        "comparison": FORMAT,
        "first": _side(comparison.first),
        "second": _side(comparison.second),
        "tasks": [_task(task) for task in comparison.tasks],
        "left_out": [{"task": entry.task, "reason": entry.reason} for entry in comparison.left_out],
        "notes": list(comparison.notes),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    "table": table,
    "md": markdown,
    "csv": csv_text,
    "json": json_text,
}


def who(side: Compared) -> str:
    """Its label and the first digits of its digest."""
    digest = side.encoder.digest if side.encoder.weights != "none" else None
    return f"{side.label} ({digest[:7]})" if digest else side.label


def row(task: TaskComparison) -> list[str]:
    """As HEADER names them."""
    unit, found = task.metric.unit, task.difference
    return [
        column_name(task.task),
        heading(task.metric),
        number(task.first, unit),
        number(task.second, unit),
        fine(found.value, unit, signed=True),
        interval(found, unit),
        p_text(found.p_value, found.p_is_bound),
        p_text(task.p_holm, found.p_is_bound),
        task.outcome,
    ]


def worst_title(task: TaskComparison) -> str:
    """Heading of the samples that B loses most on."""
    unknown = f"; {task.undefined} samples alone do not define the metric" if task.undefined else ""
    return f"Samples where B loses most: {column_name(task.task)}, {heading(task.metric)}{unknown}"


def worst_rows(task: TaskComparison) -> list[list[str]]:
    """As WORST_HEADER names them."""
    unit = task.metric.unit
    return [
        [s.id, s.group, number(s.first, unit), number(s.second, unit), fine(s.second - s.first, unit, True)]
        for s in task.worst
    ]


def _side(side: Compared) -> dict[str, Any]:
    return {"label": side.label, "id": side.encoder.id, "digest": side.encoder.digest}


def _task(task: TaskComparison) -> dict[str, Any]:
    found = task.difference
    return {
        "task": task.task.id,
        "column": column_name(task.task),
        "metric": task.metric.id,
        "unit": task.metric.unit,
        "higher_is_better": task.metric.higher_is_better,
        "first": task.first,
        "second": task.second,
        "difference": finite_or_none(found.value),
        "se": found.se,
        "ci95": found.ci95,
        "p": found.p_value,
        "p_is_bound": found.p_is_bound,
        "p_holm": task.p_holm,
        "groups": found.groups,
        "outcome": task.outcome,
        "undefined_samples": task.undefined,
        "worst": [{"id": s.id, "group": s.group, "first": s.first, "second": s.second} for s in task.worst],
    }
