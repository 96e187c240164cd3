"""Results made elsewhere, taken into a report after checks.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.lookup import Registry
from dune_bench.report.select import Found
from dune_bench.results.schema import Result
from dune_bench.results.store import Refused, ResultStore

Data = dict[tuple[str, str], str]
"""(dataset and split, limit) -> fingerprint."""


@dataclass(frozen=True)
class Merged:
    """Own results and the accepted ones of others.  notes: what could not be checked."""

    found: tuple[Found, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]


def merge(runs: Path, also: Sequence[Path], registry: Registry) -> Merged:
    """The results below `runs` with those below each folder of `also`, in that order.

    A foreign result is taken if its file is valid, its statistics are unchanged since the run, the card of
    its task here declares the same protocol, its data are those that the results before it were made on,
    and no result of the same identity is there already.  Else it is refused, with the reason.
    Raises UsageError for a folder without results.
    """
    found, refused = ResultStore(runs).load()
    notes: list[str] = []
    data: Data = {}
    for _, result in found:
        _learn(data, result)
    if also and not data:
        notes.append(f"{runs} has no measured result: data fingerprints are held against the first of --also")
    keys = {r.key: path.relative_to(runs).as_posix() for path, r in found if r.status == "ok"}
    for folder in also:
        store = ResultStore(folder)
        if not store.root.is_dir():
            raise UsageError(f"--also {folder}: no results/ in it: name a runs folder")
        good, bad = store.load()
        prefix = _shown(folder)
        refused += [Refused(entry.path, f"{prefix}/{entry.reason}") for entry in bad]
        for path, result in good:
            name = f"{prefix}/{path.relative_to(folder).as_posix()}"
            reason = _reason(path, result, store, registry, data, keys)
            if reason is not None:
                refused.append(Refused(path, f"{name}: {reason}"))
                continue
            found.append((path, result))
            _learn(data, result)
            if result.status == "ok":
                keys[result.key] = name
    return Merged(tuple(found), tuple(refused), tuple(notes))


def _shown(folder: Path) -> str:
    """A folder as the user gave it, without the machine's folders above it."""
    return f"…/{folder.name}" if folder.is_absolute() else folder.as_posix()


def _learn(data: Data, result: Result) -> None:
    if result.status == "ok":
        for name, fingerprint in _data(result).items():
            data.setdefault(name, fingerprint)


def _data(result: Result) -> Data:
    """The task is part of the name, as one dataset's splits are of other samples for other tasks."""
    task = result.task
    return {
        (f"{task.id} {split}", str(task.limited)): found for split, found in task.dataset_fingerprints.items()
    }


def _reason(
    path: Path, result: Result, store: ResultStore, registry: Registry, data: Data, keys: dict[str, str]
) -> str | None:
    """Why a foreign result is not taken, or None.  keys: result key -> where it is, as reports say it."""
    if result.task.id not in registry.tasks:
        return f"no card of task {result.task.id} here: name its folder with --include"
    if result.status != "ok":
        return None
    expected = registry.task(result.task.id).protocol_fingerprint()
    if result.task.protocol_fingerprint != expected:
        theirs = result.task.protocol_fingerprint[:7]
        return f"other protocol under the same name: fingerprint {theirs}, the card here has {expected[:7]}"
    if not result.task.dataset_fingerprints:
        return "does not say which data it was made on"
    for name, fingerprint in _data(result).items():
        known = data.get(name, fingerprint)
        if known != fingerprint:
            return f"other data: {name[0]} is {fingerprint[:7]}, results before it have {known[:7]}"
    if result.key in keys:
        return f"the same identity is there already: {keys[result.key]}"
    try:
        store.arrays(path, result)
    except TaskError as error:
        return str(error).replace(f"{path.parent}/", "")
    return None
