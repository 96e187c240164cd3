"""Runs folders with per-sample statistics of depth and segmentation, made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.metrics.depth import METRICS
from dune_bench.metrics.reductions import semseg
from dune_bench.registry.lookup import load_registry
from dune_bench.results.schema import Metric, Result
from dune_bench.results.store import ResultStore
from tests.report.factory import digest, make_result, task_info

EACH = 3
OLD, NEW = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"
Arrays = dict[str, NDArray[Any]]


def task_of(probe: str) -> str:
    """A shipped task of a probe."""
    return next(task.id for task in load_registry().tasks.values() if task.probe == probe)


def _identity(groups: int) -> Arrays:
    rooms = [f"room{g:02d}" for g in range(groups) for _ in range(EACH)]
    return {"id": np.array([f"{room}/{i}" for i, room in enumerate(rooms)]), "group": np.array(rooms)}


def depth(
    encoder: str = "vit", worse: float = 0.0, *, groups: int = 12, noise: int = 0, **changes: Any
) -> tuple[Result, Arrays]:
    """rmse_m about 1 m, `worse` metres worse on every image; `noise` seeds a little of the encoder's own."""
    count = groups * EACH
    error = 1.0 + 0.3 * np.random.default_rng(7).normal(size=count) + worse
    if noise:
        error = error + 0.002 * np.random.default_rng(noise).normal(size=count)
    arrays: Arrays = {"valid_px": np.full(count, 100)}
    arrays |= {name + suffix: error for name in METRICS for suffix in ("", "@aligned")}
    metric = {"id": "rmse_m", "unit": "m", "higher_is_better": False, "margin": 0.02}
    return _result(encoder, "depth", groups, float(error.mean()), metric, arrays, changes)


def segmentation(
    encoder: str = "vit", right: float = 0.8, *, groups: int = 12, **changes: Any
) -> tuple[Result, Arrays]:
    """Three classes; a share `right` of each class's pixels is right, more or less by room."""
    rng = np.random.default_rng(11)
    counts = np.zeros((groups * EACH, 3, 3), np.int64)
    for image in counts:
        pixels = rng.integers(200, 400, 3)
        good = np.round(pixels * np.clip(right + 0.05 * rng.normal(size=3), 0, 1)).astype(np.int64)
        image[np.arange(3), np.arange(3)] = good
        image[np.arange(3), (np.arange(3) + 1) % 3] = pixels - good
    arrays: Arrays = {"confusion": counts}
    value = float(semseg(arrays, {}, "miou")(np.ones((1, len(counts))))[0])
    metric = {"id": "miou", "unit": "%", "higher_is_better": True, "margin": 1.0}
    return _result(encoder, "semseg", groups, value, metric, arrays, changes)


def _result(
    encoder: str, probe: str, groups: int, value: float, metric: dict[str, Any], arrays: Arrays, changes: Any
) -> tuple[Result, Arrays]:
    identity = _identity(groups)
    content = {"value": value, "primary": True, "n": len(identity["id"]), "ci95": None, **metric}
    content |= changes.pop("metric", {})
    name = changes.pop("id", task_of(probe))
    info = task_info(name, groups={"test": groups}, **changes.pop("task_changes", {}))
    started = changes.pop("started", OLD)
    result = make_result(encoder, task=info, metrics=(Metric(**content),), started=started, **changes)
    return result, identity | arrays


def failed(encoder: str = "vit", probe: str = "depth", started: str = NEW, **changes: Any) -> Result:
    task = task_info(task_of(probe), groups={}, split_sizes={}, dataset_fingerprints={})
    return make_result(
        encoder, task=task, status="failed", error="NaN features", started=started,
        weights_digest=changes.pop("weights_digest", None), **changes,
    )  # fmt: skip


def write(runs: Path, *found: tuple[Result, Arrays] | Result) -> list[Path]:
    store = ResultStore(runs)
    pairs = [(item, None) if isinstance(item, Result) else item for item in found]
    return [store.write(result, arrays) for result, arrays in pairs]


__all__ = ["NEW", "OLD", "depth", "digest", "failed", "segmentation", "task_of", "write"]
