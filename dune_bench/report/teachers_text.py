"""The teachers' tables as rows, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from dune_bench.report.format import column_name, escape, heading, number, overlaps, with_interval
from dune_bench.report.grid import p_text
from dune_bench.report.reference import PublishedRow, published, tables_of
from dune_bench.report.teachers import Against, StudentTable, TaskRow
from dune_bench.results.schema import Result

HEADER = ("task", "student", "teacher", "its value", "student − teacher", "p (Holm)", "retention")
CSV_COLUMNS = (
    "student", "task", "metric", "unit", "higher_is_better", "student_value", "student_view", "teacher",
    "teacher_value", "teacher_view", "best_teacher", "difference", "ci_low", "ci_high", "p_holm", "outcome",
    "retention", "random", "random_value", "student_overlap", "teacher_overlap",
)  # fmt: skip
"""Stable order; new columns go to the end.  Measured values only."""
MARKS = {"better": " ▲", "worse": " ▼"}
LEGEND = (
    "Differences are student − teacher on the same samples, with 95 % intervals (paired bootstrap over the "
    "data's groups). ▲ the student is better, ▼ worse: the interval excludes 0 and p is below 0.05. p is "
    "adjusted over a teacher's tasks (Holm). Bold: the best measured teacher of the task, chosen by these "
    "same numbers. "
    "Retention is (student − random) / (teacher − random): 1 is the teacher's level, 0 that of random "
    "features. † trained on data of this set, by its card."
)

ELSEWHERE = (
    "Other data, protocols or heads: for orientation; they compare within one list only, never with "
    "the table above."
)


def cells(row: TaskRow) -> list[list[str]]:
    """The rows of one task as plain text, one a teacher; one with dashes if there is none."""
    primary = row.student.primary
    own = "" if primary is None else with_interval(primary) + _mark(row.student)
    first = f"{column_name(row.task)}: {'' if primary is None else heading(primary)}"
    if not row.teachers:
        return [[first, own, "none measured", "–", "–", "–", "–"]]
    return [[first, own, *_teacher(row, against)] for against in row.teachers]


def _teacher(row: TaskRow, against: Against) -> list[str]:
    comparison = against.comparison
    unit = comparison.metric.unit
    return [
        against.teacher.label + _mark(against.teacher) + (" (best)" if against.best else ""),
        number(comparison.first, unit),
        _difference(against),
        "–" if comparison.p_holm is None else p_text(comparison.p_holm, comparison.difference.p_is_bound),
        f"undefined: {against.why_not}" if against.retention is None else _retained(row, against.retention),
    ]


def _difference(against: Against) -> str:
    found, unit = against.comparison.difference, against.comparison.metric.unit
    text = _signed(found.value, unit)
    if found.ci95 is None:
        return f"{text} (no interval)"
    return f"{text} [{_signed(found.ci95[0], unit)}, {_signed(found.ci95[1], unit)}]" + MARKS.get(
        against.comparison.outcome, ""
    )


def _signed(value: float, unit: str) -> str:
    return ("+" if value > 0 else "") + number(value, unit)


def _retained(row: TaskRow, value: float) -> str:
    return f"{value:.2f} (random: {row.random.label})" if row.random else f"{value:.2f}"


def _mark(result: Result) -> str:
    return " †" if overlaps(result) else ""


def rank_lines(table: StudentTable) -> list[str]:
    """The mean ranks, or why there are none."""
    ranks = table.ranks
    panel = ", ".join(ranks.panel)
    if ranks.ranks is None:
        return [f"Mean rank over the panel {panel}: not given, {ranks.why_not}."]
    order = sorted(ranks.ranks.items(), key=lambda item: (item[1], item[0]))
    values = ", ".join(f"{name} {value:.2f}" for name, value in order)
    return [f"Mean rank over the panel {panel}, in {len(ranks.columns)} tasks: {values}."]


def left_out_lines(table: StudentTable) -> list[str]:
    return list(dict.fromkeys(f"{entry.task}: {entry.reason}" for entry in table.left_out))


def references(table: StudentTable) -> Iterable[tuple[str, Sequence[PublishedRow]]]:
    """Published rows of the student and its teachers for the probes that it was measured with."""
    encoders = [*(row.student.encoder.id for row in table.rows), *table.teachers]
    probes = [row.task.probe for row in table.rows]
    for (_, dataset, metric, provenance, source), rows in tables_of(published(), encoders, probes).items():
        arrow = "↑" if rows[0].higher_is_better else "↓"
        yield f"{rows[0].task}, {dataset}, {metric} {arrow} [{provenance}] {source}", rows


def teachers_markdown(tables: Sequence[StudentTable]) -> str:
    """The whole page.  The same results give the same bytes."""
    parts = ["# Students and their teachers", LEGEND]
    for table in tables:
        parts.append(f"## {escape(table.label)}")
        parts += [escape(note) for note in table.notes]
        parts.append(_grid(HEADER, [_bold(line) for row in table.rows for line in cells(row)]))
        parts += [escape(line) for line in rank_lines(table)]
        if lines := left_out_lines(table):
            parts += ["### Left out", "\n".join(f"- {escape(line)}" for line in lines)]
        if found := list(references(table)):
            parts += ["### Published elsewhere", ELSEWHERE]
        for title, rows in found:
            parts.append(
                f"{escape(title)}\n\n" + "\n".join(f"- {escape(published_line(row))}" for row in rows)
            )
    return "\n\n".join(parts) + "\n"


def published_line(row: PublishedRow) -> str:
    """A published value and its model, not escaped."""
    what = ", ".join(part for part in (row.arch, row.resolution and f"{row.resolution} px") if part)
    return f"{row.model}{f' ({what})' if what else ''}: {row.value:g}"


def _bold(line: Sequence[str]) -> list[str]:
    shown = [escape(cell) for cell in line]
    if line[2].endswith(" (best)"):
        shown[2] = f"**{escape(line[2].removesuffix(' (best)'))}**"
    return shown


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * 3 + ["---:"] * (len(header) - 3)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def teachers_csv(tables: Sequence[StudentTable]) -> str:
    """One line a student, task and teacher; numbers in full, undefined ones as nothing."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            writer.writerows(_record(table, row, against) for against in row.teachers)
    return buffer.getvalue()


def _record(table: StudentTable, row: TaskRow, against: Against) -> dict[str, object]:
    comparison = against.comparison
    low, high = comparison.difference.ci95 or (None, None)
    zero = row.random.primary if row.random else None
    return {
        "student": table.label,
        "task": column_name(row.task),
        "metric": comparison.metric.id,
        "unit": comparison.metric.unit,
        "higher_is_better": comparison.metric.higher_is_better,
        "student_value": comparison.second,
        "student_view": row.student.encoder.view,
        "teacher": against.teacher.label,
        "teacher_value": comparison.first,
        "teacher_view": against.teacher.encoder.view,
        "best_teacher": against.best,
        "difference": comparison.difference.value,
        "ci_low": low,
        "ci_high": high,
        "p_holm": comparison.p_holm,
        "outcome": comparison.outcome,
        "retention": against.retention,
        "random": row.random.label if row.random else None,
        "random_value": zero.value if zero else None,
        "student_overlap": overlaps(row.student),
        "teacher_overlap": overlaps(against.teacher),
    }
