"""Every shipped encoder card."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from dune_bench.encoders.adapter import Adapter
from dune_bench.encoders.timm import hub_source
from dune_bench.registry.cards import EncoderCard, load_card
from dune_bench.registry.lookup import ADAPTERS, resolve
from tests.encoders.loading import CARDS, REGISTRY


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_card_is_complete(path: Path) -> None:
    card = load_card(path, EncoderCard)
    assert card.id == path.stem
    assert f"--encoder {card.id} " in path.read_text().splitlines()[0]
    adapter = resolve(ADAPTERS[card.kind])
    assert issubclass(adapter, Adapter)
    if adapter.needs_weights:
        assert card.weights
        assert all(source.licence_url for source in card.weights)
        # Of Multi-HMR's whole models nobody here knows what is in the file beside the parameters.
        assert card.kind == "multihmr" or all(source.size for source in card.weights)
    if card.kind == "timm":
        known = timm.get_pretrained_cfg(card.arch["name"])
        assert card.weights[0].hub == hub_source(card.arch["name"]).hub
        assert card.resolution == known.input_size[-1]


def test_dune_teachers_and_views_are_canonical() -> None:
    names = ("dune_vitb", "dune_vitb_336", "dune_vitb_paper", "dune_vits", "dune_vits_336")
    for card in (REGISTRY.encoder(name) for name in names):
        assert card.views["semseg"] == "proj:dinov2reg_vitl14"
        assert card.teachers == ("dinov2reg_vitl14", "mast3r_vitl16", "multihmr_vitl14_672")
        assert card.arch["table"] * 14 == card.resolution
