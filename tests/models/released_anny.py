"""Small files in the format of Multi-HMR's Anny release, by the names and shapes of that release."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BONES, PHENOTYPES = 163, 11
KEPT = {*range(7), *range(21, 27), *range(41, 45), *range(47, 105)}
ANCHORS = {"age": 5, "gender": 2, "muscle": 3, "weight": 3, "height": 2}
ANCHORS |= {"proportions": 2, "cupsize": 3, "firmness": 3}
E, D, M, DEPTH, INNER, HEADS, SIDE = 12, 16, 20, 2, 8, 2, 4
"""Widths of tokens, decoder and MLP, layers, attention's inner width and heads, tokens a side."""


def mlp_shapes(name: str, into: int, hidden: int, out: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.0.weight": (hidden, into),
        f"{name}.0.bias": (hidden,),
        f"{name}.2.weight": (out, hidden),
        f"{name}.2.bias": (out,),
    }


def layer_shapes(name: str, d: int, m: int, inner: int) -> dict[str, tuple[int, ...]]:
    """17 tensors."""
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.{i}.norm.{w}": (d,) for i in range(3) for w in ("weight", "bias")
    }
    return shapes | {
        f"{name}.0.fn.to_qkv.weight": (3 * inner, d),
        f"{name}.0.fn.to_out.0.weight": (d, inner),
        f"{name}.0.fn.to_out.0.bias": (d,),
        f"{name}.1.fn.to_q.weight": (inner, d),
        f"{name}.1.fn.to_kv.weight": (2 * inner, d),
        f"{name}.1.fn.to_out.0.weight": (d, inner),
        f"{name}.1.fn.to_out.0.bias": (d,),
        f"{name}.2.fn.net.0.weight": (m, d),
        f"{name}.2.fn.net.0.bias": (m,),
        f"{name}.2.fn.net.3.weight": (d, m),
        f"{name}.2.fn.net.3.bias": (d,),
    }


def head_shapes(
    e: int = E, d: int = D, m: int = M, depth: int = DEPTH, inner: int = INNER, side: int = SIDE
) -> dict[str, tuple[int, ...]]:
    """All tensors but the backbone's."""
    shapes = {
        **mlp_shapes("encoder.mlp_det", e, e, 1),
        **mlp_shapes("encoder.mlp_fov_unique", e, e, 1),
        "encoder.fov_max": (1,),
        "dec_pos_emb": (side * side, d),
        "dec_to_token.weight": (d, e),
        "dec_to_token.bias": (d,),
        **mlp_shapes("mlp_offset", d, d, 2),
        **mlp_shapes("mlp_pose", d + 6 * BONES, d, 6 * BONES),
        **mlp_shapes("mlp_shape", d, d, PHENOTYPES),
        **mlp_shapes("mlp_dist", d, d, 1),
        "init_body_pose": (1, 6 * BONES),
        "useful_rotmat": (1, BONES),
        "eye": (1, 3, 3),
        **{f"body_model.anchors.{name}": (count,) for name, count in ANCHORS.items()},
    }
    for i in range(depth):
        shapes |= layer_shapes(f"decoder.transformer.layers.{i}", d, m, inner)
    return shapes


def fixed_tensors(d: int = D, side: int = SIDE) -> dict[str, Tensor]:
    """Those that formulas give, written number by number."""
    table = torch.zeros(side * side, d, dtype=torch.float64)
    for r in range(side):
        for q in range(side):
            for k in range(d // 4):
                omega = 10000.0 ** (-k / (d / 4))
                phases = torch.tensor([q * omega, r * omega], dtype=torch.float64)
                for half in range(2):
                    table[r * side + q, half * d // 2 + k] = phases[half].sin()
                    table[r * side + q, half * d // 2 + d // 4 + k] = phases[half].cos()
    pose = [1.0, 0, 0, 0, 0, 1] + (BONES - 1) * [1.0, 0, 0, 1, 0, 0]
    anchors = {f"body_model.anchors.{n}": torch.linspace(0, 1, c) for n, c in ANCHORS.items()}
    anchors["body_model.anchors.age"] = torch.linspace(-1 / 3, 1, 5)
    return anchors | {
        "encoder.fov_max": torch.tensor([torch.pi]),
        "dec_pos_emb": table.float(),
        "init_body_pose": torch.tensor([pose]),
        "useful_rotmat": torch.tensor([[float(bone in KEPT) for bone in range(BONES)]]),
        "eye": torch.eye(3)[None],
    }


def released_state(seed: int = 0, **sizes: int) -> dict[str, Tensor]:
    """A small head: everybody is somebody else, and somebody stands a few metres away."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in sorted(head_shapes(**sizes).items()):
        state[name] = torch.randn(shape, generator=generator) * (
            0.3 if len(shape) == 1 else shape[-1] ** -0.5
        )
        if name.endswith("norm.weight"):
            state[name] += 1
    state["mlp_pose.2.weight"] *= 0.4
    state["mlp_dist.2.bias"] += 3.0
    state["encoder.mlp_det.2.weight"] *= 4
    return state | fixed_tensors(sizes.get("d", D), sizes.get("side", SIDE))


def options(**changes: Any) -> dict[str, Any]:
    values = {"img_size": SIDE * 14, "backbone": "dinov2_vitl14", "person_center": "head", "xat_heads": HEADS}
    return {**values, "simple_depth_encoding": 1, "num_betas": 11, **changes}


def save(path: Path, state: dict[str, Tensor] | None = None, args: dict[str, Any] | None = None) -> Path:
    """A whole file; the backbone, if any, is in the state."""
    content = {
        "epoch": 3,
        "args": argparse.Namespace(**(options() if args is None else args)),
        "model_state_dict": released_state() if state is None else state,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path
