"""`dune-bench compare`: two encoders on the same samples."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, check_file, complete, joined, parse_list
from dune_bench.errors import ExitCode, UsageError
from dune_bench.errors import worst as worst_exit

if TYPE_CHECKING:
    from dune_bench.results.compare import Comparison


class TextFormat(StrEnum):
    """What is printed."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="An encoder of the runs folder: NAME or NAME@DIGEST.",
            autocompletion=complete(Kind.encoders),
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(metavar="B", help="The one held against it.", autocompletion=complete(Kind.encoders)),
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", metavar="all|PROBE|ID-GLOB[,..]", help="Only these. May be repeated."),
    ] = None,
    format: Annotated[TextFormat, typer.Option("--format", help="What to print.")] = TextFormat.table,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Samples listed where B loses most.")] = 10,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write a page with pictures of those samples."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="With --html: draw the pictures that it misses.")
    ] = False,
    include: IncludeOption = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --pictures: folder of the datasets, as in the run."),
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Compare B with A on the same samples: difference, interval, p-value, and where B loses most.

    Reads results only; nothing is computed on images, but by --pictures.
    """
    if pictures and html is None:
        raise UsageError("--pictures goes with --html FILE, the page that shows them")
    check_file(html, "--html")
    import dune_bench
    from dune_bench.report.comparison import FORMATS

    wanted = parse_list(joined(tasks) or "all", "--tasks")
    comparison = dune_bench.compare(a, b, runs, tasks=wanted, worst=worst, include=include or ())
    for note in comparison.notes:
        typer.echo(f"note: {note}", err=True)
    for entry in comparison.left_out:
        typer.echo(f"warning: left out: {entry.task}: {' '.join(entry.reason.split())}", err=True)
    typer.echo(FORMATS[format.value](comparison), nl=False)
    if html is None:
        return
    from dune_bench.report.comparison_html import comparison_page
    from dune_bench.results.store import write_atomic

    code = _draw(comparison, (a, b), tuple(include or ()), data, runs) if pictures else ExitCode.OK
    write_atomic(html, comparison_page(comparison, runs).encode())
    typer.echo(f"written: {html}", err=True)
    raise typer.Exit(int(code))


def _draw(
    comparison: Comparison, names: tuple[str, str], include: tuple[Path, ...], data: Path | None, runs: Path
) -> ExitCode:
    """Draws what the page misses, says how much that was, and gives the exit code.

    names: A and B as they were typed.
    """
    from dune_bench.report.comparison_html import indistinct, missing_pictures

    if indistinct(comparison):
        typer.echo("warning: no pictures: A and B have one name and the same weights", err=True)
        return ExitCode.UNAVAILABLE
    missing = missing_pictures(comparison, runs)
    wanted = sum(len(entry.samples) for entry in missing)
    if not wanted:
        typer.echo("pictures: none is missing", err=True)
        return ExitCode.OK
    # From here on images are looked at: torch is imported.
    from dune_bench.cli.progress import make_ui
    from dune_bench.run.compare_panels import draw_missing
    from dune_bench.run.request import RunRequest

    drawn, codes = 0, [ExitCode.OK]
    with make_ui() as ui:
        for entry in missing:
            encoder = _loadable(names, entry.side is comparison.first, entry.side.encoder.id)
            where = RunRequest(encoders=(encoder,), include=include, data=data, runs=runs)
            for outcome in draw_missing(entry, where, ui):
                drawn += bool(outcome.paths)
                if outcome.error is not None:
                    codes.append(outcome.error.exit_code)
                    reason = " ".join(str(outcome.error).split())
                    ui.warning(f"{entry.side.label}, {outcome.task}: not drawn: {reason}")
    typer.echo(f"pictures: {drawn} drawn of {wanted} that were missing", err=True)
    return worst_exit(codes)


def _loadable(names: tuple[str, str], first: bool, card: str) -> str:
    """What has no registered card (a file, a folder) is loaded by the path that was typed for it; of two
    checkpoints of one file, that may be the other's."""
    from dune_bench.registry.folders import id_of_place

    own, other = (name.partition("@")[0] for name in (names if first else names[::-1]))
    return next((path for path in (own, other) if path != card and id_of_place(path) == card), card)
