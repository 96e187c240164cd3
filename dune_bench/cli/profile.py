"""`dune-bench profile`: what an encoder costs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, RunsOption, complete, parse_list
from dune_bench.cli.run import Dtype
from dune_bench.errors import UsageError

if TYPE_CHECKING:
    from dune_bench.results.profile import Profile


class ProfileFormat(StrEnum):
    """What is printed."""

    table = "table"
    json = "json"


def profile(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER",
            help="A card's name, timm:NAME, a Python file PATH.py[:attribute], a student's folder or file.",
            autocompletion=complete(Kind.encoders),
        ),
    ],
    resolution: Annotated[int, typer.Option(min=1, metavar="PX", help="Side of the input.")] = 336,
    batch_sizes: Annotated[
        str, typer.Option(metavar="auto|N[,..]", help="Images per forward; 1 is always measured.")
    ] = "auto",
    repeats: Annotated[int, typer.Option(min=3, metavar="N", help="Forwards at batch 1.")] = 20,
    weights: Annotated[
        str, typer.Option(metavar="auto|random|PATH", help="Weights; they change no cost: `random` will do.")
    ] = "auto",
    view: Annotated[
        str | None, typer.Option(help="Feature view: raw, norm, layer:N, layers:N,N, proj:TEACHER.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Precision of the forward pass.")] = Dtype.fp32,
    format: Annotated[ProfileFormat, typer.Option("--format", help="What to print.")] = ProfileFormat.table,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    include: IncludeOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Measure what an encoder costs: parameters, FLOPs, latency, throughput, memory.

    Prints a table and writes profiles/ENCODER/*.json in the runs folder.
    """
    sizes = parse_batch_sizes(batch_sizes)
    from dune_bench.cli.progress import make_ui
    from dune_bench.results.profile import to_json, write_profile
    from dune_bench.run.profile import EncoderRequest, make_profile

    request = EncoderRequest(
        encoder=encoder,
        weights=weights,
        resolution=resolution,
        view=view,
        device=device,
        dtype=dtype.torch_name,
        offline=offline,
        include=tuple(include or ()),
    )
    with make_ui() as ui:
        found = make_profile(request, sizes, repeats, ui)
    path = write_profile(found, runs)
    typer.echo(to_json(found) if format is ProfileFormat.json else as_table(found), nl=False)
    typer.echo(f"written: {path}", err=True)


def parse_batch_sizes(text: str) -> tuple[int, ...] | None:
    """`1,8` -> (1, 8); `auto` -> None.  Raises UsageError."""
    if text == "auto":
        return None
    parts = parse_list(text, "--batch-sizes")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--batch-sizes {text}: write auto or numbers from 1, separated by commas")
    return tuple(int(part) for part in parts)


def as_table(found: Profile) -> str:
    """Facts line by line, then a line for each batch size."""
    rows, columns = found.tokens
    timings, best = found.timings, found.timings.best
    facts = [
        ("encoder", found.label),
        ("view", f"{found.view}, {found.dim} channels, {rows} x {columns} tokens"),
        ("input", f"{found.resolution} x {found.resolution} px, {found.dtype}"),
        ("device", f"{found.provenance.device}, {found.provenance.threads} threads"),
        ("parameters", "unknown" if found.parameters is None else f"{found.parameters / 1e6:.2f} M"),
        ("FLOPs", "unknown" if found.flops is None else f"{found.flops / 1e9:.2f} G an image"),
        ("latency", f"{timings.single.p50_ms:.1f} ms p50, {timings.single.p95_ms:.1f} ms p95 at batch 1"),
        ("throughput", f"{best.images_per_s:.2f} images/s at batch {best.batch_size}"),
        ("peak memory", f"{timings.peak_memory_bytes / 2**20:.0f} MiB at batch 1"),
    ]
    lines = [f"{name:<13}{value}" for name, value in facts]
    lines += ["", "batch   p50 ms   p95 ms   images/s   forwards"]
    lines += [
        f"{b.batch_size:>5} {b.p50_ms:>8.1f} {b.p95_ms:>8.1f} {b.images_per_s:>10.2f} {b.forwards:>10}"
        for b in timings.batches
    ]
    if timings.out_of_memory_at is not None:
        lines.append(f"{timings.out_of_memory_at:>5} out of memory")
    return "\n".join(lines) + "\n"
