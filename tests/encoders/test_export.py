"""The traceable ViT is the same function as the one it stands for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.encoders.adapter import build_empty, reinitialise
from dune_bench.encoders.export import DynamicVit, ExportModule, dynamic_table
from dune_bench.encoders.pixels import PixelsEncoder
from dune_bench.encoders.vit import VisionTransformer, VitConfig, position_table
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.errors import UsageError
from dune_bench.registry.cards import EncoderCard

SIDE = 6
RULES = ("dinov2", "dinov2reg", "transformers")


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(RULES), st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_position_rule_is_kept_at_every_grid(rule: str, rows: int, columns: int, seed: int) -> None:
    """Against `F.interpolate`, which the exporters cannot keep symbolic."""
    table = torch.randn((1, 1 + SIDE**2, 4), generator=torch.Generator().manual_seed(seed))
    config = VitConfig.model_validate({"width": 4, "depth": 1, "heads": 1, "table": SIDE, "position": rule})
    expected = position_table(table, (rows, columns), config)[:, 1:]
    got = dynamic_table(table, torch.zeros(1, 4, rows, columns), SIDE, config.position)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


def test_native_grid_is_not_resampled() -> None:
    table = torch.randn((1, 1 + SIDE**2, 4), generator=torch.Generator().manual_seed(0))
    for rule in RULES:
        got = dynamic_table(table, torch.zeros(1, 4, SIDE, SIDE), SIDE, rule)  # type: ignore[arg-type]
        assert torch.equal(got, table[:, 1:])


@pytest.mark.parametrize("registers", [0, 4])
def test_registers_stay_between_class_and_patches(registers: int) -> None:
    config = VitConfig(width=24, depth=2, heads=2, table=SIDE, registers=registers, mask_token=False)
    vit = build_empty(lambda: VisionTransformer(config))
    reinitialise(vit, 0)
    images = torch.randn((2, 3, 56, 98), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(DynamicVit(vit).embed(images), vit.embed(images), atol=2e-5, rtol=1e-5)


def test_callers_encoder_is_left_as_it_is() -> None:
    vit = build_empty(lambda: VisionTransformer(VitConfig(width=24, depth=2, heads=2, table=SIDE)))
    encoder = VitEncoder("x", vit)
    ExportModule(encoder, "norm", True)
    assert encoder.vit is vit
    assert type(encoder.module) is VisionTransformer


def test_encoder_without_a_network_is_refused() -> None:
    encoder = PixelsEncoder.from_card(EncoderCard(id="pixels", kind="pixels"), None)
    with pytest.raises(UsageError, match="pixels is no torch module"):
        ExportModule(encoder, "raw", False)
