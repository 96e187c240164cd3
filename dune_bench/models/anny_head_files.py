"""The head in the file of Multi-HMR's Anny release: names, shapes, options, and what else the file holds.

The backbone, a DINOv2 ViT under `encoder.backbone.`, is not read here; every other tensor must be known.
Source: Multi-HMR Anny release, tensor names and formulas as observed.  The file itself was not seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from dune_bench.errors import UsageError
from dune_bench.models.anny_head import PHENOTYPE_NUMBERS, POSE_NUMBERS, AnnyHead, AnnyHeadConfig, formulas
from dune_bench.models.anny_release_rig import KEPT
from dune_bench.models.human_camera import Grid
from dune_bench.models.human_files import first_names, renamed, require_fit

PATCH, HEAD_DIM = 14, 32
MARKS = ("dec_to_token.weight", "mlp_pose.0.weight")
"""Tensors that this release alone has, of all that are known."""
BACKBONE = "encoder.backbone."
PERSON_CENTER = "head"
"""The bone that is detected and that places the body."""

_LAYERS = "decoder.transformer.layers."
_NAMES = {
    "detection": "encoder.mlp_det",
    "view": "encoder.mlp_fov_unique",
    "widest": "encoder.fov_max",
    "position": "dec_pos_emb",
    "embed": "dec_to_token",
    "offset": "mlp_offset",
    "pose": "mlp_pose",
    "shape": "mlp_shape",
    "distance": "mlp_dist",
    "mean_pose": "init_body_pose",
    "kept": "useful_rotmat",
}
_LAYER_NAMES = {
    "self_norm": "0.norm",
    "self_attention.to_qkv": "0.fn.to_qkv",
    "self_attention.to_out": "0.fn.to_out.0",
    "cross_norm": "1.norm",
    "cross_attention.to_q": "1.fn.to_q",
    "cross_attention.to_kv": "1.fn.to_kv",
    "cross_attention.to_out": "1.fn.to_out.0",
    "mlp_norm": "2.norm",
    "mlp.0": "2.fn.net.0",
    "mlp.2": "2.fn.net.3",
}
_ANCHORS = {
    "gender": (0.0, 1.0),
    "age": (-1 / 3, 0.0, 1 / 3, 2 / 3, 1.0),
    "muscle": (0.0, 0.5, 1.0),
    "weight": (0.0, 0.5, 1.0),
    "height": (0.0, 1.0),
    "proportions": (0.0, 1.0),
    "cupsize": (0.0, 0.5, 1.0),
    "firmness": (0.0, 0.5, 1.0),
}
"""Grid values of anny's phenotypes, in the file as `body_model.anchors.…`."""
_UNUSED = {"eye": (1, 3, 3)} | {f"body_model.anchors.{n}": (len(v),) for n, v in _ANCHORS.items()}
"""Computed with by nobody here: nothing is lost where they are not stored."""
_TOLERANCE = 1e-5
_ANCHOR_TOLERANCE = 1e-3
"""A short float's last digits; other grids differ by more."""


@dataclass(frozen=True)
class ReleasedAnny:
    """head: float32 on the CPU, for inference, with the stored buffers.  differing: those of them that are
    not what their formulas say, by the file's names."""

    head: AnnyHead
    differing: tuple[str, ...]


def is_anny_release(names: Iterable[str]) -> bool:
    """Whether a file with these tensors is the Anny release, whatever it is called."""
    return set(MARKS) <= set(names)


def released_name(own: str) -> str:
    """The name in the released file of a parameter or buffer of `AnnyHead`."""
    if layer := re.match(r"layers\.(\d+)\.", own):
        return f"{_LAYERS}{layer[1]}.{renamed(own[layer.end() :], _LAYER_NAMES)}"
    return renamed(own, _NAMES)


def read_anny_head(
    state: Mapping[str, Tensor],
    args: Mapping[str, Any],
    where: str,
    grid: Grid | None = None,
    encoder_dim: int | None = None,
) -> ReleasedAnny:
    """The head in the release's tensors.

    args: the file's own options, by name; what is not there has the release's default.  where: names the
    file in errors.  grid, encoder_dim: what the encoder gives, if known.  Raises UsageError, one line, for a
    file of something else, options that mean another computation, another token grid or encoder width,
    missing or unexpected tensors, other shapes, or a body that the built-in one cannot follow.
    """
    config = config_of(state, args, where)
    _require_options(config, args, where)
    require_fit(config, where, grid, encoder_dim)
    with torch.device("meta"):
        head = AnnyHead(config)
    head.to_empty(device="cpu")
    own = head.state_dict()
    sources = {name: released_name(name) for name in own}
    _require_same({sources[name]: tuple(value.shape) for name, value in own.items()}, state, where)
    head.load_state_dict({name: state[source].float() for name, source in sources.items()})
    _require_body(head, state, where)
    differing = tuple(
        sources[name]
        for name, value in formulas(config).items()
        if not torch.allclose(head.get_buffer(name), value, rtol=0.0, atol=_TOLERANCE)
    )
    return ReleasedAnny(head.eval().requires_grad_(False), differing)


def config_of(state: Mapping[str, Tensor], args: Mapping[str, Any], where: str) -> AnnyHeadConfig:
    """The shape of the head in the release's tensors; only the number of attention heads is an option.

    Raises UsageError if this is not the Anny release.
    """
    if missing := [name for name in MARKS if name not in state]:
        raise UsageError(f"{where}: not a Multi-HMR head for anny's bodies: no {missing[0]!r} in it")

    def size(own: str, axis: int) -> int:
        tensor = state.get(name := released_name(own))
        if tensor is None or tensor.ndim <= axis:
            raise UsageError(f"{where}: no usable {name!r}: not a Multi-HMR head for anny's bodies")
        return int(tensor.shape[axis])

    for own, known, what in (("pose", POSE_NUMBERS, "pose"), ("shape", PHENOTYPE_NUMBERS, "shape")):
        if (count := size(f"{own}.2.weight", 0)) != known:
            raise UsageError(
                f"{where}: a head for another body model: it predicts {count} {what} numbers, "
                f"the Anny release {known}"
            )
    tokens = size("position", 0)
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise UsageError(f"{where}: a position table of {tokens} tokens, which are no square")
    inner = size("layers.0.cross_attention.to_q.weight", 0)
    heads = args.get("xat_heads", max(1, inner // HEAD_DIM))
    if type(heads) is not int or heads < 1 or inner % heads:
        raise UsageError(f"{where}: args.xat_heads is {heads!r}, which does not divide {inner} channels")
    layers = {match[1] for name in state if (match := re.match(rf"{re.escape(_LAYERS)}(\d+)\.", name))}
    try:
        return AnnyHeadConfig(
            encoder_dim=size("embed.weight", 1),
            patch=PATCH,
            grid=(side, side),
            width=size("embed.weight", 0),
            depth=len(layers),
            heads=heads,
            head_dim=inner // heads,
            mlp=size("layers.0.mlp.0.weight", 0),
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"{where}: no Multi-HMR head has {fault['loc'][0]} {fault['input']}") from error


def _require_options(config: AnnyHeadConfig, args: Mapping[str, Any], where: str) -> None:
    center = args.get("person_center", PERSON_CENTER)
    if center != PERSON_CENTER:
        raise UsageError(
            f"{where}: args.person_center is {center!r}: only heads that place a body by its bone "
            f"{PERSON_CENTER!r} can be read"
        )
    if (simple := args.get("simple_depth_encoding", 1)) != 1:
        raise UsageError(f"{where}: args.simple_depth_encoding is {simple!r}: only 1 can be read")
    side = config.grid[0] * config.patch
    # A list in the SMPL-X releases, whose first entry counts.
    stated = args.get("img_size", side)
    if (stated[0] if isinstance(stated, list | tuple) and stated else stated) != side:
        raise UsageError(f"{where}: args.img_size is {stated!r}, but its position table is for {side} px")


def _require_same(own: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], where: str) -> None:
    """own: shapes by the file's names."""
    stored = {name: tuple(t.shape) for name, t in state.items() if not name.startswith(BACKBONE)}
    known = {**_UNUSED, **own}
    shapes = [
        f"{name} {stored[name]} instead of {known[name]}"
        for name in stored.keys() & known.keys()
        if stored[name] != known[name]
    ]
    faults = (
        ("missing", own.keys() - stored.keys()),
        ("unexpected", stored.keys() - known.keys()),
        ("shape of", shapes),
    )
    if problems := [f"{what} {first_names(names)}" for what, names in faults if names]:
        raise UsageError(f"{where}: not the Multi-HMR head for anny's bodies: {'; '.join(problems)}")


def _require_body(head: AnnyHead, state: Mapping[str, Tensor], where: str) -> None:
    """Refuses bones and phenotypes that the built-in body would get wrong without a word."""
    turned = set(head.kept[0].nonzero()[:, 0].tolist())
    if beyond := sorted(turned - set(KEPT)):
        raise UsageError(
            f"{where}: useful_rotmat keeps bone {beyond[0]}, which the built-in body is not driven by: "
            f"{len(KEPT)} bones are known to turn"
        )
    for name, values in _ANCHORS.items():
        stored = state.get(f"body_model.anchors.{name}", torch.tensor(values)).float()
        if not torch.allclose(stored, torch.tensor(values), rtol=0.0, atol=_ANCHOR_TOLERANCE):
            raise UsageError(
                f"{where}: body_model.anchors.{name} is {_numbers(stored)}, the built-in body has "
                f"{_numbers(torch.tensor(values))}"
            )


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.tolist())
