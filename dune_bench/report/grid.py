"""Small tables as text: aligned for a terminal, Markdown, CSV; and the numbers of paired reports."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from dune_bench.report.format import DECIMALS, escape
from dune_bench.results.stats import Estimate

SMALLEST_P = 0.001
Rows = Sequence[Sequence[str]]


def aligned(header: Sequence[str], rows: Rows) -> str:
    """Columns padded to their widest cell, a rule below the header.  Control characters are gone."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in lines
    )


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """A Markdown table that shows exactly these texts."""
    rule = ["---"] * len(header)
    escaped = [[escape(cell) for cell in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (escaped[0], rule, *escaped[1:]))


def csv_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated, numbers in full, None as nothing."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return buffer.getvalue()


def fine(value: float | None, unit: str, signed: bool = False) -> str:
    """A difference, with one digit more than the metric itself; `–` for None."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    return f"{value:{sign}.{DECIMALS[unit] + 1}f}" if unit in DECIMALS else f"{value:{sign}.4g}"


def p_text(p: float | None, is_bound: bool) -> str:
    """`0.012`, `< 0.001`; `<` also where every resample fell on one side; `–` for None."""
    if p is None:
        return "–"
    if p < SMALLEST_P:
        return f"< {SMALLEST_P:g}"
    return f"< {p:.3f}" if is_bound and p < 1.0 else f"{p:.3f}"


def interval(estimate: Estimate, unit: str) -> str:
    """`[-0.12, +0.34]`, or why there is none."""
    if estimate.ci95 is None:
        return f"none ({estimate.groups} groups)"
    low, high = (fine(end, unit, signed=True) for end in estimate.ci95)
    return f"[{low}, {high}]"
