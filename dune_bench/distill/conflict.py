"""Do teachers pull the shared encoder in the same direction?  Cosines between their gradients."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from dune_bench.distill.batch import DistillBatch
from dune_bench.distill.objective import Objective
from dune_bench.distill.student import Student

FILE = "gradient-conflict.jsonl"


@dataclass(frozen=True)
class Conflict:
    """norms: of each teacher's gradient on the encoder.  cosines: by `A|B` for each pair of teachers.
    by_block: the same by part of the encoder (`embed`, `1`, `2`, …; blocks from 1).  0 where a gradient is
    0.  A negative cosine: a step for one teacher is a step against the other."""

    norms: Mapping[str, float]
    cosines: Mapping[str, float]
    by_block: Mapping[str, Mapping[str, float]]


def gradient_conflict(student: Student, objective: Objective, batch: DistillBatch) -> Conflict:
    """Of each teacher's mean loss on this batch, without dropping or weights, float32.

    Teachers' tokens are normalised by the moving statistics; nothing of the student changes.
    """
    student.teacher_norms.eval()
    try:
        with torch.enable_grad():
            losses = objective.image_losses(student, batch, None)
            gradients = {name: encoder_gradient(student, loss.mean()) for name, loss in losses.items()}
    finally:
        student.teacher_norms.train(student.training)
    blocks = sorted({block_of(name) for name in next(iter(gradients.values()))}, key=_block_order)
    return Conflict(
        {name: _product(gradient, gradient) ** 0.5 for name, gradient in gradients.items()},
        _cosines(gradients, None),
        {block: _cosines(gradients, block) for block in blocks},
    )


def encoder_gradient(student: Student, loss: Tensor) -> dict[str, Tensor]:
    """Gradient of a scalar on the encoder's trained parameters, by name, as if it were the only loss."""
    named = [(name, p) for name, p in student.encoder.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in named], retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named, found, strict=True)}


def block_of(name: str) -> str:
    """`1`, `2`, … for a parameter of a block, `embed` for what lies before them."""
    match = re.match(r"blocks\.(\d+)\.", name)
    return "embed" if match is None else str(int(match[1]) + 1)


def log_conflict(path: Path, step: int, conflict: Conflict) -> None:
    """Adds a line; lines of this step and later ones, of before a resume, go."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if json.loads(line)["step"] < step]
    text = "".join(f"{line}\n" for line in [*kept, json.dumps({"step": step, **asdict(conflict)})])
    partial = path.with_suffix(".part")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def _cosines(gradients: Mapping[str, Mapping[str, Tensor]], block: str | None) -> dict[str, float]:
    found = {}
    for one, other in combinations(gradients, 2):
        a, b = ({n: g for n, g in gradients[t].items() if block in (None, block_of(n))} for t in (one, other))
        lengths = (_product(a, a) * _product(b, b)) ** 0.5
        found[f"{one}|{other}"] = _product(a, b) / lengths if lengths else 0.0
    return found


def _product(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return float(sum((a[name].double() * b[name].double()).sum() for name in a))


def _block_order(block: str) -> int:
    return 0 if block == "embed" else int(block)
