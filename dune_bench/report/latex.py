r"""The tables as LaTeX: needs `\usepackage{booktabs}` and a UTF-8 engine or `\usepackage[utf8]{inputenc}`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dune_bench.report.board import Board, Column
from dune_bench.report.conditions import data_text
from dune_bench.report.format import (
    FAILED_MEANS,
    NO_SPREAD,
    NO_SPREAD_MEANS,
    column_name,
    has_no_spread,
    heading,
    one_line,
    overlaps,
    with_interval,
)
from dune_bench.report.teachers import StudentTable
from dune_bench.report.teachers_text import HEADER, LEGEND, cells, left_out_lines, rank_lines
from dune_bench.results.schema import Result

_ESCAPED = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "−": "$-$", "–": "--",
    "×": r"$\times$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"\dag{}", "‡": r"\ddag{}", "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$", "[": "{[}", "]": "{]}", "λ": r"$\lambda$", "·": r"$\cdot$",
    "`": r"\textasciigrave{}",
}  # fmt: skip
_LIGATURE = re.compile(r"([-',])(?=\1)")
"""Two of these become one other letter: `--limit` would be printed with a dash."""
_MOST_VALUES = 4
"""Columns of numbers in one table: as many as a page is wide for, with their intervals."""
_HEAD = r"% Made by `dune-bench report`; do not edit.  Needs \usepackage{booktabs,amssymb} and [T1]{fontenc}."


def latex_escape(text: str) -> str:
    """Any text as one line of LaTeX that shows exactly it.  `[` is wrapped, as after `\\\\` it would
    begin an optional argument; runs of spaces become one."""
    apart = _LIGATURE.sub(lambda found: f"{found[1]}\0", one_line(text))
    return "".join("{}" if letter == "\0" else _ESCAPED.get(letter, letter) for letter in apart)


def leaderboard_latex(board: Board) -> str:
    """The primary metrics over all columns of the board; then of each every metric, best first; then what
    was not measured."""
    parts = [_HEAD]
    if len(board.columns) > 1:
        parts += _overview(board)
    parts += [table for column in board.columns for table in _column(board, column)]
    lines = [
        f"{board.label(entry.result)}, {column_name(entry.result.task)}: {entry.result.status}, "
        f"{entry.result.error or 'no reason given'}"
        for entry in board.missing
    ]
    lines += [refused.reason for refused in board.refused]
    if lines:
        parts.append(_list("Left out", lines))
    return "\n\n".join(parts) + "\n"


def teachers_latex(tables: Sequence[StudentTable]) -> str:
    """One table a student, with its mean ranks and what was left out."""
    parts = [_HEAD]
    for table in tables:
        rows = [line for row in table.rows for line in cells(row)]
        caption = f"{table.label} and its teachers. {LEGEND.replace('Bold: the', '(best): the')}"
        parts.append(_table(HEADER, rows, caption))
        parts.append("\n".join(latex_escape(line) for line in rank_lines(table)))
        if lines := left_out_lines(table):
            parts.append(_list("Left out", lines))
    return "\n\n".join(parts) + "\n"


def _overview(board: Board) -> list[str]:
    """Encoder × column, primary metric."""
    rows: dict[str, dict[str, str]] = {}
    for column in board.columns:
        for entry in column.entries:
            primary = entry.result.primary
            text = "no primary metric" if primary is None else with_interval(primary) + _mark(entry.result)
            rows.setdefault(board.label(entry.result), {})[column.identity] = text
    probes = Counter(column.task.probe for column in board.columns)
    header = [
        f"{column.task.probe if probes[column.task.probe] == 1 else column.name}: {_primary_heading(column)}"
        for column in board.columns
    ]
    grid = [
        [label, *(own.get(column.identity, "–") for column in board.columns)]
        for label, own in sorted(rows.items())
    ]
    about = " ".join(f"{data}: {text}." for data, text in board.descriptions.datasets.items())
    title = "Primary metrics of every encoder, with 95 % intervals."
    return _tables(header, grid, title, f" {about}{_signs(board.columns)}".rstrip())


def _primary_heading(column: Column) -> str:
    return next((heading(metric) for metric in column.metrics if metric.primary), "no primary metric")


def _column(board: Board, column: Column) -> list[str]:
    metrics = column.metrics
    rows = []
    for entry in column.entries:
        own = {metric.id: metric for metric in entry.result.metrics}
        values = [with_interval(own[m.id]) if m.id in own else "" for m in metrics]
        rows.append([board.label(entry.result) + _mark(entry.result), *values])
    caption = f"{column.name} on {data_text(board, column)}, with 95 % intervals."
    return _tables([heading(metric) for metric in metrics], rows, caption, _signs([column]))


def _signs(columns: Sequence[Column]) -> str:
    """What the signs of a table mean, as far as they stand in it."""
    results = [entry.result for column in columns for entry in column.entries]
    text = ""
    if any(map(overlaps, results)):
        text += " † trained on data of this set, by its card."
    if has_no_spread(metric for result in results for metric in result.metrics):
        text += f" {NO_SPREAD} {NO_SPREAD_MEANS}."
    if any(metric.n_failed for result in results for metric in result.metrics):
        text += f" (n failed): {FAILED_MEANS}."
    return text


def _tables(header: Sequence[str], rows: Sequence[Sequence[str]], title: str, notes: str) -> list[str]:
    """As many tables as the values need; the first cell of a row is its name and stands in each.  title: of
    every table; notes: more text for the first."""
    count = max(1, -(-len(header) // _MOST_VALUES))
    each = -(-len(header) // count)
    return [
        _table(
            ["encoder", *header[place * each : (place + 1) * each]],
            [[row[0], *row[1 + place * each : 1 + (place + 1) * each]] for row in rows],
            title + (f" Part {place + 1} of {count}." if count > 1 else "") + (notes if place == 0 else ""),
        )
        for place in range(count)
    ]


def _mark(result: Result) -> str:
    return " †" if overlaps(result) else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    body = [" & ".join(map(latex_escape, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\footnotesize",
            rf"\caption{{{latex_escape(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            " & ".join(map(latex_escape, header)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _list(title: str, lines: Sequence[str]) -> str:
    items = [rf"\item {latex_escape(line)}" for line in lines]
    return "\n".join([rf"\paragraph{{{title}}}", r"\begin{itemize}", *items, r"\end{itemize}"])
