"""A folder of `smplx-people@1` with tiny pictures and made-up bodies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (56, 70)
K = [[60.0, 0.0, 35.0], [0.0, 60.0, 28.0], [0.0, 0.0, 1.0]]


def person(rng: np.random.Generator, **changes: Any) -> dict[str, Any]:
    """Somebody upright in the camera frame, slightly bent, three to four metres away."""

    def small(*shape: int, scale: float = 0.1) -> Any:
        return (scale * rng.standard_normal(shape)).tolist()

    place = {
        # Half a turn about x: the body's y is up, the camera's is down.  Then z is the heading.
        "global_orient": [np.pi + rng.normal(0, 0.1), rng.normal(0, 0.1), rng.normal(0, 0.5)],
        "transl": [rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.2), rng.uniform(3.0, 4.0)],
    }
    hands = {f"{side}_hand_pose": small(15, 3) for side in ("left", "right")}
    return place | {
        "body_pose": small(21, 3),
        "jaw_pose": small(3),
        "betas": small(10, scale=1.0),
        "expression": small(10, scale=1.0),
        **hands,
        **changes,
    }


def write_people(root: Path, images: dict[str, int], seed: int = 0, per_image: int = 1) -> Path:
    """images: split -> how many, in groups of two."""
    rng = np.random.default_rng(seed)
    for split, count in images.items():
        (root / split / "images").mkdir(parents=True)
        lines = []
        for i in range(count):
            name = f"images/{i:03d}.png"
            pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / name)
            people = [person(rng) for _ in range(per_image)]
            lines.append({"image": name, "group": f"{split}_{i // 2}", "K": K, "people": people})
        write_lines(root / split, lines)
    return root


def write_lines(folder: Path, lines: list[Any]) -> None:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "annotations.jsonl").write_text(text, encoding="utf-8")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "annotations.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
