"""`dune-bench panel`: pictures of single samples: image, truth, prediction, error."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, complete, joined, parse_list
from dune_bench.cli.run import DEFAULT_ENCODER, Dtype, parse_batch_size

if TYPE_CHECKING:
    from dune_bench.run.panel import PanelRequest


class PickName(StrEnum):
    """Which samples, by their primary metric in the stored result."""

    spread = "spread"
    worst = "worst"
    best = "best"
    median = "median"
    even = "even"


def panel(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="[ENCODER]",
            help="A card's name, timm:NAME, a Python file PATH.py[:attribute], a student's folder or file.",
            autocompletion=complete(Kind.encoders),
        ),
    ] = DEFAULT_ENCODER,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            metavar="all|PROBE|ID-GLOB[,..]",
            help="What to show it on; `all` (the default) is every task of the suite. May be repeated.",
            autocompletion=complete(Kind.tasks, extra=("all",)),
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Named list of tasks.", autocompletion=complete(Kind.suites))
    ] = "mini",
    samples: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N|ID-GLOB[,..]",
            help="How many samples of each task (default 4), or which. May be repeated.",
        ),
    ] = None,
    pick: Annotated[
        PickName | None,
        typer.Option(help="How N are chosen from the stored result; `even`, over the rooms, needs none."),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Your own photograph instead; twice for tasks on pairs."),
    ] = None,
    fov: Annotated[
        float, typer.Option(metavar="DEG", help="Horizontal field of view assumed for photographs.")
    ] = 60.0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write; default: panels/ in the runs folder.")
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="auto|random|PATH", help="Weights; `random` is branded in every picture.")
    ] = "auto",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="As in the run whose result and heads are shown.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(min=1, metavar="PX", help="Side of the input.")] = None,
    view: Annotated[
        str | None, typer.Option(help="Feature view: raw, norm, layer:N, layers:N,N, proj:TEACHER.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    dtype: Annotated[Dtype | None, typer.Option(help="Precision of the forward pass.")] = None,
    batch_size: Annotated[str, typer.Option(metavar="auto|N", help="Images per forward.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    include: IncludeOption = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to read all datasets from, in place of theirs.")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Draw what an encoder predicts: one picture a sample, with truth and error beside it.

    Heads and features of an earlier run are used again; without one they are made first.
    """
    from dune_bench.run.panel import PanelRequest
    from dune_bench.run.panel_pick import Pick
    from dune_bench.run.request import RunRequest

    run = RunRequest(
        encoders=(encoder,),
        tasks=joined(task) or "all",
        suite=suite,
        weights=weights,
        limit=limit,
        resolution=resolution,
        view=view,
        device=device,
        dtype=dtype.torch_name if dtype else None,
        batch_size=parse_batch_size(batch_size),
        offline=offline,
        include=tuple(include or ()),
        data=data,
        runs=runs,
    )
    request = PanelRequest(
        run=run,
        samples=parse_samples(joined(samples)),
        pick=Pick(pick) if pick else None,
        photographs=tuple(image or ()),
        fov_deg=fov,
        out=out,
    )
    raise typer.Exit(_draw(request))


def _draw(request: PanelRequest) -> int:
    """Prints the path of each file as it is written, and gives the exit code."""
    from dune_bench.cli.progress import make_ui
    from dune_bench.errors import ExitCode, worst
    from dune_bench.run.panel import make_panels

    codes = [ExitCode.OK]
    with make_ui() as ui:
        for outcome in make_panels(request, ui):
            for path in outcome.paths:
                typer.echo(str(path))
            if outcome.error is not None:
                codes.append(outcome.error.exit_code)
                typer.echo(f"error: {outcome.task}: {' '.join(str(outcome.error).split())}", err=True)
    return int(worst(codes))


def parse_samples(text: str | None) -> int | tuple[str, ...]:
    """`6` -> 6; anything else names samples.  Raises UsageError if nothing is named."""
    if text is None:
        return 4
    return int(text) if text.isdecimal() else parse_list(text, "--samples")
