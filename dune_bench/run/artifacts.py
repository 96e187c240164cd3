"""Fitted heads on disk: content-addressed, atomic, checked against their hash when read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from dune_bench.errors import TaskError
from dune_bench.probes.base import Head
from dune_bench.results.store import write_atomic

LAYOUT = 1


class HeadStore:
    """Heads below one folder: `<key>.safetensors`, then `<key>.json` with its hash and the choices.

    warn: told, in one line, of a damaged head, which counts as absent.
    """

    def __init__(self, root: Path, warn: Callable[[str], None]) -> None:
        self.root = root
        self._warn = warn

    def write(self, key: str, head: Head, about: dict[str, Any]) -> None:
        """about: JSON-able facts for readers (task, encoder, seed); not part of the identity.
        Raises TaskError if the disk is full or a choice is not JSON-able."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.tensors.items()}
        data = save(tensors)
        facts = {
            "layout": LAYOUT,
            "key": key,
            "sha256": hashlib.sha256(data).hexdigest(),
            "choices": head.choices,
            "about": about,
        }
        try:
            text = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise TaskError(f"head of {about}: its choices cannot be stored as JSON: {error}") from error
        write_atomic(self._path(key, ".safetensors"), data)
        write_atomic(self._path(key, ".json"), text.encode() + b"\n")

    def find(self, key: str) -> Head | None:
        """The head of exactly this identity, or None."""
        path = self._path(key, ".json")
        if not path.is_file():
            return None
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            data = self._path(key, ".safetensors").read_bytes()
            sound = facts["layout"] == LAYOUT and facts["key"] == key
            if not sound or hashlib.sha256(data).hexdigest() != facts["sha256"]:
                raise ValueError("its hash does not match")
            return Head(load(data), dict(facts["choices"]))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            self._warn(f"{path}: damaged head ({error}): fitting it again")
            return None

    def _path(self, key: str, suffix: str) -> Path:
        return self.root / key[:2] / f"{key}{suffix}"
