r"""The tables as LaTeX: needs `\usepackage{booktabs}` and a UTF-8 engine or `\usepackage[utf8]{inputenc}`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dune_bench.report.board import Board, Column
from dune_bench.report.format import column_name, heading, one_line, overlaps, with_interval
from dune_bench.report.teachers import StudentTable
from dune_bench.report.teachers_text import HEADER, LEGEND, cells, left_out_lines, rank_lines
from dune_bench.results.schema import Result

_ESCAPED = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_",
    "%": r"\%", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "−": "$-$", "–": "--",
    "×": r"$\times$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "†": r"\dag{}", "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$", "[": "{[}", "]": "{]}", "λ": r"$\lambda$", "·": r"$\cdot$",
    "`": r"\textasciigrave{}",
}  # fmt: skip
_LIGATURE = re.compile(r"([-',])(?=\1)")
"""Two of these become one other letter: `--limit` would be printed with a dash."""
_HEAD = r"% Made by `dune-bench report`; do not edit.  Needs \usepackage{booktabs,amssymb} and [T1]{fontenc}."


def latex_escape(text: str) -> str:
    """Any text as one line of LaTeX that shows exactly it.  `[` is wrapped, as after `\\\\` it would
    begin an optional argument; runs of spaces become one."""
    apart = _LIGATURE.sub(lambda found: f"{found[1]}\0", one_line(text))
    return "".join("{}" if letter == "\0" else _ESCAPED.get(letter, letter) for letter in apart)


def leaderboard_latex(board: Board) -> str:
    """One table a column of the board, every metric, best first; then what was not measured."""
    parts = [_HEAD]
    parts += [_column(board, column) for column in board.columns]
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


def _column(board: Board, column: Column) -> str:
    metrics = column.metrics
    rows = []
    for entry in column.entries:
        own = {metric.id: metric for metric in entry.result.metrics}
        values = [with_interval(own[m.id]) if m.id in own else "" for m in metrics]
        rows.append([board.label(entry.result) + _mark(entry.result), *values])
    caption = f"{column.name} on {column.task.dataset}, with 95 % intervals."
    if any(overlaps(entry.result) for entry in column.entries):
        caption += " † trained on data of this set, by its card."
    return _table(["encoder", *(heading(metric) for metric in metrics)], rows, caption)


def _mark(result: Result) -> str:
    return " †" if overlaps(result) else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    body = [" & ".join(map(latex_escape, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
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
