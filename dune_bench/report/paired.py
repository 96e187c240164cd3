"""`compare` and `gate` on a runs folder: reads results, pairs them, computes nothing else.  No torch."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.registry.lookup import Registry
from dune_bench.report.format import column_name
from dune_bench.report.select import Checkpoint, Found, choose
from dune_bench.results.baseline import Baseline, make_baseline, read_baseline, write_baseline
from dune_bench.results.compare import WORST, Compared, Comparison, LeftOut, adjusted, compare_task
from dune_bench.results.gate import Check, Gate, check_task, not_comparable, notices
from dune_bench.results.measured import (
    Arrays,
    Measured,
    NotComparableError,
    OfWeights,
    Reduce,
    Reducer,
    measure,
    mismatch,
)
from dune_bench.results.schema import Result, TaskInfo
from dune_bench.results.store import Refused, ResultStore


def reducer_of(registry: Registry) -> Reducer:
    """The reductions of a registry's probes, with the constants of its task cards."""

    def of(result: Result) -> Reduce:
        if result.task.id not in registry.tasks:
            raise UnavailableError(
                f"no card of task {result.task.id} here: name its folder with --include, as in the run"
            )
        constants = registry.task(result.task.id).protocol
        reduction = registry.reduction(result.task.probe)

        def reduce(stats: Arrays, metric: str) -> OfWeights:
            prepared: OfWeights = reduction(stats, constants, metric)
            return prepared

        return reduce

    return of


class _Folder:
    """The results of a runs folder, measured when asked for."""

    def __init__(self, runs: Path, registry: Registry) -> None:
        self.runs, self.store = runs, ResultStore(runs)
        self.found, self.refused = self.store.load()
        self.reducer = reducer_of(registry)

    def choose(self, name: str) -> Checkpoint:
        return choose(self.found, name, self.runs, self.refused)

    def checkpoints(self, id: str) -> list[str]:
        """`NAME@DIGEST` of every checkpoint of an encoder that has a good result."""
        own = [r.encoder for _, r in self.found if r.encoder.id == id and r.status == "ok"]
        return sorted({f"{id}@{(encoder.digest or 'none')[:7]}" for encoder in own})

    def measured(self, item: Found) -> Measured:
        """Raises NotComparableError, also if the statistics are missing, damaged or edited."""
        arrays = self.arrays(item)
        try:
            return measure(item[1], arrays, self.reducer)
        except NotComparableError as error:
            raise NotComparableError(f"{item[1].label}: {error}") from error

    def arrays(self, item: Found) -> Arrays:
        path, result = item
        try:
            return self.store.arrays(path, result)
        except TaskError as error:
            raise NotComparableError(str(error)) from error


def compare_runs(
    first: str, second: str, runs: Path, registry: Registry, tasks: Sequence[str] = (), worst: int = WORST
) -> Comparison:
    """Second against first on every task that both have, or on those that `tasks` select.

    Raises UnavailableError if there is none, with the reasons; UsageError for a wrong name, also of tasks.
    """
    folder = _Folder(runs, registry)
    a, b = folder.choose(first), folder.choose(second)
    known = {result.task.id: result.task for result in (*a.all, *b.all)}
    if not any(selected(task, tasks) for task in known.values()):
        raise UsageError(f"--tasks {','.join(tasks)}: neither has any of them, there are {', '.join(known)}")
    if a.results and [path for path, _ in a.results] == [path for path, _ in b.results]:
        raise UsageError(
            f"{first} and {second} are the same results: tell checkpoints apart by NAME@DIGEST, there are "
            f"{', '.join(folder.checkpoints(a.encoder.id))}"
        )
    compared, left_out = [], _left_out(a, b, folder.refused, tasks)
    for item in a.results:
        task = item[1].task
        if not selected(task, tasks):
            continue
        try:
            partner = _partner(item[1], b)
            compared.append(compare_task(folder.measured(item), folder.measured(partner), worst))
        except NotComparableError as error:
            left_out.append(LeftOut(column_name(task), str(error)))
    if not compared:
        reasons = "; ".join(f"{entry.task}: {entry.reason}" for entry in left_out)
        raise UnavailableError(
            f"{first} and {second} have no task to compare{': ' if reasons else ''}{reasons}"
        )
    return Comparison(
        Compared(a.label, a.encoder),
        Compared(b.label, b.encoder),
        adjusted(sorted(compared, key=lambda task: column_name(task.task))),
        tuple(left_out),
        (*a.notes, *b.notes),
    )


def selected(task: TaskInfo, patterns: Sequence[str]) -> bool:
    """Whether a task is meant by ids, globs or probe names; by `all`, and by nothing, every one is."""
    if not patterns or "all" in patterns:
        return True
    return any(word == task.probe or fnmatch.fnmatchcase(task.id, word) for word in patterns)


def _partner(result: Result, other: Checkpoint) -> Found:
    """The other's result of the same column.  Raises NotComparableError with the nearest miss."""
    if result.primary is None:
        raise NotComparableError(f"{result.label}: the result has no primary metric")
    nearest = None
    for item in other.results:
        reason = mismatch(result, item[1])
        if reason is None:
            return item
        if item[1].task.id == result.task.id:
            nearest = reason
    for lost, reason in other.gone:
        if lost.task.id == result.task.id and nearest is None:
            nearest = reason
    raise NotComparableError(f"{other.label}: {nearest or 'not measured'}")


def _left_out(
    a: Checkpoint, b: Checkpoint, refused: Sequence[Refused], tasks: Sequence[str]
) -> list[LeftOut]:
    """What one has and the other has not, failed attempts, and files that cannot be read."""
    found = []
    for entry in refused:
        file, _, reason = entry.reason.partition(": ")
        found.append(LeftOut(file, reason))
    have = {result.task.id for _, result in a.results} | {result.task.id for result, _ in a.gone}
    for result, reason in a.gone:
        if selected(result.task, tasks):
            found.append(LeftOut(column_name(result.task), f"{a.label}: {reason}"))
    for _, result in b.results:
        if result.task.id not in have and selected(result.task, tasks):
            found.append(LeftOut(column_name(result.task), f"{a.label}: not measured"))
    return found


def gate_runs(
    encoder: str, baseline: Path, runs: Path, registry: Registry, tasks: Sequence[str] = ()
) -> Gate:
    """Holds an encoder's results against a baseline; nothing is written.

    tasks: check these of the baseline only.  Raises UnavailableError if the baseline cannot be used or
    the folder has nothing of this encoder, UsageError if `tasks` selects nothing of the baseline.
    """
    against = read_baseline(baseline)
    folder = _Folder(runs, registry)
    return _held(folder.choose(encoder), folder, against, tasks)


def _held(candidate: Checkpoint, folder: _Folder, against: Baseline, tasks: Sequence[str]) -> Gate:
    pairs = [
        (result, arrays)
        for result, arrays in zip(against.results, against.arrays, strict=True)
        if selected(result.task, tasks)
    ]
    if not pairs:
        known = ", ".join(result.task.id for result in against.results)
        raise UsageError(f"--tasks {','.join(tasks)}: the baseline has none of them, it has {known}")
    checks = [_check(result, arrays, candidate, folder, len(pairs)) for result, arrays in pairs]
    said = [*candidate.notes, *notices(checks, [result.primary for result, _ in pairs])]
    known_tasks = {result.task.id for result in against.results}
    said += [
        f"{column_name(result.task)} is not in the baseline and not checked: --update adds it"
        for _, result in candidate.results
        if result.task.id not in known_tasks and selected(result.task, tasks)
    ]
    stale = _stale(candidate, [result for result, _ in pairs])
    if stale:
        said.append("these are the baseline's own results: `dune-bench run` measures the weights of now")
    elif candidate.encoder.digest and candidate.encoder.digest == against.encoder.digest:
        said.append("the weights are the baseline's own: this checks code and machine, not a checkpoint")
    if candidate.encoder.id != against.encoder.id:
        said.append(f"the baseline is of another encoder, {against.label}")
    said += [f"file refused: {entry.reason}" for entry in folder.refused]
    measured = max(result.provenance.started for result in candidate.all)
    return Gate(candidate.label, candidate.encoder, against, tuple(checks), measured, stale, tuple(said))


def _stale(candidate: Checkpoint, before: Sequence[Result]) -> bool:
    """Whether every result that a gate would check is one of the baseline's."""
    old = {(result.key, result.provenance.started) for result in before}
    tasks = {result.task.id for result in before}
    now = [result for result in candidate.all if result.task.id in tasks]
    return all((result.key, result.provenance.started) in old for result in now) and bool(now)


def _check(result: Result, arrays: Arrays, candidate: Checkpoint, folder: _Folder, tests: int) -> Check:
    try:
        found = _partner(result, candidate)
        before = measure(result, arrays, folder.reducer)
        return check_task(before, folder.measured(found), tests)
    except NotComparableError as error:
        return not_comparable(result.task, result.primary, str(error))


def update_baseline(
    encoder: str, baseline: Path, runs: Path, registry: Registry, tasks: Sequence[str] = ()
) -> Gate | None:
    """Writes the results of an encoder as the new baseline; returns how they compare with the baseline
    that was there, None without one.

    tasks: only these; those that the old baseline has beyond them stay in it.
    Raises UnavailableError, and writes nothing, if a task failed, is limited, cannot be recomputed from
    its statistics, or if the old baseline has a task that there is no result of now.
    """
    folder = _Folder(runs, registry)
    candidate = folder.choose(encoder)
    old = read_baseline(baseline) if baseline.is_file() else None
    fresh, problems = _complete(candidate, folder, tasks)
    names = {column_name(result.task) for result, _ in fresh}
    kept = []
    for result, arrays in zip(old.results, old.arrays, strict=True) if old else ():
        if not selected(result.task, tasks):
            kept.append((result, arrays))
        elif column_name(result.task) not in names:
            problems.append(
                f"{column_name(result.task)}: in the old baseline, but there is no good result now"
            )
    if problems or not fresh:
        reasons = "; ".join(dict.fromkeys(problems)) or f"{encoder} has no result that is meant"
        raise UnavailableError(f"{baseline}: not written: {reasons}")
    gate = (
        _held(candidate, folder, old, tasks)
        if old and any(selected(r.task, tasks) for r in old.results)
        else None
    )
    write_baseline(baseline, make_baseline([*kept, *fresh]))
    return gate


def _complete(
    candidate: Checkpoint, folder: _Folder, tasks: Sequence[str]
) -> tuple[list[tuple[Result, Arrays]], list[str]]:
    """What may stand in a baseline, and what should but cannot: a limited or failed result counts only
    where the checkpoint has no whole one of the task."""
    good, problems = [], []
    wanted = [item for item in candidate.results if selected(item[1].task, tasks)]
    whole = {result.task.id for _, result in wanted if result.task.limited is None}
    for item in wanted:
        task = item[1].task
        if task.limited is not None:
            if task.id not in whole:
                problems.append(f"{column_name(task)}: is of --limit {task.limited}")
            continue
        try:
            folder.measured(item)
            good.append((item[1], folder.arrays(item)))
        except NotComparableError as error:
            problems.append(f"{column_name(task)}: {error}")
    for result, reason in candidate.gone:
        if selected(result.task, tasks) and result.task.id not in whole:
            problems.append(f"{column_name(result.task)}: {reason}")
    return good, problems
