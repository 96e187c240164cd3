"""Tensors out of a file, safely: nothing stored in a checkpoint is ever executed.

A checkpoint is refused in one line that says what is wrong with it: truncated, code inside, another
architecture.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dune_bench.errors import TaskError

State = dict[str, Tensor]

ALLOWED_GLOBALS = (argparse.Namespace,)
"""The only classes beside tensors and plain containers that a file may hold (DUNE's `args`)."""

_UNREADABLE = (
    *(RuntimeError, EOFError, zipfile.BadZipFile, ValueError, OSError),
    # What the unpickler trips over depends on the first bytes of whatever the file is.
    *(LookupError, TypeError, AttributeError, AssertionError),
)
_WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")
_NESTS = ("model", "state_dict", "model_state_dict", "teacher", "student")


def read_checkpoint(path: Path) -> State:
    """The tensors of a `.safetensors` file or of a torch file, by their names.

    Torch files: loaded with `weights_only=True`; the allow-list is `ALLOWED_GLOBALS`.  A state dict
    nested under `model` or `state_dict` is taken out, prefixes `module.` and `_orig_mod.` are
    stripped.  Raises TaskError if the file is damaged, holds code, or holds no tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise TaskError(
                f"{path}: not a readable safetensors file ({_line(error)}): get it again"
            ) from error
    return plain_state(load_torch(path), path)


def read_with_args(path: Path) -> tuple[State, dict[str, Any]]:
    """The tensors as `read_checkpoint`, and by name the options that the file keeps under `args`.

    No options: `.safetensors` files, and torch files without them.  Raises what `read_checkpoint` raises,
    and TaskError if `args` is neither a Namespace nor a dictionary.
    """
    if path.suffix == ".safetensors":
        return read_checkpoint(path), {}
    content = load_torch(path)
    args = content.get("args") if isinstance(content, Mapping) else None
    if args is not None and not isinstance(args, argparse.Namespace | Mapping):
        raise TaskError(f"{path}: its args are of type {type(args).__name__}: another program's file")
    options = vars(args) if isinstance(args, argparse.Namespace) else args or {}
    return plain_state(content, path), dict(options)


def load_torch(path: Path) -> object:
    """The whole content of a torch file: tensors, plain containers and values, `ALLOWED_GLOBALS`.

    Raises TaskError if the file is damaged or holds anything else; nothing of it is executed.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(ALLOWED_GLOBALS)):
            # About unusual pickle protocols; whether the file is read says enough.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise TaskError(
                f"{path}: refused, it holds objects other than tensors ({named[1]}); "
                "nothing of it was executed: get it again from a source you trust"
            ) from error
        reason = str(error).rpartition("WeightsUnpickler error: ")[2] or "bad pickle"
        raise TaskError(
            f"{path}: truncated or no torch checkpoint ({_line(reason)}): get it again"
        ) from error
    except _UNREADABLE as error:
        raise TaskError(
            f"{path}: truncated or not a torch checkpoint ({_line(error)}): get it again"
        ) from error


def plain_state(content: object, path: Path) -> State:
    """The tensors in what `load_torch` gave, as `read_checkpoint`.  Raises TaskError if there are none."""
    for key in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {
        _WRAPPERS.sub("", name): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise TaskError(f"{path}: no tensors in it: a checkpoint is a state dict, or holds one under 'model'")
    return tensors


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copies a state dict into a module, strictly.  Raises TaskError listing the first differences."""
    own = module.state_dict()
    problems = []
    if missing := sorted(own.keys() - state.keys()):
        problems.append(f"missing {_first(missing)}")
    if unexpected := sorted(state.keys() - own.keys()):
        problems.append(f"unexpected {_first(unexpected)}")
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    if shapes:
        problems.append(f"shape of {_first(shapes)}")
    if problems:
        raise TaskError(f"{where}: another architecture than the card's: {'; '.join(problems)}")
    module.load_state_dict(dict(state), strict=True)


def tensor_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over (name, dtype, shape, bytes) of all tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _line(error: BaseException | str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "…"
