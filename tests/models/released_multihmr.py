"""Multi-HMR files by rule: the tensor lists of the released heads, with the golden values' weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tests.encoders.released import rule_tensor

GOLDEN = Path(__file__).parents[1] / "golden"
LISTS = ("672_S", "672_L", "896_L")


def listed_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released head."""
    lines = (GOLDEN / "checkpoint_keys" / f"multihmr_{name}_head.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {name: tuple(int(n) for n in shape.split("x")) for name, shape in rows}


def golden_state() -> dict[str, Tensor]:
    """The 672_S head as the golden values saw it: at 224 px its position tables have 16 rows."""
    shapes = listed_shapes("672_S")
    return {
        name: rule_tensor(name, (16, shape[1]) if ".cross_" in name else shape)
        for name, shape in shapes.items()
    }


def empty_state(name: str) -> dict[str, Tensor]:
    """Shapes alone, on the meta device."""
    return {key: torch.empty(shape, device="meta") for key, shape in listed_shapes(name).items()}
