"""The stable Python API.  The command line does the same through the same calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

    from dune_bench.encoders.base import Encoder, Precision
    from dune_bench.registry.cards import EncoderCard
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

    name: a card's id, `timm:NAME`, or a Python file `PATH.py[:attribute]`.  weights: `auto`, `random`
    or a path.  Raises UsageError (unknown name, with the nearest), UnavailableError (weights are not
    here and cannot be had), TaskError (a damaged or wrong checkpoint).
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


def register_encoder(card: EncoderCard) -> None:
    """Adds an encoder card to this process.  Raises UsageError if its name is taken."""
    from dune_bench.registry.lookup import register_encoder as register

    register(card)
