"""Options that several verbs share, and the completion of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.errors import UsageError

if TYPE_CHECKING:
    from dune_bench.registry.lookup import Registry


class Kind(StrEnum):
    """What `list` can list."""

    encoders = "encoders"
    tasks = "tasks"
    suites = "suites"
    datasets = "datasets"
    protocols = "protocols"


def names_of(registry: Registry, kind: Kind) -> list[str]:
    """All names of one kind, sorted."""
    if kind is Kind.protocols:
        return [f"{probe}/{protocol}" for probe, protocol in registry.protocols()]
    return sorted(getattr(registry, kind.value))


def complete(*kinds: Kind, extra: Iterable[str] = ()) -> Callable[[str], list[str]]:
    """A completion of names, also of the last of a comma-separated list."""

    def names(incomplete: str) -> list[str]:
        from dune_bench.registry.lookup import load_registry

        try:
            registry = load_registry()
        except UsageError:  # A broken card must not print into the shell's command line.
            return []
        before, comma, last = incomplete.rpartition(",")
        known = [*extra, *(name for kind in kinds for name in names_of(registry, kind))]
        return [before + comma + name for name in known if name.startswith(last)]

    return names


def joined(values: list[str] | None) -> str | None:
    """What a repeated option gave, as if it were given once: `-e a -e b,c` -> `a,b,c`."""
    return ",".join(values) if values else None


def parse_list(text: str, option: str) -> tuple[str, ...]:
    """`a,b` -> ("a", "b").  Raises UsageError if nothing is named."""
    names = tuple(filter(None, (part.strip() for part in text.split(","))))
    if not names:
        raise UsageError(f"{option} is empty: name at least one, or several separated by commas")
    return names


def check_file(path: Path | None, option: str) -> None:
    """Raises UsageError, before anything is computed, for a file that cannot be written there."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder, name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}: make it first")


def check_folder(path: Path | None, option: str) -> None:
    """Raises UsageError, before anything is computed, for a folder that is a file or below one."""
    for part in () if path is None else (path, *path.parents):
        if part.exists() and not part.is_dir():
            raise UsageError(f"{option} {path}: {part} is a file, name a folder")


IncludeOption = Annotated[
    list[Path] | None,
    typer.Option("--include", metavar="DIR", help="Folder with further encoders/ and tasks/ cards."),
]
RunsOption = Annotated[
    Path, typer.Option("--runs", metavar="DIR", help="Where `run` writes and other verbs read.")
]
