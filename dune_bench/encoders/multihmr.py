"""The backbone of Multi-HMR: a DINOv2 ViT without registers, out of the file that holds the whole model.

Source: naver/multi-hmr as restated in PROTOCOLS §0, §4.2, §4.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from dune_bench.encoders.adapter import Adapter, build_empty, parse_arch, reinitialise
from dune_bench.encoders.checkpoint import State, load_into, read_checkpoint
from dune_bench.encoders.vit import VisionTransformer, VitConfig, official_names
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.errors import TaskError
from dune_bench.registry.cards import EncoderCard

BACKBONES = ("backbone.encoder.", "encoder.backbone.")
"""Prefix of the backbone in the files with SMPL-X, and in that with Anny."""


class MultiHmrEncoder(VitEncoder, Adapter):
    """Views norm (what Multi-HMR's head reads and DUNE was taught), raw, layer:N, layers:….

    The head, the body model and whatever else is in the file are not read here.
    """

    adapter = "multihmr@1"

    @classmethod
    def read(cls, path: Path) -> State:
        """The backbone's tensors alone, under the names of DINOv2."""
        return backbone_of(read_checkpoint(path), str(path))

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> MultiHmrEncoder:
        config = parse_arch(card, VitConfig)
        vit = build_empty(lambda: VisionTransformer(config))
        if state is None:
            reinitialise(vit, seed=0)
        else:
            load_into(vit, official_names(state), f"weights of encoder {card.id}")
        return cls(card.id, vit)


def backbone_of(state: Mapping[str, Tensor], where: str) -> State:
    """The backbone in a whole model's tensors, without its prefix; one that stands alone as it is.

    Raises TaskError if there is none.
    """
    for prefix in BACKBONES:
        if f"{prefix}cls_token" in state:
            return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    if "cls_token" not in state:
        tokens = " or ".join(f"{prefix}cls_token" for prefix in BACKBONES)
        raise TaskError(f"{where}: no backbone of Multi-HMR in it (no tensor {tokens})")
    return dict(state)
