"""Results made by hand, for tests of what reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from dune_bench.results.schema import EncoderInfo, Metric, Provenance, Result, TaskInfo
from dune_bench.results.store import ResultStore


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def task_info(task: str = "semseg/toy/convex@1", **changes: Any) -> TaskInfo:
    probe, dataset, protocol = task.split("/")
    content: dict[str, Any] = {
        "id": task,
        "probe": probe,
        "dataset": f"{dataset}@1",
        "protocol": protocol,
        "protocol_fingerprint": digest(task),
        "input": {"resolution": 336, "resize": "stretch", "dtype": "float32"},
        "dataset_fingerprints": {"train": digest("train"), "test": digest("test")},
        "split_sizes": {"train": 20, "test": 10},
        "groups": {"train": 5, "test": 3},
        "score_version": 1,
    }
    return TaskInfo(**(content | changes))


def metric(value: float | None = 45.12, **changes: Any) -> Metric:
    content: dict[str, Any] = {
        "id": "miou",
        "value": value,
        "unit": "%",
        "higher_is_better": True,
        "primary": True,
        "ci95": None if value is None else (value - 2, value + 2),
        "n": 10,
    }
    return Metric(**(content | changes))


def make_result(
    encoder: str = "vit",
    *,
    weights: str = "released",
    weights_digest: str | None = "same",
    task: TaskInfo | None = None,
    metrics: tuple[Metric, ...] | None = None,
    status: str = "ok",
    error: str | None = None,
    started: str = "2026-01-01T00:00:00+00:00",
    trained_on: tuple[str, ...] = (),
    view: str = "norm",
    **changes: Any,
) -> Result:
    """A result; its key follows from what moves the numbers."""
    task = task or task_info()
    if metrics is None:
        metrics = (metric(),) if status == "ok" else ()
    identity = (encoder, weights, weights_digest, task.model_dump_json(), view)
    content: dict[str, Any] = {
        "key": digest(repr(identity)),
        "status": status,
        "error": error,
        "encoder": EncoderInfo(
            id=encoder,
            weights=weights,
            digest=None if weights_digest is None else digest(weights_digest),
            adapter="timm@1",
            view=view,
            card_fingerprint=digest(encoder),
            trained_on=trained_on,
        ),
        "task": task,
        "metrics": metrics,
        "provenance": Provenance(
            dune_bench="0.1.0",
            commit=None,
            dirty=None,
            python="3.11.7",
            torch="2.14.1",
            platform="Linux",
            device="cpu",
            threads=2,
            started=started,
        ),
    }
    return Result(**(content | changes))


def write_results(runs: Path, *results: Result) -> list[Path]:
    """Writes results as a run would."""
    store = ResultStore(runs)
    return [
        store.write(result, {"value": np.zeros(3)} if result.status == "ok" else None) for result in results
    ]
