"""Draws the pictures that the page of a comparison misses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from dune_bench.errors import BenchError, UnavailableError
from dune_bench.registry.lookup import load_registry
from dune_bench.report.comparison_html import Missing
from dune_bench.run.panel import PanelOutcome, PanelRequest, make_panels
from dune_bench.run.request import RunRequest
from dune_bench.run.ui import RunUI


def draw_missing(missing: Missing, where: RunRequest, ui: RunUI) -> Iterator[PanelOutcome]:
    """The missing panels of one encoder and task, under the options that its result was made with.

    where: the encoder as it can be loaded (a card's name or a Python file), include, data and runs; what
    moves numbers comes from the result.  An encoder that cannot be had, or only with other weights than
    the result's, is an outcome with that error.
    """
    try:
        request = PanelRequest(
            _as_measured(missing, where),
            samples=missing.samples,
            folder=missing.folder,
            digest=missing.side.encoder.digest,
        )
        yield from make_panels(request, ui)
    except BenchError as error:
        yield PanelOutcome(missing.task.task.id, None, error=error)


def _as_measured(missing: Missing, where: RunRequest) -> RunRequest:
    """Raises UnavailableError for weights of a file: a result does not say where it was."""
    (name,) = where.encoders
    task, weights = missing.task.task, missing.side.encoder.weights
    if weights == "file" and isinstance(name, str):
        registry = load_registry(where.include)
        if registry.adapter(registry.encoder(name).kind).needs_weights:
            raise UnavailableError(
                f"{missing.side.label}: a result does not say where the file of its weights is: "
                "`dune-bench panel` with --weights draws these, the page has the commands"
            )
    changed: dict[str, Any] = dict(task.overrides)
    return replace(
        where,
        tasks=task.id,
        weights="random" if weights == "random" else "auto",
        limit=task.limited,
        seeds=tuple(changed["seeds"]) if "seeds" in changed else None,
        resolution=changed.get("resolution"),
        view=changed.get("view"),
        dtype=changed.get("dtype"),
    )
