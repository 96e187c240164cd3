"""Checks of body model files: every array there, of the right shape and finite, before anything is built.

A file is described by `Shapes`: key -> sizes, where a number is fixed and a letter is the same number
everywhere.  All errors are one line that names the file and the key.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dune_bench.errors import UnavailableError, UsageError

Array = NDArray[Any]
Shapes = Mapping[str, tuple[int | str, ...]]


def read_npz(path: Path, shapes: Shapes, hint: str) -> dict[str, Array]:
    """The named arrays of an `.npz`, checked; other entries of the file are never touched.

    Shapes and types are read from the arrays' headers before any data is; pickled (object) arrays are
    refused, never loaded.  Raises UnavailableError (no such file; `hint` says where to get it) and
    UsageError (no `.npz`, keys missing, shapes, non-finite values).
    """
    _require_file(path, hint)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {Path(n).stem for n in archive.namelist() if n.endswith(".npy")}
            _require_keys(path, names, shapes)
            check_shapes(path, {key: _header_shape(archive, path, key) for key in shapes}, shapes)
            arrays = {key: _member(archive, key) for key in shapes}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as an .npz file ({error}): get it again") from error
    _require_finite(path, arrays)
    return arrays


def _header_shape(archive: zipfile.ZipFile, path: Path, key: str) -> tuple[int, ...]:
    with archive.open(f"{key}.npy") as member:
        if np.lib.format.read_magic(member) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    if dtype.hasobject:
        raise UsageError(f"{path}: {key!r} is a pickled object, which is never loaded: save a plain array")
    if dtype.kind not in "fiu":
        raise UsageError(f"{path}: {key!r} holds {dtype}, not numbers")
    return tuple(shape)


def _member(archive: zipfile.ZipFile, key: str) -> Array:
    array: Array = np.load(io.BytesIO(archive.read(f"{key}.npy")), allow_pickle=False)
    return array


def read_safetensors(path: Path, shapes: Shapes, hint: str) -> tuple[dict[str, Array], dict[str, str]]:
    """The named arrays of a safetensors file and its metadata, checked like `read_npz`."""
    _require_file(path, hint)
    try:
        with safe_open(path, framework="numpy") as stored:
            _require_keys(path, set(stored.keys()), shapes)
            arrays = {key: stored.get_tensor(key) for key in shapes}
            metadata = stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} cannot be read as a safetensors file ({error}): get it again") from error
    check_shapes(path, {key: a.shape for key, a in arrays.items()}, shapes)
    _require_finite(path, arrays)
    return arrays, metadata


def check_shapes(path: Path, found: Mapping[str, tuple[int, ...]], shapes: Shapes) -> dict[str, int]:
    """The sizes that the letters stand for.  Raises UsageError naming the first key that disagrees."""
    sizes: dict[str, int] = {}
    for key, expected in shapes.items():
        shape = found[key]
        fits = len(shape) == len(expected)
        for got, want in zip(shape, expected, strict=False):
            fits &= got == (want if isinstance(want, int) else sizes.setdefault(want, got))
        if not fits:
            wanted = ", ".join(str(sizes.get(w, w)) if isinstance(w, str) else str(w) for w in expected)
            raise UsageError(f"{path}: {key!r} has shape {shape}, not ({wanted}): not a file of this model")
    return sizes


def check_indices(path: Path, key: str, indices: Array, size: int) -> None:
    """Raises UsageError unless all indices are whole numbers in [0, size)."""
    if indices.dtype.kind not in "iu":
        raise UsageError(f"{path}: {key!r} holds {indices.dtype}, not whole numbers")
    if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= size):
        raise UsageError(f"{path}: {key!r} points outside 0 … {size - 1}: the file is damaged")


def _require_file(path: Path, hint: str) -> None:
    if not path.is_file():
        raise UnavailableError(f"no body model file {path}: {hint}")


def _require_keys(path: Path, names: set[str], shapes: Shapes) -> None:
    if missing := [key for key in shapes if key not in names]:
        raise UsageError(f"{path} has no {', '.join(missing)}: not a file of this model")


def _require_finite(path: Path, arrays: Mapping[str, Array]) -> None:
    for key, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UsageError(f"{path}: {key!r} holds NaN or infinite values: the file is damaged")


def read_names(path: Path, metadata: Mapping[str, str], form: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Bones, and grid values per phenotype, from the metadata of a file of anny's.

    form: the format that it must state.  Raises UsageError for another one, or none.
    """
    try:
        facts = json.loads(metadata.get("body", ""))
        found = facts["format"]
        if found == form:
            return tuple(facts["bones"]), tuple(facts["anchors"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{path} does not say what it holds: not a {form!r} file") from error
    raise UsageError(f"{path} has format {found!r}, not {form!r}: get it again")
