"""A DINOv2-type ViT whose weights are the initialisers of an ONNX file.

The file is parsed, never run.  Exporters give a matrix of a linear layer no name of its own; it is
named here after the graph node that multiplies by it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dune_bench.encoders.adapter import Adapter, build_empty, parse_arch, reinitialise
from dune_bench.encoders.checkpoint import State, load_into
from dune_bench.encoders.vit import VisionTransformer, VitConfig
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.errors import TaskError, UnavailableError
from dune_bench.registry.cards import EncoderCard

_RENAMES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"attention\.output\.dense\.", "attn.proj."),
    (r"layer_scale([12])\.lambda1$", r"ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)


class OnnxVitEncoder(VitEncoder, Adapter):
    """The `backbone` of an ONNX file in the layout of transformers' Dinov2 models; other parts of the
    graph (heads) are left out."""

    adapter = "onnx_vit@1"

    @classmethod
    def read(cls, path: Path) -> State:
        """Tensors named as in the exported module (`backbone.encoder.layer.0.…`), linear matrices as
        torch has them (out, in).  Raises TaskError, or UnavailableError without the package onnx."""
        try:
            import onnx
            from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        except ImportError as error:
            raise UnavailableError(
                "reading ONNX weights needs onnx; from the dune-bench folder: pip install '.[demo]'"
            ) from error
        try:
            graph = onnx.load(path, load_external_data=False).graph
        except (DecodeError, OSError) as error:
            raise TaskError(f"{path}: truncated or not an ONNX file: get it again") from error
        arrays = {x.name: torch.from_numpy(onnx.numpy_helper.to_array(x).copy()) for x in graph.initializer}
        for node in graph.node:
            if node.op_type == "MatMul" and node.input[1] in arrays:
                layer = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
                arrays[f"{layer}.weight"] = arrays.pop(node.input[1]).T.contiguous()
        return arrays

    @classmethod
    def from_card(cls, card: EncoderCard, state: State | None) -> OnnxVitEncoder:
        config = parse_arch(card, VitConfig)
        vit = build_empty(lambda: VisionTransformer(config))
        if state is None:
            reinitialise(vit, seed=0)
        else:
            load_into(vit, our_names(state, config), f"weights of encoder {card.id}")
        return cls(card.id, vit)


def our_names(state: Mapping[str, Tensor], config: VitConfig) -> State:
    """Names of the exported backbone to those of our ViT: q, k, v fused, position table joined."""
    ours: State = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if match := re.fullmatch(r"backbone\.(.+)\.attention\.attention\.(query|key|value)\.(\w+)", name):
            parts.setdefault(f"{match[1]}.attn.qkv.{match[3]}", {})[match[2]] = value
        elif name.startswith("backbone."):
            ours[_renamed(name.removeprefix("backbone."))] = value
    for name, split in parts.items():
        if split.keys() == {"query", "key", "value"}:
            ours[_renamed(name)] = torch.cat([split["query"], split["key"], split["value"]])
    # Constant folding left the two parts of the table without names: they are the only
    # initialisers of these shapes.
    rows = {1: (1, 1, config.width), config.table**2: (1, config.table**2, config.width)}
    found = [
        [v for k, v in state.items() if v.shape == shape and not k.startswith("backbone.")]
        for shape in rows.values()
    ]
    if all(len(tensors) == 1 for tensors in found):
        ours["pos_embed"] = torch.cat([found[0][0], found[1][0]], 1)
    return ours


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
