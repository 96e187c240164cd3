"""Result files on disk: atomic, content-checked, readable by anyone.

Layout of a runs folder: `results/<encoder>/<task>.<key>.json` with `.npz` beside it, the names made
safe for every file system; `<key>` is the first 12 digits of the result key, so that results of
other weights, data, protocols or limits live side by side.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.results.schema import Result, SampleStats, parse_result

Arrays = Mapping[str, NDArray[Any]]


def write_atomic(path: Path, data: bytes) -> None:
    """Writes a file that is either complete or absent, whatever happens.

    Raises TaskError naming the file if the disk is full or the place is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    except OSError as error:
        raise TaskError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = ": free space and run again" if full else ""
        raise TaskError(f"cannot write {path}: {error.strerror}{advice}") from error


def safe_name(name: str) -> str:
    """A file name for any id: readable, without separators, never hidden.

    `/` becomes `--` and `:` becomes `-`; if anything else had to change, a digest keeps two ids apart.
    (Ids that differ in `/`, `:` and `-` alone share a folder; the key in the file's name parts them.)
    """
    plain = name.replace("/", "--").replace(":", "-")
    safe = re.sub(r"[^A-Za-z0-9._@+-]", "-", plain).lstrip(".")
    if safe != plain or len(safe) > 120 or not safe:
        safe = f"{safe[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return safe


def weights_folder(label: str, digest: str | None) -> str:
    """Folder of the pictures of one of several checkpoints that share a label."""
    return safe_name(label) + ("" if digest is None else f"@{digest[:7]}")


def pack_arrays(arrays: Arrays) -> bytes:
    """An `.npz` whose bytes depend on the content only (fixed order and timestamps, no pickle)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(arrays[name]), allow_pickle=False)
            archive.writestr(entry, content.getvalue())
    return buffer.getvalue()


@dataclass(frozen=True)
class Refused:
    """A result file that could not be used, and why."""

    path: Path
    reason: str


class ResultStore:
    """The results below one runs folder."""

    def __init__(self, runs: Path) -> None:
        self.root = Path(runs) / "results"

    def path(self, encoder: str, task: str, key: str) -> Path:
        return self.root / safe_name(encoder) / f"{safe_name(task)}.{key[:12]}.json"

    def write(self, result: Result, arrays: Arrays | None = None) -> Path:
        """Writes the statistics, then the JSON that names their hash.  Raises TaskError."""
        path = self.path(result.encoder.id, result.task.id, result.key)
        if (arrays is None) != (result.status != "ok"):
            raise TaskError(f"{path}: per-sample statistics belong to results with status ok, and to all")
        if arrays is not None:
            data = pack_arrays(arrays)
            rows = {len(array) for array in arrays.values()}
            if len(rows) != 1:
                raise TaskError(f"{path}: per-sample statistics of different lengths: {sorted(rows)}")
            stats = path.with_suffix(".npz")
            sha256 = hashlib.sha256(data).hexdigest()
            write_atomic(stats, data)
            result = result.model_copy(
                update={"samples": SampleStats(file=stats.name, sha256=sha256, rows=rows.pop())}
            )
        text = json.dumps(result.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
        write_atomic(path, text.encode() + b"\n")
        return path

    def find(self, encoder: str, task: str, key: str) -> Result | None:
        """The finished result of exactly this identity, or None.  A damaged file counts as absent:
        the run makes it anew."""
        path = self.path(encoder, task, key)
        if not path.is_file():
            return None
        try:
            result = self.read(path)
            if result.samples is not None:
                self.arrays(path, result)
        except TaskError:
            return None
        return result if result.key == key else None

    def read(self, path: Path) -> Result:
        """One result file.  Raises TaskError naming it."""
        text = ""
        try:
            text = path.read_text(encoding="utf-8")
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
            what = "it is cut short" if cut else f"line {error.lineno}, column {error.colno}: {error.msg}"
            raise TaskError(f"{path}: not readable as JSON: {what}") from error
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise TaskError(f"{path}: not readable as JSON: {error}") from error
        return parse_result(raw, str(path))

    def arrays(self, path: Path, result: Result) -> dict[str, NDArray[Any]]:
        """The per-sample statistics of a result, checked against their hash.  Raises TaskError."""
        with np.load(io.BytesIO(self._packed(path, result)), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def check_arrays(self, path: Path, result: Result) -> None:
        """Raises TaskError if the statistics are missing or not those of the run; does not unpack them."""
        self._packed(path, result)

    def _packed(self, path: Path, result: Result) -> bytes:
        if result.samples is None:
            raise TaskError(f"{path}: has no per-sample statistics (status {result.status})")
        file = path.parent / Path(result.samples.file).name
        try:
            data = file.read_bytes()
        except OSError as error:
            raise TaskError(f"{file}: cannot read the per-sample statistics: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != result.samples.sha256:
            raise TaskError(f"{file}: changed after the run (sha256 differs from {path.name}): run again")
        return data

    def files(self) -> Iterator[Path]:
        yield from sorted(self.root.glob("*/*.json"))

    def load(self) -> tuple[list[tuple[Path, Result]], list[Refused]]:
        """Every result below the folder, and the files refused with their reasons, which name them by their
        paths in the runs folder: reports go to other people."""
        good: list[tuple[Path, Result]] = []
        refused: list[Refused] = []
        for path in self.files():
            try:
                good.append((path, self.read(path)))
            except TaskError as error:
                inside = path.relative_to(self.root.parent).as_posix()
                refused.append(Refused(path, str(error).replace(str(path), inside)))
        return good, refused
