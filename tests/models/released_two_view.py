"""Content of the released two-view files, as their reader meets it, with the golden values' weights."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dune_bench.models.two_view_decoder import DecoderConfig, fresh_decoder
from tests.encoders.released import GOLDEN, rule_tensor

FILES = {"mast3r": "mast3r_vitlarge_512_catmlpdpt", "dunemast3r": "dunemast3r_vit_small"}
MAST3R_STRING = (
    "AsymmetricMASt3R(pos_embed='RoPE100', patch_embed_cls='ManyAR_PatchEmbed', img_size=(512, 512), "
    "head_type='catmlp+dpt', output_mode='pts3d+desc24', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, dec_embed_dim=768, "
    "dec_depth=12, dec_num_heads=12, two_confs=True, desc_conf_mode=('exp', 0, inf))"
)
DUNE_STRING = MAST3R_STRING.replace("enc_embed_dim=1024", "enc_embed_dim=384")
"""Silent about the patch: mast3r's own program refuses a wrapper's string that names it."""

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


def small_wrapper(dim: int, seed: int = 0) -> dict[str, object]:
    """What a DUNE-MASt3R file would hold of a shallow decoder for an encoder of `dim` channels; bfloat16."""
    config = DecoderConfig(encoder_dim=dim, patch=14, width=16, depth=2, heads=2, input_norm=True)
    state = fresh_decoder(config, torch.Generator().manual_seed(seed)).state_dict()
    small = (("enc_embed_dim=1024", f"enc_embed_dim={dim}"), ("dec_embed_dim=768", "dec_embed_dim=16"))
    string = MAST3R_STRING
    for one in (*small, ("dec_depth=12", "dec_depth=2"), ("dec_num_heads=12", "dec_num_heads=2")):
        string = string.replace(*one)
    prefixed = (
        name.removeprefix("input_") if name.startswith("input_") else f"mast3r.{name}" for name in state
    )
    model = {name: tensor.bfloat16() for name, tensor in zip(prefixed, state.values(), strict=True)}
    return {"dune_backbone_name": "dune_tiny_14_encoder", "mast3r_model_str": string, "model": model}


def save_small(path: Path, dim: int, seed: int = 0) -> Path:
    """Writes `small_wrapper` (about 80 MB: the DPT heads have one size)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(small_wrapper(dim, seed), path)
    return path
