"""Students against their teachers, task by task: paired differences, retention and mean rank.  No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dune_bench.errors import TaskError, UnavailableError
from dune_bench.registry.lookup import Registry
from dune_bench.report.board import Board, Column
from dune_bench.report.format import column_name
from dune_bench.report.paired import reducer_of
from dune_bench.report.ranks import RANDOM, MeanRank, mean_ranks
from dune_bench.report.select import Checkpoint, Found, UnknownNameError, choose
from dune_bench.results.compare import LeftOut, TaskComparison, adjusted, compare_task
from dune_bench.results.measured import Measured, NotComparableError, Reducer, measure, mismatch
from dune_bench.results.schema import Result, TaskInfo
from dune_bench.results.store import ResultStore


@dataclass(frozen=True)
class Against:
    """A student and one teacher on one task.

    comparison: student (`second`) minus teacher (`first`), p adjusted over the teacher's tasks.
    retention: (student − random) / (teacher − random), None with `why_not`.  best: no other measured
    teacher has a better value.
    """

    teacher: Result
    comparison: TaskComparison
    retention: float | None
    why_not: str
    best: bool


@dataclass(frozen=True)
class TaskRow:
    """One task of a student.  random: the result that is the zero of retention, if there is one."""

    student: Result
    random: Result | None
    teachers: tuple[Against, ...]

    @property
    def task(self) -> TaskInfo:
        return self.student.task


@dataclass(frozen=True)
class StudentTable:
    """One student.  teachers: ids of its card, measured or not.  ranks: over the named panel."""

    label: str
    teachers: tuple[str, ...]
    rows: tuple[TaskRow, ...]
    ranks: MeanRank
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def student_tables(
    found: Sequence[Found], board: Board, store: ResultStore, registry: Registry, panel: Sequence[str] = ()
) -> tuple[StudentTable, ...]:
    """A table for every encoder of the board whose card names teachers.

    panel: encoders that the mean rank is over; by default the student, its teachers and RANDOM.
    Raises UnavailableError if no encoder has teachers: there is no table then.
    """
    students = {
        entry.result.label: entry.result.encoder.id
        for column in board.columns
        for entry in column.entries
        if entry.result.encoder.teachers and entry.result.encoder.weights != "random"
    }
    if not students:
        raise UnavailableError(
            f"--teachers: no measured encoder in {store.root.parent} has teachers on its card "
            "(random weights do not count as a student): run one, such as dune_vitb, and its teachers"
        )
    bench = _Bench(found, board, store, reducer_of(registry))
    return tuple(_table(bench, label, panel) for label in sorted(students))


@dataclass(frozen=True)
class _Bench:
    """The results at hand and how they are measured."""

    found: Sequence[Found]
    board: Board
    store: ResultStore
    reducer: Reducer

    def choose(self, name: str) -> Checkpoint:
        return choose(self.found, name, self.store.root.parent)

    def measured(self, item: Found) -> Measured:
        try:
            arrays = self.store.arrays(*item)
        except TaskError as error:
            raise NotComparableError(str(error)) from error
        return measure(item[1], arrays, self.reducer)


def _table(bench: _Bench, label: str, panel: Sequence[str]) -> StudentTable:
    student = bench.choose(label)
    left_out = [LeftOut(column_name(r.task), f"{student.label}: {why}") for r, why in student.gone]
    names = student.encoder.teachers
    compared: dict[str, list[tuple[Result, TaskComparison]]] = {}
    for name in names:
        pairs, missing = _against(bench, student, name)
        left_out += missing
        for first, comparison in pairs:
            compared.setdefault(_key(comparison.task), []).append((first, comparison))
    rows = []
    for _, result in sorted(student.results, key=lambda item: column_name(item[1].task)):
        random = _random(bench, result)
        rows.append(TaskRow(result, random, _judged(compared.get(_key(result.task), []), random)))
        if random is None:
            own = result.encoder.id
            reason = f"no retention: neither {own} with random weights nor {RANDOM} was measured"
            left_out.append(LeftOut(column_name(result.task), reason))
    columns = [c for c in bench.board.columns if _key(c.task) in {_key(row.task) for row in rows}]
    ranks = mean_ranks(columns, panel or (student.label, *names, RANDOM))
    return StudentTable(student.label, names, tuple(rows), ranks, tuple(left_out), student.notes)


def _against(
    bench: _Bench, student: Checkpoint, teacher: str
) -> tuple[list[tuple[Result, TaskComparison]], list[LeftOut]]:
    """Every task that a teacher shares with the student, and what it does not share."""
    try:
        other = bench.choose(teacher)
    except UnknownNameError:
        return [], [LeftOut("all tasks", f"{teacher}: not measured")]
    if other.encoder.weights == "random":
        return [], [LeftOut("all tasks", f"{teacher}: measured with random weights only: no teacher")]
    pairs, missing = [], []
    for item in student.results:
        try:
            partner = _partner(item[1], other)
            pairs.append((partner[1], compare_task(bench.measured(partner), bench.measured(item), worst=0)))
        except NotComparableError as error:
            missing.append(LeftOut(column_name(item[1].task), f"{teacher}: {error}"))
    judged = adjusted([comparison for _, comparison in pairs])
    return [(first, comparison) for (first, _), comparison in zip(pairs, judged, strict=True)], missing


def _partner(result: Result, other: Checkpoint) -> Found:
    """The other's result of the same column.  Raises NotComparableError with the nearest miss."""
    reasons = [why for lost, why in other.gone if lost.task.id == result.task.id]
    for item in other.results:
        reason = mismatch(result, item[1])
        if reason is None:
            return item
        if item[1].task.id == result.task.id:
            reasons.append(reason)
    raise NotComparableError(reasons[0] if reasons else "not measured")


def _judged(pairs: Sequence[tuple[Result, TaskComparison]], random: Result | None) -> tuple[Against, ...]:
    if not pairs:
        return ()
    sign = 1.0 if pairs[0][1].metric.higher_is_better else -1.0
    top = max(sign * comparison.first for _, comparison in pairs)
    found = []
    for teacher, comparison in pairs:
        value, why_not = retention(comparison, random)
        found.append(Against(teacher, comparison, value, why_not, sign * comparison.first == top))
    return tuple(found)


def retention(comparison: TaskComparison, random: Result | None) -> tuple[float | None, str]:
    """(student − random) / (teacher − random), or None and why it is not defined.

    1 is the teacher's level, 0 that of random features, in either direction of the metric.
    """
    zero = None if random is None or random.primary is None else random.primary.value
    if zero is None:
        return None, "random features not measured"
    sign = 1.0 if comparison.metric.higher_is_better else -1.0
    gained = sign * (comparison.first - zero)
    if gained <= 0:
        return None, "the teacher is no better than random features"
    if gained < (comparison.metric.margin or 0.0):
        return None, "the teacher is within the margin of random features"
    return sign * (comparison.second - zero) / gained, ""


def _random(bench: _Bench, student: Result) -> Result | None:
    """The zero of retention in the student's column: itself with random weights, else RANDOM."""
    column = next((c for c in bench.board.columns if _key(c.task) == _key(student.task)), None)
    return None if column is None else _zero(column, student.encoder.id)


def _zero(column: Column, encoder: str) -> Result | None:
    results = [entry.result for entry in column.entries]
    own = [r for r in results if r.encoder.id == encoder and r.encoder.weights == "random"]
    named = [r for r in results if r.encoder.id == RANDOM]
    return next(iter([*own, *named]), None)


def _key(task: TaskInfo) -> str:
    """Tasks with the same key share a column."""
    return task.model_dump_json(exclude={"upstream"})
