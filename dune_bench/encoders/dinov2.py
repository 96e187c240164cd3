"""DINOv2 as its authors run it: our ViT with their position rule, from their files or timm's."""

from __future__ import annotations

import re

import torch

from dune_bench.encoders.adapter import build_empty, reinitialise
from dune_bench.encoders.checkpoint import State, load_into
from dune_bench.encoders.vit import PositionRule, VisionTransformer, VitConfig, official_names
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.errors import UsageError

_NAME = re.compile(r"vit_(small|base|large|giant)_patch14_(reg4_)?dinov2(\.\w+)?")
_SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "giant": (1536, 40, 24)}


class DinoV2Encoder(VitEncoder):
    adapter = "dinov2@1"


def from_timm_name(id: str, name: str, position: PositionRule, state: State | None) -> DinoV2Encoder:
    """DINOv2 by timm's name.  state: the official file's tensors or timm's; None: random (seed 0).

    Raises UsageError for a name that is not a DINOv2, TaskError for tensors of another architecture.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise UsageError(f"encoder {id}: arch.position is for timm's DINOv2 models, not for {name!r}")
    width, depth, heads = _SIZES[match[1]]
    config = VitConfig(
        width=width,
        depth=depth,
        heads=heads,
        registers=4 if match[2] else 0,
        position=position,
        mlp="swiglu" if match[1] == "giant" else "gelu",
        mask_token=False,
    )
    vit = build_empty(lambda: VisionTransformer(config))
    if state is None:
        reinitialise(vit, seed=0)
    else:
        load_into(vit, our_names(state, config), f"weights of encoder {id}")
    return DinoV2Encoder(id, vit)


def our_names(state: State, config: VitConfig) -> State:
    """Names of the official file or of timm's to ours.

    timm folds the class entry of the position table into the class token of the models with
    registers; a table with a class entry of zeros gives the same sums.
    """
    ours = official_names(state)
    ours.pop("mask_token", None)
    if "reg_token" in ours:
        ours["register_tokens"] = ours.pop("reg_token")
    table = ours.get("pos_embed")
    if table is not None and table.shape == (1, config.table**2, config.width):
        ours["pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], 1)
    if config.mlp == "swiglu":
        renames = {".mlp.fc1.": ".mlp.w12.", ".mlp.fc2.": ".mlp.w3."}
        for old, new in renames.items():
            ours = {name.replace(old, new): value for name, value in ours.items()}
    return ours
