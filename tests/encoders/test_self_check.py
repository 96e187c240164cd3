"""Broken encoders do not pass as sound."""

from __future__ import annotations

import pytest
import torch

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.self_check import self_check
from dune_bench.encoders.vit import VitConfig
from dune_bench.registry.cards import EncoderCard
from tests.encoders.loading import load


def test_healthy_encoders_pass_the_self_check() -> None:
    for name in ("pixels", "timm:vit_tiny_patch16_224", "timm:resnet18"):
        assert self_check(load(name)) == []


def test_self_check_sees_a_table_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(table: torch.Tensor, grid: tuple[int, int], config: VitConfig) -> torch.Tensor:
        patches = table[:, 1:].unflatten(1, (config.table, config.table))[:, : grid[0], : grid[1]]
        return torch.cat([table[:, :1], patches.flatten(1, 2)], 1)

    vit = {"width": 48, "depth": 1, "heads": 3, "table": 24, "mask_token": False}
    encoder = load_encoder(EncoderCard(id="r", kind="random", arch={"vit": vit}))
    assert self_check(encoder) == []
    monkeypatch.setattr("dune_bench.encoders.vit.position_table", cut)
    assert ["cut off" in problem for problem in self_check(encoder)] == [True]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x * float("nan"), "non-finite"),
        (lambda x: torch.ones_like(x), "do not depend on the image"),
        (lambda x: x - x.mean(0), "depend on its batch"),
        (lambda x: x.reshape(len(x), 3, 28, 28), "does not take every size"),
    ],
)
def test_self_check_names_what_is_wrong(spoil: object, words: str) -> None:
    def network(x: torch.Tensor) -> torch.Tensor:
        return spoil(torch.nn.functional.avg_pool2d(x, 8))  # type: ignore[operator,no-any-return]

    (problem,) = self_check(Encoder.from_module(network, 8))
    assert words in problem
