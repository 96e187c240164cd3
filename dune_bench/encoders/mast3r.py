"""MASt3R's own encoder: a ViT with rotary positions, out of the file that holds the whole network.

Source: naver/mast3r, naver/croco as restated in PROTOCOLS §3.1 and §12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dune_bench.encoders.adapter import Adapter, build_empty, parse_arch, reinitialise
from dune_bench.encoders.base import Tokens, ViewSpec, parse_view
from dune_bench.encoders.checkpoint import State, load_into, read_checkpoint
from dune_bench.errors import TaskError
from dune_bench.models.croco import CrocoConfig, CrocoEncoder
from dune_bench.models.two_view_files import ENCODER_NAMES
from dune_bench.registry.cards import Card, EncoderCard


class Mast3rArch(CrocoConfig, Card):
    """The shape of the encoder, as a card states it."""


class Mast3rEncoder(Adapter):
    """Views norm (`enc_norm`: what MASt3R's decoder reads), raw, layer:N, layers:…; no class token."""

    adapter = "mast3r@1"
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, id: str, network: CrocoEncoder) -> None:
        config = network.config
        self.id, self.network, self.module = id, network, network.eval()
        self.patch_size, self.dim, self.depth = config.patch, config.width, config.depth
        # What the tensors do not say of the function they belong to.
        self.options = {"heads": config.heads}

    @classmethod
    def read(cls, path: Path) -> State:
        """The encoder's tensors alone: decoder and heads are 56 % of the file."""
        state = {n: t for n, t in read_checkpoint(path).items() if n.startswith(ENCODER_NAMES)}
        if not state:
            raise TaskError(f"{path}: no encoder of MASt3R in it (no tensor {ENCODER_NAMES[0]}…)")
        return state

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> Mast3rEncoder:
        config = parse_arch(card, Mast3rArch)
        network = build_empty(lambda: CrocoEncoder(config))
        if state is None:
            reinitialise(network, seed=0)
        else:
            load_into(network, state, f"weights of encoder {card.id}")
        return cls(card.id, network)

    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        specs = {view: parse_view(view) for view in views}
        outputs = self.network(normalised, {n for s in specs.values() for n in s.layers or (self.depth,)})
        grid = (normalised.shape[-2] // self.patch_size, normalised.shape[-1] // self.patch_size)
        return {view: (self._map(spec, outputs, grid), None) for view, spec in specs.items()}

    def _map(self, spec: ViewSpec, outputs: Mapping[int, Tensor], grid: tuple[int, int]) -> Tensor:
        """(B, C, h, w) of one view."""
        tokens = torch.cat([outputs[n] for n in spec.layers or (self.depth,)], 2)
        if spec.kind == "norm":
            tokens = self.network.enc_norm(tokens)
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)
