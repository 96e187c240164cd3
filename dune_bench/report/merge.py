"""Results made elsewhere, taken into a report after checks.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dune_bench.errors import UnavailableError
from dune_bench.registry.lookup import Registry
from dune_bench.report.check import RECOMPUTED, Checker
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


def merge(runs: Path, also: Sequence[Path], registry: Registry, *, verify: bool = False) -> Merged:
    """The results below `runs` with those below each folder of `also`, in that order.

    A result is taken if its file is valid, its statistics are unchanged since the run, and they give the
    value that it states (of more than 1000 results that is recomputed with `verify` only); a foreign one
    if also the card of its task here declares the same protocol, its data are those that the results
    before it were made on, and no other result of the same identity is there already.  Else it is refused,
    with the reason.  Copies of a result that is there, `runs` itself among them, are counted in one note a
    folder.  Raises UnavailableError for a folder without results.
    """
    for folder in also:
        if not ResultStore(folder).root.is_dir():
            raise UnavailableError(f"--also {folder}: no results/ in it: name a runs folder")
    loaded = [ResultStore(folder).load() for folder in (runs, *also)]
    checker = Checker(registry, recompute=verify or sum(len(good) for good, _ in loaded) <= RECOMPUTED)
    own = checker.check(loaded[0][0], ResultStore(runs))
    found, refused = list(own.found), [*loaded[0][1], *own.refused]
    notes: list[str] = []
    data: Data = {}
    for _, result in found:
        _learn(data, result)
    if also and not data:
        notes.append(f"{runs} has no measured result: data fingerprints are held against the first of --also")
    taken = {r.key: (path.relative_to(runs).as_posix(), r) for path, r in found if r.status == "ok"}
    for folder, (good, bad) in zip(also, loaded[1:], strict=True):
        store, prefix, copies = ResultStore(folder), _shown(folder), 0
        refused += [Refused(entry.path, f"{prefix}/{entry.reason}") for entry in bad]
        for path, result in good:
            if result.key in taken and result == taken[result.key][1]:
                copies += 1
                continue
            name = f"{prefix}/{path.relative_to(folder).as_posix()}"
            reason = _reason(result, registry, data, taken) or checker.reason(path, result, store)
            if reason is not None:
                refused.append(Refused(path, f"{name}: {reason}"))
                continue
            found.append((path, result))
            _learn(data, result)
            if result.status == "ok":
                taken[result.key] = (name, result)
        if copies:
            word = "result is" if copies == 1 else "results are"
            notes.append(f"--also {prefix}: {copies} {word} here already, the same to the last digit")
    return Merged(tuple(found), tuple(refused), (*notes, *checker.notes()))


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
    result: Result, registry: Registry, data: Data, taken: Mapping[str, tuple[str, Result]]
) -> str | None:
    """Why a foreign result does not belong here, or None.  taken: those that are, by key, with their
    places as reports say them."""
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
    if result.key in taken:
        return f"the same identity is there already: {taken[result.key][0]}"
    return None
