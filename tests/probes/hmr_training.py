"""A small human head on the small world of posed bodies, for tests of its data, its fit and its use."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dune_bench.data.samples import HumanSample
from dune_bench.probes.base import Head, ProbeContext
from dune_bench.probes.hmr_learned_fit import fit_human_head
from dune_bench.probes.hmr_learned_protocol import HmrTrained
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes.fake_features import FakeFeatures
from tests.probes.hmr_world import crowd, lazy, model, telling

CARD = Path(__file__).parents[2] / "tasks" / "hmr_minirooms_people_multihmr_mini.yaml"
STEPS = 60
SMALL = {
    "shape": {"width": 64, "depth": 1, "heads": 2, "head_dim": 16, "mlp": 64}
    | {"token_dropout": 0.0, "dropout": 0.0, "windows": []},
    "learning": {"vertex_step": 1},
    "recipe": {"steps": STEPS, "batch_size": 4, "lr": 3e-3, "warmup_steps": 5, "log_every": 1}
    | {"checkpoint_every": 10, "dtype": "float32"},
}


def protocol(**changes: Any) -> HmrTrained:
    """The card's with a small head and few steps.  changes: of the parts of `training`."""
    raw = load_card(CARD, TaskCard).model_dump(mode="json")["protocol"]
    raw["head"] = "between_ears"  # whose token the small world's features mark
    for part in (SMALL, changes):
        for name, values in part.items():
            raw["training"][name] |= values
    return HmrTrained.model_validate(raw)


@cache
def world() -> tuple[tuple[HumanSample, ...], FakeFeatures]:
    samples = crowd(9)
    return tuple(samples), telling(samples)


def fitted(
    folder: Path | None = None, seed: int = 0, features: FakeFeatures | None = None, **changes: Any
) -> Head:
    samples, own = world()
    ctx = ProbeContext(training=folder, rng=np.random.default_rng(seed))
    return fit_human_head(features or own, lazy(samples), model(), protocol(**changes), ctx)
