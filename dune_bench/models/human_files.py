"""Heads of the released Multi-HMR models with SMPL-X: names, shapes, and what else their files may hold.

Source: the tensor lists of the 672_S, 672_L and 896_L files (tests/golden/checkpoint_keys); PROTOCOLS
§4.2.  The backbone of such a file, a DINOv2 ViT under `backbone.encoder.`, is not read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from dune_bench.errors import UsageError
from dune_bench.models.anny_head import AnnyHeadConfig
from dune_bench.models.human_camera import Grid
from dune_bench.models.human_head import HumanHead, HumanHeadConfig

PATCH, HEADS = 14, 8
POSE_NUMBERS = 6 * 53
BETAS = 10
OWNED = ("mlp_classif.", "mlp_offset.", "x_attention_head.")
"""Names that start so are the head's; all others are the backbone's or the body model's."""

_ATTENTION = "x_attention_head."
_LAYERS = f"{_ATTENTION}transformer.transformer.layers."
_NAMES = {
    "detection": "mlp_classif",
    "offset": "mlp_offset",
    # x counts rows and y columns in these files (PROTOCOLS §12).
    "query_rows": f"{_ATTENTION}cross_queries_x",
    "query_columns": f"{_ATTENTION}cross_queries_y",
    "value_rows": f"{_ATTENTION}cross_values_x",
    "value_columns": f"{_ATTENTION}cross_values_y",
    "mean_pose": f"{_ATTENTION}init_body_pose",
    "mean_betas": f"{_ATTENTION}init_betas",
    "mean_camera": f"{_ATTENTION}init_cam",
    "mean_expression": f"{_ATTENTION}init_expression",
    "transformer.embed": f"{_ATTENTION}transformer.to_token_embedding",
    "transformer.position": f"{_ATTENTION}transformer.pos_embedding",
    "decoders.pose": f"{_ATTENTION}decpose",
    "decoders.betas": f"{_ATTENTION}decshape",
    "decoders.camera": f"{_ATTENTION}deccam",
    "decoders.expression": f"{_ATTENTION}decexpression",
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
_UNUSED = {f"{_ATTENTION}init_betas_kid"}
"""In every file, used by none of the listed models: the mean shape of those with a child axis."""


def released_name(own: str) -> str:
    """The name in the released files of a parameter or buffer of `HumanHead`."""
    if layer := re.match(r"transformer\.layers\.(\d+)\.", own):
        return f"{_LAYERS}{layer[1]}.{renamed(own[layer.end() :], _LAYER_NAMES)}"
    return renamed(own, _NAMES)


def read_human_head(
    state: Mapping[str, Tensor], where: str, grid: Grid | None = None, encoder_dim: int | None = None
) -> HumanHead:
    """The head in a released model's tensors, float32 on the CPU, for inference.

    where: names the file in errors.  grid, encoder_dim: what the encoder gives, if known.  Raises
    UsageError, one line, for a file of something else, another body model, token grid or encoder width,
    missing or unexpected tensors of the head, or other shapes.
    """
    config = config_of(state, where)
    require_fit(config, where, grid, encoder_dim)
    with torch.device("meta"):
        head = HumanHead(config)
    head.to_empty(device="cpu")
    own = head.state_dict()
    sources = {name: released_name(name) for name in own}
    _require_same(own, sources, state, where)
    head.load_state_dict({name: state[source].float() for name, source in sources.items()})
    return head.eval().requires_grad_(False)


def config_of(state: Mapping[str, Tensor], where: str) -> HumanHeadConfig:
    """The shape of the head in a released model's tensors.

    Raises UsageError if this is no Multi-HMR head or one for another body model than SMPL-X.
    """
    if not any(name.startswith(OWNED) for name in state):
        raise UsageError(f"{where}: no tensor of a Multi-HMR head in it ({', '.join(OWNED)}…)")

    def size(own: str, axis: int) -> int:
        tensor = state.get(name := released_name(own))
        if tensor is None or tensor.ndim <= axis:
            raise UsageError(f"{where}: no usable {name!r}: not a Multi-HMR head for SMPL-X")
        return int(tensor.shape[axis])

    for own, known, what in (("pose", POSE_NUMBERS, "pose"), ("betas", BETAS, "shape")):
        if (count := size(f"decoders.{own}.weight", 0)) != known:
            raise UsageError(
                f"{where}: a head for another body model: it predicts {count} {what} numbers, "
                f"SMPL-X's heads {known}"
            )
    rows, columns = size("query_rows", 0), size("query_columns", 0)
    if rows != columns:
        raise UsageError(f"{where}: position tables of {rows} and {columns} tokens: no released model")
    layers = {match[1] for name in state if (match := re.match(rf"{re.escape(_LAYERS)}(\d+)\.", name))}
    try:
        return HumanHeadConfig(
            encoder_dim=size("detection.0.weight", 1),
            patch=PATCH,
            grid=(rows, columns),
            betas=BETAS,
            expressions=size("decoders.expression.weight", 0),
            width=size("transformer.embed.weight", 0),
            depth=len(layers),
            heads=HEADS,
            head_dim=size("transformer.layers.0.self_attention.to_qkv.weight", 0) // (3 * HEADS),
            mlp=size("transformer.layers.0.mlp.0.weight", 0),
            compat=True,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise UsageError(f"{where}: no Multi-HMR head has {fault['loc'][0]} {fault['input']}") from error


def require_fit(
    config: HumanHeadConfig | AnnyHeadConfig, where: str, grid: Grid | None, encoder_dim: int | None
) -> None:
    """Raises UsageError for another token grid or encoder width than the head's; None is not known."""
    side = config.grid[0]
    if grid is not None and grid != config.grid:
        raise UsageError(
            f"{where}: a head for {side}×{side} tokens ({side * config.patch} px), not for "
            f"{grid[0]}×{grid[1]}: use images of the size it was trained on"
        )
    if encoder_dim is not None and encoder_dim != config.encoder_dim:
        raise UsageError(
            f"{where}: a head for tokens of {config.encoder_dim} channels, the encoder gives {encoder_dim}: "
            "a head works with the encoder it was trained on"
        )


def _require_same(
    own: Mapping[str, Tensor],
    sources: Mapping[str, str],
    state: Mapping[str, Tensor],
    where: str,
) -> None:
    owned = {name for name in state if name.startswith(OWNED)}
    known = set(sources.values())
    shapes = [
        f"{source} {tuple(state[source].shape)} instead of {tuple(own[name].shape)}"
        for name, source in sources.items()
        if source in owned and state[source].shape != own[name].shape
    ]
    faults = (("missing", known - owned), ("unexpected", owned - known - _UNUSED), ("shape of", shapes))
    if problems := [f"{what} {first_names(names)}" for what, names in faults if names]:
        raise UsageError(f"{where}: not a Multi-HMR head for SMPL-X: {'; '.join(problems)}")


def renamed(name: str, table: Mapping[str, str]) -> str:
    """A name with its beginning, whole parts of it, replaced by the table."""
    part = next(part for part in table if name == part or name.startswith(part + "."))
    return table[part] + name[len(part) :]


def first_names(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    names = sorted(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
