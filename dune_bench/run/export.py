"""Writes an encoder as ONNX or as a `torch.export` program, and checks the file against the encoder."""

from __future__ import annotations

import importlib.util
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.export import ExportModule
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.results.store import write_atomic
from dune_bench.run.profile import EncoderRequest
from dune_bench.run.provenance import version

Format = Literal["onnx", "torch"]
Runner = Callable[[Tensor], list[Tensor]]
"""Normalised images to [patch map] or [patch map, class token]."""
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
OPSET = 17
TOLERANCE = 5e-3
"""Largest error that is rounding, in standard deviations of the feature: some 100 times what is seen."""
_FOREIGN = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
_SEED = 0


@dataclass(frozen=True)
class ExportRequest:
    """encoder: on the CPU, float32.  out: the file, its suffix that of the format.  fixed_size: only for
    images of `encoder.resolution`.  repeats: forwards for each latency."""

    encoder: EncoderRequest
    format: Format
    out: Path
    fixed_size: bool = False
    repeats: int = 10


@dataclass(frozen=True)
class Parity:
    """shape: of the input (B, 3, H, W).  error: the largest difference of a feature from the encoder's, in
    standard deviations of that output."""

    shape: tuple[int, ...]
    error: float


@dataclass(frozen=True)
class Exported:
    """What was written.  latencies: p50 milliseconds at batch 1 and the resolution asked for, of the
    encoder in torch and of the file."""

    path: Path
    description: Path
    parity: tuple[Parity, ...]
    resolution: int
    torch_ms: float
    exported_ms: float


def export_encoder(request: ExportRequest) -> Exported:
    """Writes the file and, beside it, a JSON that says how to feed it; neither stays unless the file
    gives the encoder's features at two input shapes other than the traced one.

    Raises UsageError (no torch module, a wrong suffix), UnavailableError (the extra `export` or the
    weights are not here), TaskError (the network cannot be traced, or the file gives other features).
    """
    _check(request)
    _, encoder, view = request.encoder.load()
    patch = encoder.patch_size
    side = max(2, request.encoder.resolution // patch) * patch
    traced, shapes = _shapes(patch, side, request.fixed_size)
    reference = partial(_reference, encoder, view)
    has_cls = len(reference(_images(traced))) == 2
    module = ExportModule(encoder, view, has_cls).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / request.out.name
        run = _written(module, request, _images(traced), file)
        parity = tuple(_parity(run, reference, shape, encoder.id, request) for shape in shapes)
        write_atomic(request.out, file.read_bytes())
    single = _images((1, 3, side, side))
    latencies = [_p50_ms(runner, single, request.repeats) for runner in (reference, run)]
    description = request.out.with_name(f"{request.out.name}.json")
    content = _description(encoder, view, request, side, has_cls, parity)
    write_atomic(description, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
    return Exported(request.out, description, parity, side, *latencies)


def _check(request: ExportRequest) -> None:
    suffix = SUFFIXES[request.format]
    if request.out.suffix != suffix:
        raise UsageError(f"--out {request.out}: a file of format {request.format} ends in {suffix}")
    wanted = ("onnx", "onnxruntime") if request.format == "onnx" else ()
    absent = [name for name in wanted if importlib.util.find_spec(name) is None]
    if absent:
        raise UnavailableError(
            f"export to ONNX needs {' and '.join(absent)}; "
            "from the dune-bench folder: pip install '.[export]'"
        )


def _shapes(patch: int, side: int, fixed: bool) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The traced input shape, and those to check at: none shares a dynamic dimension with it."""
    if fixed:
        return (2, 3, side, side), [(1, 3, side, side), (3, 3, side, side)]
    return (2, 3, 4 * patch, 6 * patch), [(1, 3, side, side), (3, 3, 7 * patch, 3 * patch)]


def _images(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(_SEED))


def _reference(encoder: Encoder, view: str, images: Tensor) -> list[Tensor]:
    try:
        with torch.no_grad():
            return [part for part in encoder._forward(images, (view,))[view] if part is not None]
    except _FOREIGN as error:
        raise TaskError(
            f"encoder {encoder.id} failed on an input {tuple(images.shape)}: {_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:200]}"


def _written(module: ExportModule, request: ExportRequest, example: Tensor, file: Path) -> Runner:
    write = _write_onnx if request.format == "onnx" else _write_torch
    try:
        # The exporters warn of constants that might be baked in; that is what the parity check is for.
        # A failing one prints its whole graph.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            return write(module, example, file, request.fixed_size)
    except _FOREIGN as error:
        ways = [] if request.fixed_size else ["--fixed-size at its native --resolution"]
        ways += ["--format torch"] if request.format == "onnx" else []
        hint = f": try {' or '.join(ways)}" if ways else ""
        name = request.encoder.encoder
        raise TaskError(
            f"encoder {name} cannot be exported as {request.format}: {_line(error)}{hint}"
        ) from error


def _write_onnx(module: ExportModule, example: Tensor, file: Path, fixed: bool) -> Runner:
    """By the TorchScript exporter: it needs nothing but torch."""
    import onnx
    import onnxruntime

    outputs = ["patch", "cls"] if module.has_cls else ["patch"]
    axes = {name: {0: "batch"} for name in ("images", *outputs)}
    if not fixed:
        axes["images"] |= {2: "height", 3: "width"}
        axes["patch"] |= {2: "rows", 3: "columns"}
    torch.onnx.export(
        module,
        (example,),
        str(file),
        input_names=["images"],
        output_names=outputs,
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    onnx.checker.check_model(str(file))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # its errors are raised as well
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        try:
            found = session.run(None, {"images": images.numpy()})
        except _runtime_errors() as error:
            raise RuntimeError(str(error)) from error
        return [torch.from_numpy(part) for part in found]

    return run


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; it has no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidArgument, state.RuntimeException)


def _write_torch(module: ExportModule, example: Tensor, file: Path, fixed: bool) -> Runner:
    patch = module.encoder.patch_size
    dims: dict[int, Any] = {0: Dim("batch")}
    if not fixed:
        dims |= {2: patch * Dim("rows", min=2), 3: patch * Dim("columns", min=2)}
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes={"images": dims}), file)
    loaded = torch.export.load(file).module()

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            found = loaded(images)
        return list(found) if isinstance(found, tuple) else [found]

    return run


def _parity(
    run: Runner, reference: Runner, shape: tuple[int, ...], name: str, request: ExportRequest
) -> Parity:
    images = _images(shape)
    expected = reference(images)
    hint = "" if request.fixed_size else ": it may depend on the input's size: try --fixed-size"
    try:
        found = run(images)
    except _FOREIGN as error:
        raise TaskError(
            f"encoder {name}: the exported file fails on an input {shape}: {_line(error)}{hint}"
        ) from error
    if [part.shape for part in found] != [part.shape for part in expected]:
        raise TaskError(f"encoder {name}: the exported file gives other shapes for an input {shape}{hint}")
    worst = max(
        float((one - other).abs().max() / other.std()) for one, other in zip(found, expected, strict=True)
    )
    if not worst <= TOLERANCE:
        raise TaskError(
            f"encoder {name}: the exported file is off by {worst:.2g} standard deviations for an input "
            f"{shape} (at most {TOLERANCE:g} is rounding){hint}"
        )
    return Parity(shape, worst)


def _p50_ms(run: Runner, images: Tensor, repeats: int) -> float:
    run(images)
    seen = []
    for _ in range(repeats):
        began = time.perf_counter()
        run(images)
        seen.append(1000 * (time.perf_counter() - began))
    return float(np.median(seen))


def _description(
    encoder: Encoder,
    view: str,
    request: ExportRequest,
    side: int,
    has_cls: bool,
    parity: tuple[Parity, ...],
) -> dict[str, Any]:
    patch = encoder.patch_size
    rule = f"exactly {side} x {side}" if request.fixed_size else f"multiples of {patch}, at least {2 * patch}"
    return {
        "export": 1,
        "file": request.out.name,
        "format": request.format,
        "opset": OPSET if request.format == "onnx" else None,
        "encoder": encoder.id,
        "weights": encoder.weights,
        "digest": encoder.weights_digest,
        "view": view,
        "patch_size": patch,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "input": {
            "images": f"float32 (batch, 3, height, width), RGB in [0, 1], then (x - mean) / std; "
            f"height and width {rule}; pad with zeros after normalising, smaller half left and top"
        },
        "outputs": {"patch": "float32 (batch, channels, rows, columns)"}
        | ({"cls": "float32 (batch, channels)"} if has_cls else {}),
        "parity": [asdict(entry) for entry in parity],
        "parity_unit": "standard deviations of the output",
        "versions": {name: version(name) for name in ("dune-bench", "torch", "onnx", "onnxruntime")},
    }
