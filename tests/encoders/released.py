"""Checkpoints in the layout of the released files, with the golden values' weights by rule."""

from __future__ import annotations

import argparse
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


def rule_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight that the golden values were computed with: it follows from name and shape."""
    t = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    last = name.rpartition(".")[2]
    if name.endswith(("pos_embed", "cls_token", "register_tokens", "mask_token")):
        return 0.5 * t
    if last == "std":
        return 1 + 0.1 * t.abs()
    if t.ndim >= 2:
        return t / math.sqrt(math.prod(shape[1:]))
    return 1 + 0.1 * t if last in ("weight", "gamma") else 0.1 * t


def listed_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a released DUNE file.  size: small or base."""
    lines = (GOLDEN / f"dune_vit_{size}_14_448.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {name: tuple(int(n) for n in shape.split("x")) for name, shape in rows}


def rule_state(size: str) -> dict[str, Tensor]:
    return {name: rule_tensor(name, shape) for name, shape in listed_shapes(size).items()}


def save_released(path: Path, state: dict[str, Tensor], prefix: str = "module._orig_mod.") -> Path:
    """Writes a state as a training checkpoint: nested, prefixed, with optimiser, counter, Namespace."""
    args = argparse.Namespace(image_size=448, enc_args={"arch": "vit"}, proj_args={}, teachers=["dino2reg"])
    model = {prefix + name: tensor for name, tensor in state.items()}
    torch.save(
        {"model": model, "optimizer": {"state": {}, "param_groups": []}, "iter": 7, "args": args}, path
    )
    return path


def golden_image(seed: int, size: tuple[int, int]) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(seed))


def golden_values(size: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"dune_vit{size}14_448.npz") as archive:
        return dict(archive)
