"""Checkpoints: safetensors and JSON, complete or absent, checked by SHA-256; nothing is pickled.

step-000100/model.safetensors       trainable parameters and buffers
            optimizer.safetensors   moments, by parameter name
            state.json              step, what the run is, the files' hashes
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dune_bench.errors import TaskError

logger = logging.getLogger(__name__)

FORMAT = 1
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """Everything a training needs to go on.  step: steps taken.  run: what the training is (JSON);
    notes: facts for a reader."""

    step: int
    run: Mapping[str, Any]
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    notes: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint, prefix: str = "step") -> Path:
    """Writes `folder/prefix-000100`, replacing one of that name.  Raises TaskError if it cannot."""
    target = folder / f"{prefix}-{checkpoint.step:06d}"
    unfinished = folder / f".{target.name}.unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for name, tensors in ((MODEL, checkpoint.model), (OPTIMIZER, checkpoint.optimizer)):
            save_file({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, unfinished / name)
        state = {
            "format": FORMAT,
            "step": checkpoint.step,
            "run": checkpoint.run,
            "notes": checkpoint.notes,
            "sha256": {name: _sha256(unfinished / name) for name in (MODEL, OPTIMIZER)},
        }
        (unfinished / STATE).write_text(json.dumps(state, indent=1, ensure_ascii=False) + "\n", "utf-8")
        for path in (*unfinished.iterdir(), unfinished):
            _to_disk(path)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
        _to_disk(folder)
    except (OSError, SafetensorError) as error:
        raise TaskError(f"cannot write the checkpoint {target}: {error}: free space and run again") from error
    return target


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is passed over with a warning."""
    for path in reversed(_found(folder)):
        try:
            return _load(path)
        except _DamagedError as error:
            logger.warning("%s is damaged (%s): using the checkpoint before it", path, error)
    return None


def keep_newest(folder: Path, count: int) -> None:
    """Removes the older checkpoints and what an interrupted writer left."""
    for path in (*_found(folder)[:-count], *folder.glob(".*.unfinished")):
        shutil.rmtree(path)


def _found(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    steps = {path: _NAME.fullmatch(path.name) for path in folder.glob("step-*")}
    return sorted((path for path, match in steps.items() if match), key=lambda path: int(path.name[5:]))


class _DamagedError(Exception):
    """Not what was written; the text says how one sees it."""


def _load(path: Path) -> Checkpoint:
    try:
        state = json.loads((path / STATE).read_text("utf-8"))
        if state["format"] != FORMAT:
            raise TaskError(f"{path} has format {state['format']}, this version reads {FORMAT}")
        for name, expected in state["sha256"].items():
            if _sha256(path / name) != expected:
                raise _DamagedError(f"{name} does not match its SHA-256")
        model, optimizer = load_file(path / MODEL), load_file(path / OPTIMIZER)
        return Checkpoint(state["step"], state["run"], model, optimizer, state["notes"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _DamagedError(f"{type(error).__name__}: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
