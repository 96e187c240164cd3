"""`dune-bench compare`: two encoders on the same samples."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, complete, joined, parse_list


class TextFormat(StrEnum):
    """What is printed."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="An encoder of the runs folder: NAME or NAME@DIGEST.",
            autocompletion=complete(Kind.encoders),
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="The one held against it.", autocompletion=complete(Kind.encoders)),
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", metavar="all|PROBE|ID-GLOB[,..]", help="Only these. May be repeated."),
    ] = None,
    format: Annotated[TextFormat, typer.Option("--format", help="What to print.")] = TextFormat.table,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Samples listed where B loses most.")] = 10,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write a page with pictures of those samples."),
    ] = None,
    include: IncludeOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Compare B with A on the same samples: difference, interval, p-value, and where B loses most.

    Reads results only; nothing is computed on images.
    """
    import dune_bench
    from dune_bench.report.comparison import FORMATS

    wanted = parse_list(joined(tasks) or "all", "--tasks")
    comparison = dune_bench.compare(a, b, runs, tasks=wanted, worst=worst, include=include or ())
    for note in comparison.notes:
        typer.echo(f"note: {note}", err=True)
    for entry in comparison.left_out:
        typer.echo(f"warning: left out: {entry.task}: {' '.join(entry.reason.split())}", err=True)
    typer.echo(FORMATS[format.value](comparison), nl=False)
    if html is not None:
        from dune_bench.report.comparison_html import comparison_page
        from dune_bench.results.store import write_atomic

        write_atomic(html, comparison_page(comparison, runs).encode())
        typer.echo(f"written: {html}", err=True)
