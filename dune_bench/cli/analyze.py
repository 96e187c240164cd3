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


@analyze_app.command(
    "hybrid", short_help="Which tasks the universal encoder serves, which keep a specialist."
)
def hybrid(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER", help="The universal encoder.", autocompletion=complete(Kind.encoders)
        ),
    ],
    floor: Annotated[
        list[str] | None,
        typer.Option(
            "--floor",
            metavar="TASK=VALUE[,..]",
            help="The worst value of the primary metric that will do; TASK is an id or a probe.",
        ),
    ] = None,
    retention: Annotated[
        float | None,
        typer.Option(
            "--floor-retention",
            metavar="SHARE",
            help="Floor of all other tasks: this share of the best specialist.",
        ),
    ] = None,
    latency: Annotated[
        float | None, typer.Option("--budget-latency-ms", metavar="MS", help="Limit of the summed p50.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option("--budget-memory-mb", metavar="MIB", help="Limit of the summed peak memory."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="A[,B]",
            help="The specialists; default: the teachers of its card. May be repeated.",
            autocompletion=complete(Kind.encoders),
        ),
    ] = None,
    format: Annotated[TableFormat, typer.Option("--format", help="What to print.")] = TableFormat.md,
    include: IncludeOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Share the tasks between one universal encoder and its specialists, under floors and a budget.

    Reads the profiles and results of the runs folder; measures nothing.  Exit code 3 if a cost has not
    been measured, or if a floor cannot be met within the budget.
    """
    from dune_bench.errors import UnavailableError, UsageError
    from dune_bench.registry.lookup import load_registry
    from dune_bench.report.analysis_hybrid import FORMATS, Floors, analyse_hybrid

    budget = _budget(latency, memory)
    if not floor and retention is None:
        raise UsageError("give quality floors: --floor TASK=VALUE or --floor-retention SHARE")
    if retention is not None and not 0.0 < retention <= 1.0:
        raise UsageError(f"--floor-retention {retention:g}: a share above 0, up to 1")
    registry = load_registry(tuple(include or ()))
    card = registry.encoder(encoder)
    names = card.teachers
    if against:
        asked = parse_list(joined(against) or "", "--against")
        names = tuple(dict.fromkeys(registry.encoder(name).id for name in asked))
    floors = Floors(_floors(floor), retention)
    analysis = analyse_hybrid(card.id, names, runs, registry, floors, budget)
    for note in analysis.notes:
        typer.echo(f"note: {' '.join(note.split())}", err=True)
    typer.echo(FORMATS[format.value](analysis), nl=False)
    if analysis.unmet:
        raise UnavailableError(f"floors not met within the budget: {', '.join(analysis.unmet)}")


def _budget(latency: float | None, memory: float | None) -> tuple[str, float]:
    """The quantity that is limited, and the limit.  Raises UsageError unless exactly one is given."""
    import math

    from dune_bench.errors import UsageError

    given = [(k, v) for k, v in (("latency_p50_ms", latency), ("peak_memory_bytes", memory)) if v is not None]
    if len(given) != 1 or not math.isfinite(given[0][1]) or given[0][1] <= 0.0:
        raise UsageError("give one budget above 0: --budget-latency-ms or --budget-memory-mb")
    return given[0]


def _floors(given: list[str] | None) -> dict[str, float]:
    """`depth=0.6` -> {"depth": 0.6}.  Raises UsageError."""
    import math

    from dune_bench.errors import UsageError

    found: dict[str, float] = {}
    for part in parse_list(joined(given) or "", "--floor") if given else ():
        task, _, text = part.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not task or not math.isfinite(value) or task in found:
            raise UsageError(f"--floor {part}: expected TASK=VALUE with a number, each task once")
        found[task] = value
    return found
