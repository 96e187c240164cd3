"""`dune-bench doctor`: what works on this machine, what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, complete, joined, parse_list
from dune_bench.errors import ExitCode

if TYPE_CHECKING:
    from dune_bench.doctor import Check


def doctor(
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            "-e",
            metavar="E[,E2]",
            help="First these encoders in detail: their weights, and what comes out at two sizes. "
            "May be repeated.",
            autocompletion=complete(Kind.encoders),
        ),
    ] = None,
    include: IncludeOption = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to read all datasets from, in place of theirs.")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Say what works on this machine, what is missing and how to get it; downloads nothing.

    Exit code 1 if something that every run needs is broken, or an encoder asked for is; 3 if the
    weights of an encoder asked for are not here.
    """
    from dune_bench.doctor import State, examine, examine_encoders
    from dune_bench.registry.lookup import load_registry

    folders = tuple(include or ())
    asked: list[Check] = []
    if encoder:
        names = parse_list(joined(encoder) or "", "--encoder")
        asked = _print(examine_encoders(load_registry(folders), names))
    rest = _print(examine(folders, data, runs))
    broken = [check.name for check in asked if check.state is State.broken]
    broken += [check.name for check in rest if check.state is State.broken and check.essential]
    missing = [check.name for check in asked if check.state is State.missing]
    if broken:
        typer.echo(f"\nerror: broken, see above: {', '.join(dict.fromkeys(broken))}", err=True)
        raise typer.Exit(ExitCode.FAILED)
    if missing:
        typer.echo(f"\nerror: not here, see above: {', '.join(dict.fromkeys(missing))}", err=True)
        raise typer.Exit(ExitCode.UNAVAILABLE)
    if encoder:
        typer.echo(f"\nverdict: ready: {', '.join(names)}")
    else:
        typer.echo("\nverdict: ready to run; `dune-bench doctor --encoder NAME` says how to get an encoder")


def _print(checks: Iterable[Check]) -> list[Check]:
    """Prints checks under their sections, as they are made, and returns them."""
    section, seen = "", []
    for check in checks:
        seen.append(check)
        if check.section != section:
            section = check.section
            typer.echo(section)
        typer.echo(f"  {check.state.value:<7}  {check.name}: {check.text}")
        if check.fix:
            typer.echo(f"           -> {check.fix}")
    return seen
