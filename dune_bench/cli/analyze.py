"""`dune-bench analyze`: what stored measurements say about a choice of encoders."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, complete, joined, parse_list

analyze_app = typer.Typer(
    help="What stored measurements say about a choice of encoders.", no_args_is_help=True
)


class TableFormat(StrEnum):
    """What is printed."""

    md = "md"
    csv = "csv"
    json = "json"


@analyze_app.callback()
def analyze() -> None:
    """What stored measurements say about a choice of encoders."""


@analyze_app.command("cost", short_help="One universal encoder against the sum of its specialists.")
def cost(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER", help="The universal encoder.", autocompletion=complete(Kind.encoders)
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="A[,B]",
            help="The specialists; default: the teachers of its card. May be repeated.",
            autocompletion=complete(Kind.encoders),
        ),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="Of the profiles; default: of the newest one.")
    ] = None,
    format: Annotated[TableFormat, typer.Option("--format", help="What to print.")] = TableFormat.md,
    include: IncludeOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Hold the cost of one universal encoder against the sum of its specialists.

    Reads the profiles and results of the runs folder; measures nothing.  Exit code 3 if a part has not
    been measured.
    """
    from dune_bench.errors import UnavailableError
    from dune_bench.registry.lookup import load_registry
    from dune_bench.report.analysis_cost import FORMATS, analyse_cost

    registry = load_registry(tuple(include or ()))
    card = registry.encoder(encoder)
    names = card.teachers  # may have no card of their own
    if against:
        asked = parse_list(joined(against) or "", "--against")
        names = tuple(dict.fromkeys(registry.encoder(name).id for name in asked))
    analysis = analyse_cost(card.id, names, runs, resolution)
    for entry in analysis.refused:
        typer.echo(f"warning: left out: {' '.join(entry.reason.split())}", err=True)
    typer.echo(FORMATS[format.value](analysis), nl=False)
    if analysis.missing:
        raise UnavailableError(
            f"not measured under the same conditions ({analysis.conditions}): {', '.join(analysis.missing)}: "
            f"run dune-bench profile NAME for each, with --runs {runs}"
        )
