"""The stable Python API.  The command line does the same through the same calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

    from dune_bench.encoders.base import Encoder, Precision
    from dune_bench.registry.cards import EncoderCard
    from dune_bench.registry.lookup import Registry
    from dune_bench.results.compare import Comparison
    from dune_bench.results.gate import Gate
    from dune_bench.run.ui import RunUI


def load_encoder(
    name: str,
    weights: str = "auto",
    device: str = "auto",
    dtype: Precision = "float32",
    *,
    offline: bool = False,
    include: Sequence[str | Path] = (),
) -> Encoder:
    """An encoder, ready to `encode`.

    name: a card's id, `timm:NAME`, a Python file `PATH.py[:attribute]`, a student's folder or checkpoint
    file.  weights: `auto`, `random` or a path.  Raises UsageError (unknown name, with the nearest),
    UnavailableError (weights are not here and cannot be had), TaskError (a damaged or wrong checkpoint).
    """
    from dune_bench.encoders.load import load_encoder as load
    from dune_bench.registry.lookup import load_registry

    registry = load_registry(tuple(Path(folder) for folder in include))
    card = registry.encoder(name)
    return load(card, weights=weights, device=device, dtype=dtype, offline=offline, registry=registry)


def run(
    encoders: str | Encoder | Sequence[str | Encoder],
    tasks: str = "all",
    suite: str = "mini",
    runs: str | Path = "runs",
    *,
    weights: str = "auto",
    limit: int | None = None,
    seeds: Sequence[int] | None = None,
    resolution: int | None = None,
    view: str | None = None,
    device: str = "auto",
    dtype: Precision | None = None,
    batch_size: int | Literal["auto"] = "auto",
    keep_going: bool = True,
    fresh: bool = False,
    offline: bool = False,
    verify: bool = False,
    include: Sequence[str | Path] = (),
    data: str | Path | None = None,
    ui: RunUI | None = None,
) -> pd.DataFrame:
    """Evaluates encoders on tasks and returns what `results` gives, of this run only.

    encoders: one or several names (see `load_encoder`) or `Encoder` objects.  tasks: `all`, probe
    names, ids or globs, comma-separated.  The other options are those of `dune-bench run`.  A failed
    or unavailable (encoder, task) is a row with that status; a wrong request raises UsageError.
    ui: told about progress; silent by default.
    """
    from dune_bench.encoders.base import Encoder
    from dune_bench.run.execute import execute
    from dune_bench.run.frame import frame_of
    from dune_bench.run.request import RunRequest
    from dune_bench.run.ui import SilentUI

    asked = (encoders,) if isinstance(encoders, str | Encoder) else tuple(encoders)
    request = RunRequest(
        encoders=asked,
        tasks=tasks,
        suite=suite,
        weights=weights,
        limit=limit,
        seeds=None if seeds is None else tuple(seeds),
        resolution=resolution,
        view=view,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        keep_going=keep_going,
        fresh=fresh,
        offline=offline,
        verify=verify,
        include=tuple(Path(folder) for folder in include),
        data=None if data is None else Path(data),
        runs=Path(runs),
    )
    summary = execute(request, ui or SilentUI())
    return frame_of(outcome.result for outcome in summary.outcomes)


def results(runs: str | Path = "runs") -> pd.DataFrame:
    """Every result below a runs folder, one row per metric.

    Columns: encoder, task, metric, value, unit, ci_low, ci_high, primary, status.  A failed or
    unavailable result is one row without a metric.
    """
    from dune_bench.run.frame import results_frame

    return results_frame(Path(runs))


def compare(
    a: str,
    b: str,
    runs: str | Path = "runs",
    *,
    tasks: Sequence[str] = (),
    worst: int = 10,
    include: Sequence[str | Path] = (),
) -> Comparison:
    """Encoder b against encoder a on every task of a runs folder that both have.

    a, b: `NAME` or `NAME@DIGEST` (the first digits of the weights' digest); NAME alone is its newest
    checkpoint, a folder is the results of its own weights, if a run remembered their digest.
    tasks: ids, globs or probe names; empty for all.  worst: how many samples where b loses most.
    Imports no torch for names that are no folder.  Raises UnavailableError if there is
    nothing to compare, UsageError for a wrong request.
    """
    from dune_bench.registry.lookup import load_registry
    from dune_bench.report.paired import compare_runs

    registry = load_registry(tuple(Path(folder) for folder in include))
    a, b = own_results(a, registry), own_results(b, registry)
    return compare_runs(a, b, Path(runs), registry, tuple(tasks), worst)


def own_results(name: str, registry: Registry) -> str:
    """`NAME@DIGEST` for an encoder's folder whose digest is remembered, else the name as it is.

    Imports torch for a folder only.
    """
    from dune_bench.registry.folders import has_card

    if not has_card(name):
        return name
    from dune_bench.run.identity import pinned

    return pinned(name, registry)


def gate(
    encoder: str,
    baseline: str | Path,
    runs: str | Path = "runs",
    *,
    tasks: Sequence[str] = (),
    update: bool = False,
    include: Sequence[str | Path] = (),
) -> Gate | None:
    """Holds an encoder's results of a runs folder against a baseline file; `.exit_code` is the verdict.

    encoder, tasks: as in `compare`.  update: then writes the results as the new baseline; the
    comparison is with the old one, and None if there was none.  Imports no torch.  Raises
    UnavailableError if the baseline or the encoder's results are missing or cannot be used (then nothing
    is written), UsageError for a wrong request.
    """
    from dune_bench.registry.lookup import load_registry
    from dune_bench.report.paired import gate_runs, update_baseline

    registry = load_registry(tuple(Path(folder) for folder in include))
    if update:
        return update_baseline(encoder, Path(baseline), Path(runs), registry, tuple(tasks))
    return gate_runs(encoder, Path(baseline), Path(runs), registry, tuple(tasks))


def register_encoder(card: EncoderCard) -> None:
    """Adds an encoder card to this process.  Raises UsageError if its name is taken."""
    from dune_bench.registry.lookup import register_encoder as register

    register(card)
