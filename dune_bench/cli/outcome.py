"""The end of a run: encoder × task with intervals, what failed and why, and where the files are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dune_bench.report.format import heading, overlaps, qualifiers, with_interval

if TYPE_CHECKING:
    from dune_bench.run.request import Outcome, RunSummary


NOT_RUN = "not run"
"""The cell of a request that cannot be meant."""


@dataclass(frozen=True)
class Grid:
    """A table as text: header, rows of equal length, and lines below it."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def make_grid(outcomes: Sequence[Outcome]) -> Grid:
    """Rows are encoders and columns tasks, both in the order of the request."""
    rows = list(dict.fromkeys(outcome.result.label for outcome in outcomes))
    tasks = list(dict.fromkeys(outcome.task for outcome in outcomes))
    cells = {(outcome.result.label, outcome.task): _cell(outcome) for outcome in outcomes}
    return Grid(
        header=("encoder", *(_column(task, outcomes) for task in tasks)),
        rows=tuple((row, *(cells.get((row, task), "") for task in tasks)) for row in rows),
        notes=tuple(_notes(outcomes)),
    )


def _cell(outcome: Outcome) -> str:
    primary = outcome.result.primary
    if not outcome.written:
        return NOT_RUN
    if outcome.result.status != "ok" or primary is None:
        return outcome.result.status
    return with_interval(primary) + (" †" if overlaps(outcome.result) else "")


def _column(task: str, outcomes: Sequence[Outcome]) -> str:
    """The task, what sets it apart from its card, and the primary metric, on three lines at most."""
    results = [outcome.result for outcome in outcomes if outcome.task == task]
    metric = next((heading(r.primary) for r in results if r.primary is not None), "")
    extra = next((", ".join(qualifiers(r.task)) for r in results), "")
    return "\n".join(part for part in (task, extra, metric) if part)


def _notes(outcomes: Sequence[Outcome]) -> list[str]:
    results = [outcome.result for outcome in outcomes]
    notes = []
    if any(r.primary is not None and r.primary.ci95 is not None for r in results):
        notes.append("[low, high]: 95 % interval over the data's groups")
    if any(r.primary is not None and r.primary.value is not None and r.primary.ci95 is None for r in results):
        notes.append("no interval where the data has too few groups for one")
    if any(r.status == "ok" and overlaps(r) for r in results):
        notes.append("†: the encoder was trained on data of this set")
    return notes + _without_number(outcomes)


def _without_number(outcomes: Sequence[Outcome]) -> list[str]:
    """What has no number; one line for all tasks of an encoder.  The reasons stand in full above,
    where each went wrong, and in the result files: they can be long, and twice is once too often."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.result.status != "ok":
            tasks.setdefault((outcome.result.label, _cell(outcome)), []).append(outcome.task)
    return [f"{label} on {', '.join(ids)}: {state}, see above" for (label, state), ids in tasks.items()]


def plain(grid: Grid) -> str:
    """The table in aligned columns."""
    header = [cell.split("\n") for cell in grid.header]
    depth = max(len(cell) for cell in header)
    lines = [[cell[i] if i < len(cell) else "" for cell in header] for i in range(depth)]
    lines += [list(row) for row in grid.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(grid.header))]
    text = [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    text.insert(depth, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def _print_rich(grid: Grid) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(Text(cell)) for cell in grid.header))
    for row in grid.rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    Console().print(table)


def _style(cell: str) -> str:
    return {"failed": "red", "unavailable": "yellow", NOT_RUN: "red"}.get(cell, "")


def print_outcome(summary: RunSummary, runs: Path) -> None:
    """Prints the table on stdout (drawn on a terminal, aligned in a log) and where the files are;
    nothing if there was nothing to run, which its error has said already."""
    if not any(outcome.written for outcome in summary.outcomes):
        return
    grid = make_grid(summary.outcomes)
    if sys.stdout.isatty():
        _print_rich(grid)
    else:
        typer.echo("\n" + plain(grid))
    for note in grid.notes:
        typer.echo(note)
    folders = sorted({str(outcome.path.parent) for outcome in summary.outcomes if outcome.written})
    if folders:
        typer.echo("results: " + ", ".join(folders))
    if any(outcome.result.status == "ok" for outcome in summary.outcomes):
        elsewhere = "" if runs == Path("runs") else f" --runs {runs}"
        typer.echo(f"table of all results: dune-bench report{elsewhere}")
