"""A baseline: the results that a new checkpoint is held against, as a small file to commit.

`NAME.json` holds the results, without what a gate does not read, and the name and sha256 of
`NAME.<digest>.npz` beside it, which holds the per-sample statistics (`0/confusion`: of the first
result).  The arrays' file is named after its content and written first, so the JSON always names
arrays that are there: a crash leaves the old baseline or the new one.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.results.schema import EncoderInfo, Result, parse_result
from dune_bench.results.store import pack_arrays, write_atomic

FORMAT = 1
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Baseline:
    """What a gate compares with.

    written: UTC, ISO 8601.  commit: of the dune-bench checkout that made the results, None outside of
    one; dirty: whether any of them came from a checkout with uncommitted changes.
    results, arrays: in the same order, by task id.
    """

    written: str
    commit: str | None
    dirty: bool | None
    results: tuple[Result, ...]
    arrays: tuple[Arrays, ...]

    @property
    def encoder(self) -> EncoderInfo:
        return self.results[0].encoder

    @property
    def label(self) -> str:
        return self.results[0].label


def make_baseline(found: Sequence[tuple[Result, Arrays]], now: datetime | None = None) -> Baseline:
    """A baseline of results of one encoder.  Raises UsageError if there are none."""
    if not found:
        raise UsageError("a baseline needs at least one result")
    ordered = sorted(found, key=lambda item: (item[0].task.id, item[0].key))
    newest = max((result.provenance for result, _ in ordered), key=lambda made: made.started)
    dirty = {result.provenance.dirty for result, _ in ordered}
    return Baseline(
        written=(now or datetime.now(UTC)).isoformat(timespec="seconds"),
        commit=newest.commit,
        dirty=True if True in dirty else newest.dirty,
        results=tuple(_essential(result) for result, _ in ordered),
        arrays=tuple(arrays for _, arrays in ordered),
    )


def _essential(result: Result) -> Result:
    """The result without what no gate reads."""
    return result.model_copy(
        update={
            "metrics": tuple(metric for metric in result.metrics if metric.primary),
            "breakdowns": (),
            "choices": {},
            "timings": type(result.timings)(),
            "cost": type(result.cost)(),
            "samples": None,
        }
    )


def write_baseline(path: Path, baseline: Baseline) -> tuple[Path, Path]:
    """Writes the two files and gives their paths; the arrays' file that the old JSON named goes last.

    Raises TaskError if a file cannot be written, UsageError for a name that does not end in .json;
    the old baseline is then as it was.
    """
    if path.suffix != ".json":
        raise UsageError(f"--baseline {path}: a baseline's name ends in .json")
    before = _named_arrays(path)
    packed = pack_arrays(
        {f"{i}/{name}": values for i, arrays in enumerate(baseline.arrays) for name, values in arrays.items()}
    )
    sha256 = hashlib.sha256(packed).hexdigest()
    beside = path.with_name(f"{path.stem}.{sha256[:12]}.npz")
    content = {
        "baseline": FORMAT,
        "written": baseline.written,
        "commit": baseline.commit,
        "dirty": baseline.dirty,
        "arrays": {"file": beside.name, "sha256": sha256},
        "results": [result.model_dump(mode="json", by_alias=True) for result in baseline.results],
    }
    content["sha256"] = _digest(content)
    write_atomic(beside, packed)
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
    if before is not None and before != beside:
        before.unlink(missing_ok=True)
    return path, beside


def read_baseline(path: Path) -> Baseline:
    """A baseline as it was written.

    Raises UnavailableError, naming the file and what to do, if it is missing, damaged, edited, or from
    a newer version: nothing can be compared with it.
    """
    if not path.is_file():
        raise UnavailableError(f"{path}: no such baseline: write it with --update")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UnavailableError(f"{path}: not readable as JSON: {error}: {_RESTORE}") from error
    _check_frame(path, raw)
    packed = _read_arrays(path, raw["arrays"])
    try:
        results = tuple(
            parse_result(entry, f"{path}: result {i + 1}") for i, entry in enumerate(raw["results"])
        )
    except TaskError as error:
        raise UnavailableError(str(error)) from error
    if not results:
        raise UnavailableError(f"{path}: a baseline without results: {_RESTORE}")
    arrays = tuple(_own(packed, i) for i in range(len(results)))
    return Baseline(raw["written"], raw["commit"], raw["dirty"], results, arrays)


_RESTORE = "restore it, or delete it and write it anew with --update"


def _check_frame(path: Path, raw: Any) -> None:
    version = raw.get("baseline") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise UnavailableError(f"{path}: not a baseline of dune-bench (no integer `baseline`)")
    if version > FORMAT:
        raise UnavailableError(f"{path}: baseline format {version} is newer than this dune-bench ({FORMAT})")
    # Also the proof that every field is there.
    if raw.get("sha256") != _digest({key: value for key, value in raw.items() if key != "sha256"}):
        raise UnavailableError(f"{path}: edited after it was written (sha256 differs): {_RESTORE}")


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _read_arrays(path: Path, named: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    file = path.parent / Path(named["file"]).name
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UnavailableError(
            f"{file}: cannot read the baseline's statistics: {error.strerror}: {_RESTORE}"
        ) from error
    if hashlib.sha256(data).hexdigest() != named["sha256"]:
        raise UnavailableError(f"{file}: changed after it was written (sha256 differs): {_RESTORE}")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise UnavailableError(f"{file}: not an archive of arrays: {error}: {_RESTORE}") from error


def _own(packed: Arrays, index: int) -> dict[str, NDArray[Any]]:
    prefix = f"{index}/"
    return {name.removeprefix(prefix): v for name, v in packed.items() if name.startswith(prefix)}


def _named_arrays(path: Path) -> Path | None:
    """The arrays' file of the baseline that is there now, if it is one of ours."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        name = Path(raw["arrays"]["file"]).name
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError, KeyError, TypeError):
        return None
    ours = name.startswith(f"{path.stem}.") and name.endswith(".npz")
    return path.parent / name if ours else None
