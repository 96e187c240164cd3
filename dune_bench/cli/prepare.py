"""`dune-bench prepare`: make a dataset or a licensed body model ready to use, or check it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, complete
from dune_bench.errors import ExitCode, UsageError

BODY_MODEL = "smplx"
"""The body model whose licensed files the user brings: the one name that is no dataset."""

if TYPE_CHECKING:
    from dune_bench.registry.lookup import Registry


def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A dataset, with or without its version: minirooms, minirooms@1; or smplx, the body model.",
            autocompletion=complete(Kind.datasets, extra=(BODY_MODEL,)),
        ),
    ],
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the data is or goes; default: its own place.")
    ] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="You have read and accept the data's licence.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the files against their recorded hashes.")
    ] = False,
    include: IncludeOption = None,
) -> None:
    """Make a dataset ready to use, or check its files; or those of the body model smplx."""
    if dataset == BODY_MODEL:
        _body_model(root, check)
        return
    from dune_bench.registry.lookup import load_registry

    registry = load_registry(tuple(include or ()))
    name = resolve_version(registry, dataset)
    data = registry.dataset(name)(name, root=root)
    if not check:
        typer.echo(data.prepare(root, accept_license))
        return
    _report(data.verify(), f"{name}: ok ({', '.join(data.splits)}; licence: {data.licence})")


def _body_model(root: Path | None, check: bool) -> None:
    from dune_bench.models.smplx_files import prepare_smplx, verify_smplx

    if check:
        _report(*verify_smplx(root))
    else:
        typer.echo(prepare_smplx(root))


def _report(problems: list[str], sound: str) -> None:
    """Prints a line per problem and exits 1, or says that all is sound."""
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    if problems:
        raise typer.Exit(ExitCode.FAILED)
    typer.echo(sound)


def resolve_version(registry: Registry, name: str) -> str:
    """`minirooms` -> its newest version, `minirooms@1` as it is.  Raises UsageError."""
    from dune_bench.registry.suggest import did_you_mean

    versions = [known for known in registry.datasets if name in (known, known.partition("@")[0])]
    if not versions:
        raise UsageError(f"unknown dataset {name!r}{did_you_mean(name, registry.datasets)}")
    return max(versions, key=_version)


def _version(name: str) -> tuple[int, str]:
    version = name.partition("@")[2]
    return (int(version) if version.isdecimal() else -1, name)
