"""What the token grid, the mean pose and the mean of everything else cost on a dataset's test split.

    python benchmarks/hmr_oracles.py [TASK]

Needs no encoder.  Prints, for the task's protocol on a 24 × 24 grid: the truth itself; the truth through
the token grid; and the truth with one part after the other replaced by the training people's mean.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from dune_bench.data.samples import HumanSample
from dune_bench.probes.base import SilentProgress
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_bodies import GROUPS
from dune_bench.probes.hmr_oracles import mean_row, oracle
from dune_bench.registry.lookup import load_registry
from dune_bench.run.probing import make_probe, score_all

COLUMNS = ("f1", "pve_mm", "pa_pve_mm", "mpjpe_mm", "pa_mpjpe_mm", "depth_error_m", "pve_mm@miss350mm")
ORACLES: dict[str, dict[str, Any]] = {
    "true bodies": {"one_per_token": False},
    "one head per token": {},
    "head in the token's middle": {"offset_known": False},
    "mean distance": {"unknown": ("distance",)},
    "mean shape": {"unknown": ("shape",)},
    "mean pose": {"unknown": ("pose",)},
    "mean orientation": {"unknown": ("orientation",)},
    "mean body at true heads": {"unknown": GROUPS},
}


def main(task: str) -> None:
    registry = load_registry()
    card = registry.task(task)
    probe: Any = make_probe(card, registry)
    data = registry.dataset(card.dataset.name)(card.dataset.name)
    fit, test = (data.samples(HumanSample, split) for split in (card.dataset.fit, card.dataset.score))
    grid = TokenGrid((24, 24), (336, 336))
    mean = mean_row(fit, grid, probe.bodies, probe.protocol)
    print(f"{task}: {len(test)} test images, grid 24 × 24")
    print(f"{'':28}" + "".join(f"{name:>17}" for name in COLUMNS))
    for name, options in ORACLES.items():
        found = oracle(test, grid, probe.bodies, probe.protocol, mean=mean, **options)
        stats = score_all(probe, found, test, SilentProgress())
        metrics = probe.reduce(stats, np.ones((1, len(test))))
        print(f"{name:28}" + "".join(f"{float(metrics[column][0]):17.3f}" for column in COLUMNS))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "hmr/minirooms/ridge@1")
