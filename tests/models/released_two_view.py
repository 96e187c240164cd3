"""Content of the released two-view files, as their reader meets it, with the golden values' weights."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

import torch
from torch import Tensor

from tests.encoders.released import GOLDEN, rule_tensor

FILES = {"mast3r": "mast3r_vitlarge_512_catmlpdpt", "dunemast3r": "dunemast3r_vit_small"}
MAST3R_STRING = (
    "AsymmetricMASt3R(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=(512, 512), "
    "head_type='catmlp+dpt', output_mode='pts3d+desc24', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, dec_embed_dim=768, "
    "dec_depth=12, dec_num_heads=12, two_confs=True, desc_conf_mode=('exp', 0, inf))"
)
DUNE_STRING = MAST3R_STRING.replace("enc_embed_dim=1024", "enc_embed_dim=384, patch_size=14")

Make = Callable[[str, tuple[int, ...]], Tensor]


def listed(kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a released file.  kind: mast3r or dunemast3r (small)."""
    lines = (GOLDEN / "checkpoint_keys" / f"{FILES[kind]}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {name: tuple(int(n) for n in shape.split("x")) for name, shape in rows}


def on_meta(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor without values: enough for names and shapes."""
    return torch.empty(shape, device="meta")


def by_rule(name: str, shape: tuple[int, ...]) -> Tensor:
    """The golden values' weights, where the second name of a tensor has the first one's value."""
    alias = re.sub(r"layer(\d)_rn", lambda match: f"layer_rn.{int(match[1]) - 1}", name)
    return rule_tensor(alias, shape)


def released(kind: str, make: Make = on_meta) -> dict[str, object]:
    """What a released file holds."""
    model = {name: make(name, shape) for name, shape in listed(kind).items()}
    if kind == "mast3r":
        return {"args": argparse.Namespace(model=MAST3R_STRING), "model": model}
    return {
        "dune_backbone_name": "dune_vitsmall_14_448_paper_encoder",
        "mast3r_model_str": DUNE_STRING,
        "model": model,
    }
