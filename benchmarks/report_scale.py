"""A report of 10,000 results, 200 encoders × 50 tasks: <= 10 s, <= 500 MB; its page sorts in <= 1 s.

    python benchmarks/report_scale.py [--encoders 200] [--tasks 50] [--format md,csv,html]

The results are made up, with metrics, breakdowns and provenance as large as real ones; the report is
made by the command itself, in a process of its own.  The last figures need Chromium and Playwright.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

STATISTICS_BYTES = 20_000
"""Per-sample statistics of a result: the mean of the six tasks of `mini`."""
CLASSES = [f"class_{number:02d}" for number in range(14)]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_result(encoder: int, task: int, rng: np.random.Generator) -> dict[str, Any]:
    """A result file's content, about as large as that of a segmentation task."""
    name, probe = f"encoder_{encoder:03d}", ("semseg", "depth")[task % 2]
    value = float(rng.uniform(10, 60))

    def metric(number: int) -> dict[str, Any]:
        names = ("miou", "pixel_acc", "miou@seen", "miou@unseen")
        ends = [value - 2 - number, value + 2 + number]
        return {
            "id": names[number], "value": value - number, "unit": "%", "higher_is_better": True,
            "primary": number == 0, "margin": None, "ci95": ends, "n": 180, "n_failed": 0,
        }  # fmt: skip

    def breakdown(metric: str) -> dict[str, Any]:
        return {
            "metric": metric,
            "by": "class",
            "values": dict(zip(CLASSES, rng.uniform(0, 100, 14), strict=True)),
        }

    return {
        "schema": 1,
        "key": digest(f"{encoder} {task}"),
        "status": "ok",
        "encoder": {
            "id": name, "weights": "released", "digest": digest(name), "adapter": "timm@1", "view": "norm",
            "card_fingerprint": digest(name), "trained_on": ["imagenet1k"], "teachers": [],
        },
        "task": {
            "id": f"{probe}/data_{task:02d}/convex@1", "probe": probe, "dataset": f"data_{task:02d}@1",
            "protocol": "convex@1", "protocol_fingerprint": digest(str(task)),
            "input": {"resolution": 336, "resize": "stretch", "dtype": "float32"},
            "dataset_fingerprints": {"train": digest("train"), "test": digest("test")},
            "split_sizes": {"train": 420, "test": 180}, "groups": {"train": 70, "test": 30},
            "score_version": 1,
        },
        "metrics": [metric(number) for number in range(4)],
        "breakdowns": [breakdown(name) for name in ("iou", "iou@seen", "iou@unseen")],
        "choices": {"lambda_per_n": 0.01, "lambdas_tried": [0.1, 0.03, 0.01], "folds": 5, "converged": True},
        "provenance": {
            "dune_bench": "0.1.0", "commit": digest("commit")[:40], "dirty": False, "python": "3.11.7",
            "torch": "2.14.1", "platform": "Linux", "device": "cpu", "threads": 2,
            "started": f"2026-01-{1 + task % 28:02d}T00:00:00+00:00",
            "argv": ["dune-bench", "run", "--encoder", name, "--tasks", "all"],
        },
        "timings": {
            "seconds": {"load": 1.1, "features": 30.5, "fit": 3.2, "score": 3.3}, "peak_memory_bytes": 10**9,
        },
        "cost": {
            "parameters": int(rng.integers(10**6, 10**9)), "flops": float(rng.uniform(1e9, 1e12)),
            "latency_ms": float(rng.uniform(5, 500)), "batch_size": 8,
        },
    }  # fmt: skip


def write_runs(runs: Path, encoders: int, tasks: int) -> int:
    """Writes the files as the store lays them out; returns how many."""
    rng = np.random.default_rng(0)
    for encoder in range(encoders):
        folder = runs / "results" / f"encoder_{encoder:03d}"
        folder.mkdir(parents=True)
        for task in range(tasks):
            path = folder / f"task_{task:02d}.{task:012x}.json"
            stats = rng.bytes(STATISTICS_BYTES)
            path.with_suffix(".npz").write_bytes(stats)
            samples = {
                "file": path.with_suffix(".npz").name,
                "sha256": hashlib.sha256(stats).hexdigest(),
                "rows": 180,
            }
            content = make_result(encoder, task, rng) | {"samples": samples}
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return encoders * tasks


def browse(page_file: Path) -> None:
    """Prints how long the page takes to load and to sort, from the press to the next painted frame."""
    from playwright.sync_api import sync_playwright

    browser_file = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if browser_file is None:
        print("no Chromium here: load and sort not measured")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_file, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        began = time.perf_counter()
        page.goto(page_file.as_uri())
        print(f"page: loads and draws in {time.perf_counter() - began:.2f} s")
        times = [
            page.evaluate(
                """async (column) => {
                  const began = performance.now();
                  document.querySelectorAll('#results thead button')[column].click();
                  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
                  return performance.now() - began;
                }""",
                column,
            )
            for column in (1, 2, 2, 0, 30)
        ]
        print(f"page: sorts in {max(times) / 1000:.2f} s at most of {len(times)} times (<= 1)")
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoders", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--format", default="md,csv,html")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        count = write_runs(runs, options.encoders, options.tasks)
        command = [sys.executable, "-m", "dune_bench", "report", "--runs", folder, "--format", options.format]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = used.ru_utime + used.ru_stime
        print(
            f"{count} results: {seconds:.1f} s (<= 10), {busy:.1f} s of a processor, "
            f"{used.ru_maxrss / 1000:.0f} MB (<= 500)"
        )
        for path in sorted(runs.glob("leaderboard.*")):
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
        if (runs / "leaderboard.html").exists():
            browse(runs / "leaderboard.html")


if __name__ == "__main__":
    main()
