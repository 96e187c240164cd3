"""A distillation small enough to run dozens of steps in a second: fake teachers, textured pictures.

As a program: python -m tests.distill.small FOLDER [--parallel] trains in FOLDER/…; see `main`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dune_bench.distill.batch import Tokens
from dune_bench.distill.recipe import DistillRecipe
from dune_bench.distill.train import Distilled, distill
from dune_bench.errors import TaskError
from dune_bench.registry.cards import parse_card
from tests.distill.pictures import png, textured

SIZE, PATCH = 28, 14


@dataclass(frozen=True)
class ToyTeacher:
    """A fixed random map of each patch's pixels; its class token is their mean.

    broken: brightness above which an image gives no finite tokens.  pause: seconds, to be killed in."""

    name: str
    width: int
    has_cls: bool = False
    home: str | None = None
    broken: float | None = None
    pause: float = 0.0

    def tokens(self, images: Tensor, student_patch: int) -> Tokens:
        time.sleep(self.pause)
        if self.broken is not None and bool((images.mean((1, 2, 3)) > self.broken).any()):
            raise TaskError(f"encoder {self.name}: non-finite features")
        patches = F.unfold(images, student_patch, stride=student_patch).transpose(1, 2)
        seed = sum(map(ord, self.name))
        weights = torch.randn(patches.shape[2], self.width, generator=torch.Generator().manual_seed(seed))
        patch = 3 + 2 * (patches - 0.5) @ weights
        return Tokens(patch, patch.mean(1) if self.has_cls else None)


def teachers(pause: float = 0.0) -> tuple[ToyTeacher, ...]:
    return (ToyTeacher("one", 6, True, "a", pause=pause), ToyTeacher("two", 9, False, "b"))


def pictures(folder: Path) -> Path:
    """Groups `a` of 5 and `b` of 7 images."""
    for group, count in (("a", 5), ("b", 7)):
        (folder / group).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = png(textured(100 * count + number, 36, 40))
            (folder / group / f"{number}.png").write_bytes(image)
    return folder


def content(**changes: Any) -> dict[str, Any]:
    """The recipe, as YAML would say it; sections in `changes` are merged."""
    raw: dict[str, Any] = {
        "id": "small",
        "seed": 3,
        "student": {
            "arch": {"width": 12, "depth": 2, "heads": 2, "registers": 1, "table": 2},
            "image_size": SIZE,
        },
        "teachers": [{"name": "one", "cls": True, "home": "a"}, {"name": "two", "home": "b"}],
        "data": {"groups": {g: {"sources": [{"kind": "folder", "path": g}]} for g in ("a", "b")}},
        "training": {
            "batch_size": 8,
            "steps": 5,
            "base_lr": 0.1,
            "dtype": "float32",
            "checkpoint_every": 2,
            "log_every": 1,
        },
    }
    for key, value in changes.items():
        merge = isinstance(value, dict) and isinstance(raw.get(key), dict)
        raw[key] = {**raw[key], **value} if merge else value
    return raw


def recipe(**changes: Any) -> DistillRecipe:
    return parse_card(content(**changes), DistillRecipe, "small")


def run(folder: Path, base: Path, pause: float = 0.0, **changes: Any) -> Distilled:
    return distill(recipe(**changes), folder, base=base, device="cpu", teachers=teachers(pause))


def felt(name: str, length: int) -> Tensor:
    """Which entries (along the first axis) of a parameter the loss can feel.

    A bias of all keys shifts each softmax as a whole and changes nothing: its gradient is rounding, which
    AdamW with DUNE's eps of 1e-15 makes into whole steps."""
    entries = torch.ones(length, dtype=torch.bool)
    if name.endswith("qkv.bias"):
        entries[length // 3 : 2 * length // 3] = False
    return entries


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The log without its timings."""
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


LONG = {"training": {**content()["training"], "steps": 40}, "ema": 0.9}


def main(folder: Path, parallel: bool) -> None:
    """FOLDER/pictures are there.  Trains FOLDER/run slowly; or, of several processes, FOLDER/clean and
    FOLDER/original."""
    torch.set_num_threads(1)
    if not parallel:
        run(folder / "run", folder / "pictures", pause=0.01, **LONG)
        return
    run(folder / "clean", folder / "pictures")
    run(folder / "original", folder / "pictures", preset="dune-cvpr25")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--parallel" in sys.argv)
