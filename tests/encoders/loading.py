"""What tests of adapters share: the shipped cards, loading by name, an image."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.registry.cards import EncoderCard, load_card
from dune_bench.registry.lookup import Registry, cards_root

CARDS = sorted((cards_root() / "encoders").glob("*.yaml"))
REGISTRY = Registry()
for _path in CARDS:
    REGISTRY.add_encoder(load_card(_path, EncoderCard), str(_path))


def image(height: int = 64, width: int = 96, count: int = 1) -> torch.Tensor:
    """(count, 3, height, width), uniform in [0, 1]."""
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(0))


def load(name: str, weights: str = "random") -> Encoder:
    return load_encoder(REGISTRY.encoder(name), weights=weights, registry=REGISTRY)


def need(*modules: str) -> None:
    """Skips the test unless the modules of the optional extras are installed."""
    for name in modules:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
