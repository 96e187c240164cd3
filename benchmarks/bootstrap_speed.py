"""Seconds of a comparison's statistics: 10,000 paired resamples of 1,000 samples in 200 rooms, 5 tasks.

    python benchmarks/bootstrap_speed.py

The goal is 5 s on 2 cores.  The statistics have the sizes of the real ones: class counts of 9 classes,
errors per image, hits per pair, queries per scene, sums over people.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.metrics import reductions
from dune_bench.metrics.depth import METRICS
from dune_bench.metrics.human_errors import ERRORS
from dune_bench.metrics.human_statistics import PENALTIES
from dune_bench.results.stats import RESAMPLES, paired_difference

SAMPLES, ROOMS, CLASSES, QUERIES = 1000, 200, 9, 5
GOAL_S = 5.0
Arrays = dict[str, NDArray[Any]]


def semseg(rng: np.random.Generator) -> tuple[Any, Arrays, Mapping[str, Any], str]:
    shape = (SAMPLES, CLASSES, CLASSES)
    counts = rng.integers(0, 500, shape)
    return reductions.semseg, {"confusion": counts, "confusion_seen": counts // 2}, {}, "miou"


def depth(rng: np.random.Generator) -> tuple[Any, Arrays, Mapping[str, Any], str]:
    names = [name + suffix for name in METRICS for suffix in ("", "@aligned")]
    arrays: Arrays = {name: rng.random(SAMPLES) for name in names}
    return reductions.depth, arrays | {"valid_px": np.full(SAMPLES, 9)}, {}, "rmse_m"


def correspondence(rng: np.random.Generator) -> tuple[Any, Arrays, Mapping[str, Any], str]:
    asked = rng.integers(100, 500, SAMPLES)
    hits = rng.integers(0, 100, (SAMPLES, 2))
    constants = {"min_points": 16, "thresholds_px": [5, 10], "thresholds_cm": [2, 5]}
    arrays = {"asked": asked, "hits_px": hits, "hits_cm": hits}
    return reductions.correspondence, arrays, constants, "recall@10px"


def reloc(rng: np.random.Generator) -> tuple[Any, Arrays, Mapping[str, Any], str]:
    shape = (SAMPLES, QUERIES)
    answered = np.ones(shape, bool)
    arrays = {"asked": answered, "answered": answered}
    arrays |= {"trans_m": rng.random(shape), "rot_deg": 10 * rng.random(shape)}
    return reductions.reloc, arrays, {}, "precision@25cm_5deg"


def hmr(rng: np.random.Generator) -> tuple[Any, Arrays, Mapping[str, Any], str]:
    arrays: Arrays = {name: rng.integers(1, 4, SAMPLES) for name in ("matched", "misses", "false_positives")}
    arrays |= {f"{name}:{kind}": rng.random(SAMPLES) for name in ERRORS for kind in ("sum", "capped")}
    return reductions.hmr, arrays, {"penalties": PENALTIES}, "pve_mm@miss350mm"


def main() -> None:
    ids = [str(i) for i in range(SAMPLES)]
    rooms = [f"room{i * ROOMS // SAMPLES:03d}" for i in range(SAMPLES)]
    total = 0.0
    for task in (semseg, depth, correspondence, reloc, hmr):
        rng = np.random.default_rng(0)
        (reduction, a, constants, metric), (_, b, _, _) = task(rng), task(rng)

        def of(stats: Arrays, call: Any = reduction, with_: Any = constants, key: str = metric) -> Any:
            prepared = call(stats, with_, key)
            return lambda weights: {key: prepared(weights)}

        wall, cpu = time.perf_counter(), time.process_time()
        paired_difference(of(a), of(b), (ids, ids), rooms, rng)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        total += wall
        print(f"{task.__name__:14} {wall:6.2f} s  ({cpu:.2f} s of processor)")
    print(
        f"{'all':14} {total:6.2f} s for {RESAMPLES} resamples, goal {GOAL_S:g} s: {total / GOAL_S:.2f} of it"
    )


if __name__ == "__main__":
    main()
