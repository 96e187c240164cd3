"""`dune-bench doctor`: what works on this machine, what is missing, and how to get it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, complete, parse_list
from dune_bench.errors import ExitCode

if TYPE_CHECKING:
    from dune_bench.doctor import Check


def doctor(
    encoder: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            "-e",
            metavar="E[,E2]",
            help="Also run these encoders at two sizes and check what comes out.",
            autocompletion=complete(Kind.encoders),
        ),
    ] = None,
    include: IncludeOption = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the datasets that do not ship with us.")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Say what works on this machine, what is missing and how to get it; downloads nothing.

    Exit code 1 if something that every run needs is broken, or an encoder asked for is.
    """
    from dune_bench.doctor import examine, self_check
    from dune_bench.registry.lookup import load_registry

    folders = tuple(include or ())
    broken = _print(examine(folders, data, runs))
    if encoder is not None:
        names = parse_list(encoder, "--encoder")
        registry = load_registry(folders)
        broken |= _print((self_check(registry, name) for name in names), essential=True)
    if broken:
        typer.echo("\nerror: something needed is broken, see above", err=True)
        raise typer.Exit(ExitCode.FAILED)


def _print(checks: Iterable[Check], essential: bool = False) -> bool:
    """Prints checks under their sections; whether something essential is broken."""
    from dune_bench.doctor import State

    section, broken = "", False
    for check in checks:
        if check.section != section:
            section = check.section
            typer.echo(section)
        broken |= check.state is State.broken and (check.essential or essential)
        typer.echo(f"  {check.state.value:<7}  {check.name}: {check.text}")
        if check.fix:
            typer.echo(f"           -> {check.fix}")
    return broken
