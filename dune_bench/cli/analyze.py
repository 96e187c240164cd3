"""`dune-bench analyze`: what stored measurements say about a choice of encoders."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dune_bench.cli.analyze_interference import interference
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


@analyze_app.command("pca", short_help="How an encoder's features spread, and whose they are like.")
def pca(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER",
            help="A card's name, timm:NAME, a Python file PATH.py[:attribute], a student's folder or file.",
            autocompletion=complete(Kind.encoders),
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="A[,B]",
            help="Encoders to hold it against; default: the teachers of its card that are here.",
            autocompletion=complete(Kind.encoders),
        ),
    ] = None,
    view: Annotated[
        list[str] | None,
        typer.Option(help="Feature view of ENCODER; default: its own and each proj:*. May be repeated."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,..]",
            help="Images to analyse; default: minirooms@1, unless --images is given.",
            autocompletion=complete(Kind.datasets),
        ),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Split of the datasets.")] = "test",
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR", help="A folder of your images: curves of their own. May be repeated."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="About so many images of each dataset and folder.")
    ] = 60,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Show these as colours instead. May be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; default: panels/ in the runs folder.")
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="auto|random|PATH", help="Weights of ENCODER; `random` is branded.")
    ] = "auto",
    resolution: Annotated[int, typer.Option(min=1, metavar="PX", help="Side of the input.")] = 336,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    include: IncludeOption = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to read all datasets from, in place of theirs.")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Show how an encoder's features spread: explained variance, components as colours, likeness to others.

    Prints tables; writes curves, colours and CSV to DIR/ENCODER/pca.
    """
    folders = _folders(images)
    from dune_bench.cli.progress import make_ui
    from dune_bench.report.analysis_pca import to_markdown
    from dune_bench.run.pca import PcaRequest, make_pca
    from dune_bench.run.request import RunRequest

    sets = parse_list(joined(dataset) or "", "--dataset") if dataset else () if folders else ("minirooms@1",)
    request = PcaRequest(
        run=RunRequest(
            encoders=(encoder,),
            weights=weights,
            limit=limit,
            resolution=resolution,
            device=device,
            offline=offline,
            include=tuple(include or ()),
            data=data,
            runs=runs,
        ),
        views=tuple(view or ()),
        against=parse_list(joined(against) or "", "--against") if against else None,
        datasets=sets,
        split=split,
        folders=folders,
        photographs=tuple(image or ()),
        out=out,
    )
    with make_ui() as ui:
        analysis, paths = make_pca(request, ui)
    for line in analysis.left_out:
        typer.echo(f"warning: left out: {line}", err=True)
    typer.echo(to_markdown(analysis), nl=False)
    for path in paths:
        typer.echo(f"written: {path}", err=True)


analyze_app.command("interference", short_help="How a student's teachers get along.")(interference)


def _folders(given: list[str] | None) -> tuple[tuple[str, Path], ...]:
    """`own=photos` -> ("own", Path("photos")).  Raises UsageError."""
    from dune_bench.errors import UsageError

    parts = [text.partition("=") for text in given or ()]
    for name, _, folder in parts:
        if not name or not folder:
            raise UsageError(f"--images {name}: expected NAME=DIR, such as kitchen=photos/kitchen")
    return tuple((name, Path(folder)) for name, _, folder in parts)


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
