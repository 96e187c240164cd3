"""`dune-bench export`: an encoder as a file for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from dune_bench.cli.options import IncludeOption, Kind, complete


class ExportFormat(StrEnum):
    """onnx: any ONNX runtime.  torch: a `torch.export` program."""

    onnx = "onnx"
    torch = "torch"


def export(
    encoder: Annotated[
        str,
        typer.Argument(
            metavar="ENCODER",
            help="A card's name, timm:NAME, a Python file PATH.py[:attribute], a student's folder or file.",
            autocompletion=complete(Kind.encoders),
        ),
    ],
    format: Annotated[ExportFormat, typer.Option("--format", help="What to write.")] = ExportFormat.onnx,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: ENCODER.onnx or ENCODER.pt2, here.")
    ] = None,
    view: Annotated[
        str | None, typer.Option(help="Feature view: raw, norm, layer:N, layers:N,N, proj:TEACHER.")
    ] = None,
    fixed_size: Annotated[
        bool, typer.Option("--fixed-size", help="Only for images of --resolution; any batch size.")
    ] = False,
    resolution: Annotated[
        int,
        typer.Option(min=1, metavar="PX", help="Where parity and latency are measured."),
    ] = 336,
    weights: Annotated[str, typer.Option(metavar="auto|random|PATH", help="Weights.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    include: IncludeOption = None,
) -> None:
    """Write an encoder as ONNX or a torch.export program for any batch and image size.

    A JSON beside the file says how to feed it.  The file is checked against the encoder at two shapes,
    and is not written if it gives other features.
    """
    from dune_bench.results.store import safe_name
    from dune_bench.run.export import SUFFIXES, ExportRequest, export_encoder
    from dune_bench.run.profile import EncoderRequest

    name: Literal["onnx", "torch"] = "onnx" if format is ExportFormat.onnx else "torch"
    asked = EncoderRequest(
        encoder=encoder,
        weights=weights,
        resolution=resolution,
        view=view,
        device="cpu",
        offline=offline,
        include=tuple(include or ()),
    )
    path = out or Path(safe_name(encoder) + SUFFIXES[name])
    done = export_encoder(ExportRequest(asked, name, path, fixed_size))
    for entry in done.parity:
        shape = " x ".join(str(side) for side in entry.shape)
        typer.echo(f"parity       {shape}: max error {entry.error:.2g} of the feature's std")
    engine = "onnxruntime" if format is ExportFormat.onnx else "exported"
    typer.echo(
        f"latency      {done.resolution} px, batch 1, p50: torch {done.torch_ms:.1f} ms, "
        f"{engine} {done.exported_ms:.1f} ms"
    )
    typer.echo(f"written      {done.path}\nwritten      {done.description}")
