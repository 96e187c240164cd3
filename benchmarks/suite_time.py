"""What the whole suite costs beside the forward passes: <= 4 minutes, a second encoder <= 3.

    python benchmarks/suite_time.py [--encoder A,B] [--suite mini]

Runs the suite once with an empty cache and empty runs folder in temporary folders, and prints for each
encoder: images forwarded (each once), seconds in the forward passes, seconds beside them, and the same by
task and phase.  An encoder's seconds end where the next one's begin, so the first also pays the start.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

PHASES = ("fit", "score", "statistics")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="dinov2_vits14_saliency,random_vits14")
    parser.add_argument("--suite", default="mini")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DUNE_BENCH_CACHE"] = str(Path(folder) / "cache")
        _measure(options, Path(folder) / "runs")


def _measure(options: argparse.Namespace, runs: Path) -> None:
    import dune_bench
    from dune_bench.encoders.base import Encoder
    from dune_bench.results.store import ResultStore

    images: Counter[str] = Counter()
    forward = Encoder.encode

    def counted(self: Encoder, batch: object, *args: object, **options: object) -> object:
        images[self.id] += len(batch)  # type: ignore[arg-type]
        return forward(self, batch, *args, **options)  # type: ignore[arg-type]

    Encoder.encode = counted  # type: ignore[method-assign,assignment]
    for name in options.encoder.split(","):
        began = time.perf_counter()
        dune_bench.run(name, tasks="all", suite=options.suite, runs=str(runs), limit=options.limit)
        wall = time.perf_counter() - began
        found = [r for _, r in ResultStore(runs).load()[0] if r.encoder.id == name]
        # Every task of the suite shares the image sets, so the largest sum is the whole of them.
        features = max(result.timings.seconds["features"] for result in found)
        beside = wall - features
        print(f"{name}: {wall:.0f} s, {features:.0f} s forward passes and {beside:.0f} s beside")
        print(f"  {images[name]} images through `encode` (one batch more measures the cost)")
        for result in sorted(found, key=lambda r: r.task.id):
            phases = ", ".join(f"{phase} {result.timings.seconds.get(phase, 0.0):.1f}" for phase in PHASES)
            print(f"  {result.task.id}: {phases}")


if __name__ == "__main__":
    main()
