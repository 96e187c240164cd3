"""`dune-bench report`: tables, pages and plots from the results of a runs folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dune_bench.cli.options import RunsOption, parse_list


def report(
    runs: RunsOption = Path("runs"),
    format: Annotated[
        str, typer.Option("--format", metavar="md,csv,html,png,pdf", help="What to write.")
    ] = "md,csv",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; default: the runs folder.")
    ] = None,
    panels: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Pictures for the HTML page; default: panels/ in the runs folder, if any."
        ),
    ] = None,
) -> None:
    """Write the leaderboard from the results; nothing is computed.

    md and csv are tables, html one page that needs nothing else, png and pdf plots.
    """
    from dune_bench.report.write import write_leaderboard

    written = write_leaderboard(runs, parse_list(format, "--format"), out or runs, panels)
    for line in written.notes:
        typer.echo(f"warning: {line}", err=True)
    for path in written.paths:
        typer.echo(str(path))
