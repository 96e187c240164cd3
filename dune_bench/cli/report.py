"""`dune-bench report`: tables, pages and plots from the results of a runs folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dune_bench.cli.options import IncludeOption, RunsOption, check_folder, parse_list


def report(
    runs: RunsOption = Path("runs"),
    format: Annotated[
        str, typer.Option("--format", metavar="md,csv,html,latex,png,pdf", help="What to write.")
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
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--also", metavar="DIR", help="Runs folder of another machine; checked. May be repeated."
        ),
    ] = None,
    teachers: Annotated[
        bool,
        typer.Option("--teachers", help="Also write students against their teachers (md, csv, html, latex)."),
    ] = False,
    panel: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER[,..]",
            help="With --teachers: what the mean rank is over; default: student, teachers, random.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the values of more than 1000 results, too.")
    ] = False,
    include: IncludeOption = None,
) -> None:
    """Write the leaderboard from the results, each held against its own statistics; no image is looked at.

    md, csv and latex are tables, html one page that needs nothing else, png and pdf plots.
    """
    check_folder(out, "--out")
    from dune_bench.report.write import write_leaderboard

    written = write_leaderboard(
        runs,
        parse_list(format, "--format"),
        out or runs,
        panels,
        also=also or (),
        teachers=teachers,
        panel=() if panel is None else parse_list(panel, "--panel"),
        include=include or (),
        verify=verify,
        announce=lambda text: typer.echo(f"{text} …", err=True),
    )
    for line in written.notes:
        typer.echo(f"warning: {line}", err=True)
    for path in written.paths:
        typer.echo(str(path))
    raise typer.Exit(int(written.exit_code))
