"""Untrained networks."""

from __future__ import annotations

import pytest
import torch

from dune_bench.encoders.load import load_encoder
from dune_bench.errors import UsageError
from dune_bench.registry.cards import EncoderCard
from tests.encoders.loading import image


def test_random_weights_depend_on_the_seed_only() -> None:
    arch = {"vit": {"width": 48, "depth": 2, "heads": 3, "table": 4, "mask_token": False}}
    cards = [EncoderCard(id=f"r{seed}", kind="random", arch=arch | {"seed": seed}) for seed in (0, 0, 1)]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    digests = []
    for number, card in enumerate(cards):
        digests.append(load_encoder(card).weights_digest)
        assert torch.equal(torch.get_rng_state(), state), "the global RNG moved"
        torch.manual_seed(number)
        state = torch.get_rng_state()
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_random_takes_any_timm_architecture(name: str) -> None:
    card = EncoderCard(id="r", kind="random", arch={"timm": name, "seed": 3})
    first, second = load_encoder(card), load_encoder(card)
    assert first.weights_digest == second.weights_digest
    assert first.weights == "random"
    features = first.encode(image())["norm"].patch
    assert 1e-3 < float(features.std()) < 1e3
    other = load_encoder(card.model_copy(update={"arch": {"timm": name, "seed": 4}}))
    assert other.weights_digest != first.weights_digest


def test_random_needs_one_architecture() -> None:
    for arch in ({}, {"timm": "resnet18", "vit": {"width": 8, "depth": 1, "heads": 1}}):
        with pytest.raises(UsageError, match="exactly one of vit, timm"):
            load_encoder(EncoderCard(id="r", kind="random", arch=arch))
