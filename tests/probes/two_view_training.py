"""A training of a two-view decoder that takes a second: three views of the exact box room, a tiny decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dune_bench.data.samples import PairSample
from dune_bench.geometry.cameras import pixel_centres, unproject
from dune_bench.geometry.poses import invert, pose, transform
from dune_bench.probes.base import Head, ProbeContext
from dune_bench.probes.two_view_fit import fit_decoder
from dune_bench.probes.two_view_protocol import DecoderTraining
from dune_bench.registry.cards import TaskCard, load_card
from tests.probes.fake_features import FakeFeatures
from tests.probes.fake_room import SIZE, Floats, depth_at, intrinsics, lazy_pairs, turn, view

GRID = (6, 8)
"""Tokens of 16 pixels, the network size being the images'."""
MAP = (12, 16)
"""The decoder's output map: two cells along a token's side."""
STEPS = 40
CARD = load_card(Path(__file__).parents[2] / "tasks/recon3d_minirooms_mast3r_mini.yaml", TaskCard)
TINY: dict[str, dict[str, Any]] = {
    "decoder": {
        "width": 32,
        "depth": 2,
        "heads": 2,
        "mlp_ratio": 2,
        "merge": 1,
        "cells": 2,
        "descriptor_dim": 8,
        "descriptor_hidden": 32,
    },
    "pairs": {"min_covisible": 0.2, "correspondences": 32, "negative_share": 0.25, "occlusion_m": 0.05},
    "loss": {},
    "recipe": {
        "steps": STEPS,
        "batch_size": 4,
        "lr": 3e-3,
        "schedule": "constant",
        "warmup_steps": 0,
        "dtype": "float32",
        "checkpoint_every": 10,
        "log_every": 1,
    },
}
"""What is smaller here than in the shipped card."""
PAIRS = TINY["pairs"]
POSES = (
    pose(turn(10.0, 5.0), np.array([0.2, 0.1, 0.4])),
    pose(turn(25.0, 0.0), np.array([0.6, 0.2, 0.2])),
    pose(turn(-2.0, 3.0), np.array([-0.1, 0.1, 0.5])),
)
"""T_cam_world of three cameras that see much of the same."""


def room(name: str = "room", poses: Sequence[Floats] = POSES) -> list[PairSample]:
    """Samples that name every view of a room once at least: the first with each of the others."""
    first, *others = (view(f"{name}-{i}", T) for i, T in enumerate(poses))
    return [PairSample(f"{name}/{i}", name, first, other, 0.5) for i, other in enumerate(others, 1)]


def waves(samples: Sequence[PairSample], padding: tuple[int, int, int, int] = (0, 0, 0, 0)) -> FakeFeatures:
    """What a perfect encoder would see: waves of the place in the world at each token's centre.  padding:
    pixels (left, top, right, bottom) that fill SIZE up to whole tokens of 16."""
    left, top, right, bottom = padding
    grid = (SIZE[0] + top + bottom) // 16, (SIZE[1] + left + right) // 16
    centres = pixel_centres(grid).reshape(-1, 2) * 16 - (left, top)
    frequency = np.random.default_rng(5).normal(0, 1.5, (3, 16))
    maps = {}
    for one in {v.id: v for s in samples for v in (s.view1, s.view2)}.values():
        own = unproject(intrinsics(), centres, depth_at(one.T_cam_world, centres))
        angles = transform(invert(one.T_cam_world), own) @ frequency
        values = np.concatenate([np.sin(angles), np.cos(angles)], 1)
        maps[one.image.id] = torch.from_numpy(values.T.reshape(-1, *grid)).float()
    return FakeFeatures(maps, SIZE, padding)


def training(**changes: Any) -> DecoderTraining:
    """The card's, made tiny, with keys of its parts changed: `recipe={"steps": 3}`."""
    assert changes.keys() <= TINY.keys()
    card = CARD.protocol["training"]
    return DecoderTraining.model_validate(
        {name: {**part, **TINY[name], **changes.get(name, {})} for name, part in card.items()}
    )


def fitted(
    seed: int = 0, folder: Path | None = None, features: FakeFeatures | None = None, **changes: Any
) -> Head:
    """The decoder of the room."""
    samples = room()
    ctx = ProbeContext(rng=np.random.default_rng(seed), training=folder)
    return fit_decoder(features or waves(samples), lazy_pairs(samples), training(**changes), ctx)
