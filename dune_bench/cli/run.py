"""`dune-bench run`: evaluate encoders on tasks."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, complete, joined, parse_list
from dune_bench.errors import UsageError

if TYPE_CHECKING:
    from dune_bench.run.request import RunRequest

DEFAULT_ENCODER = "dinov2_vits14_saliency"


class Dtype(StrEnum):
    """Precision of the forward pass."""

    fp32 = "fp32"
    bf16 = "bf16"

    @property
    def torch_name(self) -> Literal["float32", "bfloat16"]:
        return "float32" if self is Dtype.fp32 else "bfloat16"


def run(
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            "-e",
            metavar="E[,E2]",
            help="Encoders: names of cards, timm:NAME, a Python file PATH.py[:attribute], or a student "
            "(its folder, or a checkpoint in DUNE's layout). "
            f"May be repeated. Default: {DEFAULT_ENCODER}.",
            autocompletion=complete(Kind.encoders),
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            "-t",
            metavar="all|PROBE|ID-GLOB[,..]",
            help="What to evaluate them on; `all` (the default) is every task of the suite. May be repeated.",
            autocompletion=complete(Kind.tasks, extra=("all",)),
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Named list of tasks.", autocompletion=complete(Kind.suites))
    ] = "mini",
    weights: Annotated[
        str, typer.Option(metavar="auto|random|PATH", help="Weights; `random` is branded in every report.")
    ] = "auto",
    teachers: Annotated[
        bool, typer.Option("--with-teachers", help="Also run the teachers that the encoders' cards name.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="About N samples of each split, whole groups.")
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(metavar="S[,..]", help="Fit seeds, for protocols with random fits. May be repeated."),
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, metavar="PX", help="Side of the input; gives a column of its own.")
    ] = None,
    view: Annotated[
        str | None, typer.Option(help="Feature view: raw, norm, layer:N, layers:N,N, proj:TEACHER.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    dtype: Annotated[
        Dtype | None, typer.Option(help="Precision of the forward pass; gives a column of its own.")
    ] = None,
    batch_size: Annotated[
        str, typer.Option(metavar="auto|N", help="Images per forward; changes no number.")
    ] = "auto",
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--fail-fast", help="After a failure go on with the rest, or stop.")
    ] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute again what is already there.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check the data's files first.")] = False,
    include: IncludeOption = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to read all datasets from, in place of theirs.")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Evaluate encoders on tasks; what is already there is not computed again."""
    from dune_bench.run.request import RunRequest

    encoders = parse_list(joined(encoder) or DEFAULT_ENCODER, "--encoder")
    wanted = ",".join(parse_list(joined(tasks) or "", "--tasks")) if tasks else "all"
    check_tasks(wanted, suite, include or ())
    request = RunRequest(
        encoders=_and_teachers(encoders, weights, include or ()) if teachers else encoders,
        tasks=wanted,
        suite=suite,
        weights=weights,
        limit=limit,
        seeds=parse_seeds(joined(seeds)),
        resolution=resolution,
        view=view,
        device=device,
        dtype=dtype.torch_name if dtype else None,
        batch_size=parse_batch_size(batch_size),
        keep_going=keep_going,
        fresh=fresh,
        offline=offline,
        verify=verify,
        include=tuple(include or ()),
        data=data,
        runs=runs,
    )
    raise typer.Exit(_execute(request))


def check_tasks(tasks: str, suite: str, include: Sequence[Path]) -> None:
    """Raises UsageError for a wrong name before torch is imported, which takes seconds."""
    from dune_bench.registry.lookup import load_registry

    load_registry(tuple(include)).select_tasks(tasks, suite)


def _and_teachers(encoders: Sequence[str], weights: str, include: Sequence[Path]) -> tuple[str, ...]:
    from dune_bench.registry.lookup import load_registry
    from dune_bench.run.teachers import with_teachers

    found, absent = with_teachers(encoders, weights, load_registry(tuple(include)))
    for name in absent:
        typer.echo(f"warning: left out: teacher {name}: it has no encoder card here", err=True)
    return found


def _execute(request: RunRequest) -> int:
    """Runs, prints the table and where the files are, and gives the exit code."""
    from dune_bench.cli.outcome import print_outcome
    from dune_bench.cli.progress import make_ui
    from dune_bench.run.execute import execute

    with make_ui() as ui:
        summary = execute(request, ui)
    print_outcome(summary, request.runs)
    return int(summary.exit_code)


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """`0,1,2` -> (0, 1, 2); None stays None.  Raises UsageError."""
    if text is None:
        return None
    parts = parse_list(text, "--seeds")
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--seeds {text}: seeds are whole numbers from 0, separated by commas")
    if len(set(map(int, parts))) != len(parts):
        raise UsageError(f"--seeds {text}: a seed stands twice")
    return tuple(map(int, parts))


def parse_batch_size(text: str) -> int | Literal["auto"]:
    """`auto` or a number from 1.  Raises UsageError."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: write auto or a number from 1")
    return int(text)
