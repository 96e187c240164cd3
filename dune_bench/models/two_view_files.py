"""Released two-view networks: MASt3R, and the DUNE-MASt3R wrappers of both sizes.

Source: mast3r `model.py` as restated in PROTOCOLS §3.1, §3.2 and §12; the lists of tensor names in
tests/golden/checkpoint_keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from pydantic import ValidationError
from torch import Tensor

from dune_bench.errors import TaskError, UsageError
from dune_bench.models.model_string import Value, parse_model_string, shown, take
from dune_bench.models.two_view_decoder import DecoderConfig, TwoViewDecoder

WRAPPED = "mast3r."
"""Prefix of the decoder in a DUNE-MASt3R file; its LayerNorm is `norm.`."""
ENCODER_NAMES = ("patch_embed.", "enc_blocks.", "enc_norm.")
"""Names that start so are MASt3R's own encoder (models/croco.py).  DUNE-MASt3R files have one too, which
nothing uses."""
UNUSED = re.compile(
    # CroCo's pre-training token.
    r"mask_token"
    # A second name of scratch.layer_rn.N-1.
    r"|downstream_head[12]\.dpt\.scratch\.layer[1-4]_rn\.weight"
    # The coarsest fusion has nothing to join.
    r"|downstream_head[12]\.dpt\.scratch\.refinenet4\.resConfUnit1\.conv[12]\.(weight|bias)"
)
"""Tensors of the decoder part that the network never reads."""
BACKBONE = re.compile(r"dune_backbone\..+|imagenet_(mean|std)")
"""What else a DUNE-MASt3R file may hold: the frozen encoder, which comes from its own file."""
DUNE_PATCH = 14

_FIXED: Mapping[str, tuple[Value, ...]] = {
    "pos_embed": ("RoPE100",),
    "head_type": ("catmlp+dpt",),
    "depth_mode": (("exp", -math.inf, math.inf),),
    "conf_mode": (("exp", 1, math.inf),),
    "two_confs": (True,),
}
"""Options that must stand there and say this: what is built knows nothing else."""
_OPTIONAL: Mapping[str, tuple[Value, ...]] = {
    "desc_mode": ("norm",),
    "norm_im2_in_dec": (True,),
    # Without it the descriptors' confidence follows conf_mode.
    "desc_conf_mode": (("exp", 0, math.inf), ("exp", 1, math.inf)),
}
_SIZES = {"enc_embed_dim": 2**14, "dec_embed_dim": 2**14, "dec_depth": 2**8, "dec_num_heads": 2**8}
"""Options that give sizes, and the largest believed: a file must not make us build for hours."""
_LARGEST_PATCH = 2**8
_OF_NO_USE = ("patch_embed_cls", "img_size", "freeze", "landscape_only", "enc_depth", "enc_num_heads")
"""About training, input layout, or the encoder."""


@dataclass(frozen=True)
class ReleasedDecoder:
    """A trained decoder.  backbone: the frozen encoder it was trained on, as its file names it; None where
    that is MASt3R's own, whose tokens go in after `enc_norm` (DUNE's go in raw)."""

    decoder: TwoViewDecoder
    backbone: str | None


def read_decoder(
    content: object, where: str, *, encoder_dim: int | None = None, patch: int | None = None
) -> ReleasedDecoder:
    """The decoder in a released file's content, float32 on the CPU, for inference.

    content: what the file holds, safely loaded: `model` (tensors) and either `args` with the
    configuration string, or `mast3r_model_str` and `dune_backbone_name`.  encoder_dim, patch: what the
    encoder at hand gives, if known.  Raises, in one line that begins with `where`: UsageError for a file of
    something else, a configuration string with anything but literals in it or of another kind of network,
    or one that does not fit the encoder; TaskError for missing, unexpected or misshapen tensors.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise UsageError(f"{where}: no MASt3R or DUNE-MASt3R file: it has no entry 'model'")
    wrapped = "mast3r_model_str" in content
    text = content["mast3r_model_str"] if wrapped else getattr(content.get("args"), "model", None)
    if not isinstance(text, str):
        raise UsageError(
            f"{where}: no configuration string in it (args.model or mast3r_model_str): not a released file "
            "of MASt3R or DUNE-MASt3R"
        )
    config = decoder_config(text, where, input_norm=wrapped)
    _require_fit(config, where, encoder_dim, patch)
    state = _own_names(content["model"], wrapped)
    backbone = content.get("dune_backbone_name") if wrapped else None
    return ReleasedDecoder(_load(config, state, where), None if backbone is None else str(backbone))


def decoder_config(text: str, where: str, *, input_norm: bool) -> DecoderConfig:
    """The decoder that a configuration string describes.  Raises UsageError naming the option."""
    name, options = parse_model_string(text, where)
    if name != "AsymmetricMASt3R":
        raise UsageError(f"{where}: a network {name!r}, only AsymmetricMASt3R can be read")
    known = {*_FIXED, *_OPTIONAL, *_SIZES, *_OF_NO_USE, "output_mode", "patch_size"}
    if unknown := sorted(options.keys() - known):
        raise UsageError(f"{where}: unknown option {unknown[0]!r} in its configuration string")
    for key, allowed in {**_FIXED, **{k: v for k, v in _OPTIONAL.items() if k in options}}.items():
        if options.get(key) not in allowed:
            readable = " or ".join(map(repr, allowed))
            given = shown(repr(options.get(key)))
            raise UsageError(f"{where}: {key} is {given}, only {readable} can be read")
    output = str(options.get("output_mode"))
    mode = re.fullmatch(r"pts3d\+desc([1-9]\d{0,3})", output)
    if mode is None:
        raise UsageError(f"{where}: output_mode is {shown(output)}, only pts3d+descN can be read")
    encoder_dim, width, depth, heads = (take(options, *size, where) for size in _SIZES.items())
    # A wrapper's string does not say: the patch is that of its backbone, and DUNE's is 14.
    default_patch = DUNE_PATCH if input_norm else 16
    try:
        return DecoderConfig(
            encoder_dim=encoder_dim,
            patch=take({"patch_size": default_patch} | options, "patch_size", _LARGEST_PATCH, where),
            width=width,
            depth=depth,
            heads=heads,
            descriptor_dim=int(mode[1]),
            descriptor_floor=0 if options.get("desc_conf_mode") == ("exp", 0, math.inf) else 1,
            input_norm=input_norm,
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: impossible sizes in its configuration string: {reason}") from error


def _require_fit(config: DecoderConfig, where: str, encoder_dim: int | None, patch: int | None) -> None:
    if patch is not None and patch != config.patch:
        raise UsageError(
            f"{where}: a decoder for patches of {config.patch} px, the encoder's are of {patch} px: "
            "a decoder works with the encoder it was trained on"
        )
    if encoder_dim is not None and encoder_dim != config.encoder_dim:
        raise UsageError(
            f"{where}: a decoder for tokens of {config.encoder_dim} channels, the encoder gives "
            f"{encoder_dim}: a decoder works with the encoder it was trained on"
        )


def _own_names(model: Mapping[object, object], wrapped: bool) -> dict[str, Tensor]:
    """The decoder's tensors under our names, without those that the network never reads."""
    own: dict[str, Tensor] = {}
    for name, value in model.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            continue
        if wrapped and BACKBONE.fullmatch(name):
            continue
        if wrapped and name.startswith("norm."):
            own[f"input_{name}"] = value
            continue
        bare = name.removeprefix(WRAPPED) if wrapped else name
        if not bare.startswith(ENCODER_NAMES) and not UNUSED.fullmatch(bare):
            own[bare] = value
    return own


def _load(config: DecoderConfig, state: Mapping[str, Tensor], where: str) -> TwoViewDecoder:
    """Builds the decoder around the tensors (no copy where they are float32).  Raises TaskError."""
    with torch.device("meta"):
        decoder = TwoViewDecoder(config)
    expected = decoder.state_dict()
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name].shape
    ]
    faults = {
        "missing": expected.keys() - state.keys(),
        "unexpected": state.keys() - expected.keys(),
        "shape of": shapes,
    }
    if problems := [f"{what} {_first(names)}" for what, names in faults.items() if names]:
        raise TaskError(
            f"{where}: its tensors are not those of its configuration string: {'; '.join(problems)}"
        )
    decoder.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return decoder.eval().requires_grad_(False)


def _first(names: Iterable[str], most: int = 3) -> str:
    names = sorted(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
