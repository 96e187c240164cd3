"""Untrained networks of any architecture: the baseline that training must beat."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from dune_bench.encoders.adapter import Adapter, build_empty, parse_arch, reinitialise
from dune_bench.encoders.base import Encoder
from dune_bench.encoders.checkpoint import State
from dune_bench.encoders.vit import VisionTransformer, VitConfig
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.registry.cards import Card, EncoderCard


class RandomArch(Card):
    """Exactly one of vit (keys of `VitConfig`) and timm (a model's name).  seed: of the weights."""

    vit: dict[str, Any] | None = None
    timm: str | None = None
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one(self) -> RandomArch:
        if (self.vit is None) == (self.timm is None):
            raise ValueError("name exactly one of vit, timm")
        return self


class RandomEncoder(Adapter):
    """Builds the named architecture and fills it by `reinitialise`."""

    needs_weights = False

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> Encoder:
        arch = parse_arch(card, RandomArch)
        encoder: Encoder
        if arch.timm is not None:
            # timm takes seconds to import; other random encoders do without it.
            from dune_bench.encoders.timm import TimmEncoder

            inner = card.model_copy(update={"arch": {"name": arch.timm}})
            encoder = TimmEncoder.from_card(inner, None, seed=arch.seed)
        else:
            config = parse_arch(card.model_copy(update={"arch": arch.vit}), VitConfig)
            vit = build_empty(lambda: VisionTransformer(config))
            reinitialise(vit, arch.seed)
            encoder = VitEncoder(card.id, vit)
        encoder.weights = "random"
        return encoder
