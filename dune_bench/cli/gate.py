"""`dune-bench gate`: did a new checkpoint get worse than its baseline?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, check_file, complete, joined, parse_list


def gate(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER",
            help="An encoder of the runs folder: NAME (its newest checkpoint) or NAME@DIGEST.",
            autocompletion=complete(Kind.encoders),
        ),
    ],
    baseline: Annotated[Path, typer.Option(metavar="FILE", help="The baseline, a .json file.")],
    update: Annotated[
        bool, typer.Option("--update", help="Make the encoder's results the new baseline.")
    ] = False,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", metavar="all|PROBE|ID-GLOB[,..]", help="Only these. May be repeated."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a Markdown summary.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write JUnit XML.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write JSON.")] = None,
    include: IncludeOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Hold an encoder's results against a baseline: one primary metric a task, drops only.

    Exits 0 if none dropped, 1 if one did, 3 if one cannot be compared (missing, failed, limited, or
    measured otherwise).
    """
    import dune_bench
    from dune_bench.report import verdict
    from dune_bench.results.store import write_atomic

    for option, path in (("--markdown", markdown), ("--junit", junit), ("--json", json)):
        check_file(path, option)
    wanted = parse_list(joined(tasks) or "all", "--tasks")
    found = dune_bench.gate(encoder, baseline, runs, tasks=wanted, update=update, include=include or ())
    if found is not None:
        for path, text in ((markdown, verdict.markdown), (junit, verdict.junit), (json, verdict.json_text)):
            if path is not None:
                write_atomic(path, text(found).encode())
        for notice in found.notices:
            typer.echo(f"note: {' '.join(notice.split())}", err=True)
        typer.echo(verdict.table(found), nl=False)
    if update:
        typer.echo(f"baseline written: {baseline}")
    elif found is not None:
        raise typer.Exit(int(found.exit_code))
