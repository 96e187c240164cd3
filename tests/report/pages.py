"""A runs folder with what pages have trouble with: many tasks, odd names, gaps, failures, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from dune_bench.results.schema import BreakdownResult, Cost, Result
from tests.report.factory import make_result, metric, task_info, write_results

NASTY = '</script><img src=x onerror="alert(1)">|a\n$b$ `c`\u202e &amp;'
ENCODERS = ("alpha", "beta", NASTY, "gamma")
TASKS: dict[str, dict[str, Any]] = {
    "semseg/minirooms/convex@1": {"id": "miou", "unit": "%"},
    "depth/minirooms/convex@1": {"id": "rmse_m", "unit": "m", "higher_is_better": False},
    "correspondence/minirooms/nn@1": {"id": "recall@10px", "unit": "%"},
    "hmr/minirooms/ridge@1": {"id": "pa_pve_mm@miss150mm", "unit": "mm", "higher_is_better": False},
}


def value_of(task: int, encoder: int) -> float:
    """Higher for later encoders in every task, so that the order of a sort is known."""
    return 10.0 + 3 * encoder + task


def many_results() -> list[Result]:
    """4 tasks × 4 encoders, a random row, a limited column, one gap, one failure."""
    results = []
    for t, (task, spec) in enumerate(TASKS.items()):
        for e, encoder in enumerate(ENCODERS):
            if (t, e) == (3, 0):
                continue
            value = value_of(t, e)
            part = BreakdownResult(metric="iou", by="class", values={"wall": value, "door": None})
            results.append(
                make_result(
                    encoder,
                    task=task_info(task, dataset="minirooms@1", groups={"train": 70, "test": 30}),
                    metrics=(metric(value, **spec), metric(50.0, id="delta1", primary=False)),
                    breakdowns=(part,) if spec["id"] == "miou" else (),
                    cost=Cost(parameters=10 ** (6 + e), latency_ms=10.0 * (4 - e), batch_size=8),
                    choices={"lambda_per_n": 0.01},
                    trained_on=("minirooms",) if encoder == "gamma" else (),
                )
            )
    first = task_info("semseg/minirooms/convex@1", dataset="minirooms@1", groups={"train": 70, "test": 30})
    results.append(
        make_result("alpha", weights="random", weights_digest="r", task=first, metrics=(metric(1.0),))
    )
    limited = first.model_copy(update={"limited": 8, "groups": {"test": 3}})
    results.append(make_result("alpha", task=limited, metrics=(metric(30.0, ci95=None),)))
    results.append(make_result("delta", status="failed", error=f"bad {NASTY}", weights_digest=None))
    return results


def write_many(runs: Path) -> Path:
    """Writes `many_results` and a file that is no result; returns the folder."""
    write_results(runs, *many_results())
    broken = runs / "results" / "alpha" / "broken.json"
    broken.write_text("{", encoding="utf-8")
    return runs


def write_picture(folder: Path, encoder: str, task: str, name: str, size: tuple[int, int] = (40, 20)) -> Path:
    """A picture in the layout of `dune-bench panel`; encoder and task are names of folders."""
    path = folder / encoder / task / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(path)
    return path
