"""Results arranged for reading: comparable ones share a column, the rest is listed with its reason.

Two results share a column only if everything that declares the measurement is equal: task id,
protocol, input, overrides, data, the samples kept of it and scoring code (`results.measured.measurement`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dune_bench.registry.cards import fingerprint
from dune_bench.report.format import column_name
from dune_bench.results.measured import measurement
from dune_bench.results.schema import Metric, Result, TaskInfo
from dune_bench.results.store import Refused


@dataclass(frozen=True)
class Entry:
    """A result and its file, relative to the runs folder, with forward slashes."""

    file: str
    result: Result


@dataclass(frozen=True)
class Column:
    """Comparable results.  name is unique on a board; entries are sorted best first.  task: of limits that
    keep the same samples, the one with the smallest."""

    name: str
    identity: str
    entries: tuple[Entry, ...]

    @property
    def task(self) -> TaskInfo:
        return _smallest_limit(self.entries)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """One metric of each id in the column, primary first, then as the card has them."""
        found = {metric.id: metric for entry in self.entries for metric in entry.result.metrics}
        return tuple(sorted(found.values(), key=lambda metric: not metric.primary))


@dataclass(frozen=True)
class Descriptions:
    """Sentences of the cards.  encoders: by identity.  datasets: by name.  heads: by identity of the
    column, where the heads come from that it builds on."""

    encoders: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)
    heads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """All results of a runs folder.

    labels: name of each encoder by its identity, unique on the board.  missing: failed and
    unavailable ones that no later result makes up for.  superseded: files of older results of the
    same encoder in the same column, left out.  copies: files of results that are there already.
    """

    columns: tuple[Column, ...]
    labels: dict[str, str]
    missing: tuple[Entry, ...]
    refused: tuple[Refused, ...]
    superseded: tuple[str, ...]
    copies: tuple[str, ...]
    descriptions: Descriptions = Descriptions()

    def label(self, result: Result) -> str:
        return self.labels[encoder_identity(result)]

    def not_shown(self) -> list[str]:
        """What of the measured results is not in the tables, in a line each."""
        kinds = (
            (self.superseded, "older result", "replaced by a newer one of the same encoder and column"),
            (self.copies, "copy of a result", "counted once"),
        )
        return [
            f"{len(files)} {one if len(files) == 1 else _PLURAL[one]}, {what}: {_some(files)}"
            for files, one, what in kinds
            if files
        ]


_PLURAL = {"older result": "older results", "copy of a result": "copies of results"}
_NAMED = 10


def _some(files: Sequence[str]) -> str:
    """Their last folder and name, the first ten: a report does not tell the folders of a machine."""
    names = ["/".join(Path(file).parts[-2:]) for file in files[:_NAMED]]
    more = len(files) - _NAMED
    return ", ".join([*names, *([f"and {more} more"] if more > 0 else [])])


def make_board(found: Iterable[tuple[Path, Result]], refused: Sequence[Refused], runs: Path) -> Board:
    """Arranges results; the order of `found` changes nothing."""
    entries = sorted(
        (Entry(_relative(path, runs), result) for path, result in found), key=lambda entry: entry.file
    )
    measured = [entry for entry in entries if entry.result.status == "ok"]
    newest = _newest(measured, lambda r: (column_identity(r.task), encoder_identity(r)))
    shown = {entry.file for entry in newest}
    hidden = [entry for entry in measured if entry.file not in shown]
    same = {entry.result.key: entry.result for entry in newest}
    copies = tuple(entry.file for entry in hidden if same.get(entry.result.key) == entry.result)
    return Board(
        columns=_columns(newest),
        labels=_unique_labels(entries),
        missing=_missing(entries),
        refused=tuple(Refused(Path(_relative(r.path, runs)), r.reason) for r in refused),
        superseded=tuple(entry.file for entry in hidden if entry.file not in copies),
        copies=copies,
    )


def column_identity(task: TaskInfo) -> str:
    """Identity of everything that two results must share to be compared."""
    return fingerprint(measurement(task))


def encoder_identity(result: Result) -> str:
    """Identity of what was evaluated, whatever the view (that may differ by task)."""
    encoder = result.encoder
    return fingerprint(
        [encoder.id, encoder.weights, encoder.digest, encoder.adapter, encoder.card_fingerprint]
    )


def _relative(path: Path, runs: Path) -> str:
    return (path.relative_to(runs) if path.is_relative_to(runs) else path).as_posix()


def _age(entry: Entry) -> tuple[str, str]:
    return (entry.result.provenance.started, entry.file)


def _newest(entries: Iterable[Entry], key: Callable[[Result], object]) -> list[Entry]:
    """The newest entry of each key, in the order of their files."""
    latest: dict[object, Entry] = {}
    for entry in entries:
        known = latest.get(key(entry.result))
        if known is None or _age(entry) > _age(known):
            latest[key(entry.result)] = entry
    return sorted(latest.values(), key=lambda entry: entry.file)


def _columns(entries: Sequence[Entry]) -> tuple[Column, ...]:
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[column_identity(entry.result.task)].append(entry)
    names = {identity: column_name(_smallest_limit(group)) for identity, group in groups.items()}
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    columns = [
        Column(
            name=f"{names[identity]} #{identity[:6]}" if names[identity] in shared else names[identity],
            identity=identity,
            entries=tuple(sorted(group, key=_best_first)),
        )
        for identity, group in groups.items()
    ]
    return tuple(sorted(columns, key=lambda column: column.name))


def _smallest_limit(entries: Sequence[Entry]) -> TaskInfo:
    return min((entry.result.task for entry in entries), key=lambda task: task.limited or 0)


def _best_first(entry: Entry) -> tuple[bool, float, str, str]:
    primary = entry.result.primary
    if primary is None or primary.value is None:
        return (True, 0.0, entry.result.label, entry.file)
    value = -primary.value if primary.higher_is_better else primary.value
    return (False, value, entry.result.label, entry.file)


def _unique_labels(entries: Sequence[Entry]) -> dict[str, str]:
    """Encoder identity -> label; where two measured encoders share one, their weights' digest (or
    identity) tells them apart.  A failed attempt may not know its weights and says its plain label."""
    labels = {encoder_identity(entry.result): entry.result.label for entry in entries}
    by_label: dict[str, dict[str, str | None]] = defaultdict(dict)
    for entry in entries:
        if entry.result.status == "ok":
            by_label[entry.result.label][encoder_identity(entry.result)] = entry.result.encoder.digest
    for label, digests in by_label.items():
        for identity, digest in digests.items() if len(digests) > 1 else ():
            known = list(digests.values()).count(digest) == 1
            suffix = f"weights {digest[:7]}" if digest and known else f"identity {identity[:7]}"
            labels[identity] = f"{label} ({suffix})"
    return labels


def _attempt(result: Result) -> tuple[str, str, str]:
    """What was asked for, as far as a result without data and weights knows it."""
    task = result.task
    return (result.label, task.id, fingerprint([task.overrides, task.limited]))


def _makes_up(good: Entry, missing: Entry) -> bool:
    """Whether a good result came after a failure of the same encoder and task.

    An attempt that failed may not know how its weights would have come, so its label need not be the
    good one's.  But random weights, which are asked for by name, never stand for real ones, nor
    the other way round.
    """
    good_random, was_random = (e.result.encoder.weights == "random" for e in (good, missing))
    same_encoder = good.result.encoder.id == missing.result.encoder.id and good_random == was_random
    return (
        same_encoder
        and _attempt(good.result)[1:] == _attempt(missing.result)[1:]
        and _age(good) > _age(missing)
    )


def _missing(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The newest of each attempt, if it is not ok and nothing later makes up for it."""
    latest = _newest(entries, _attempt)
    good = [entry for entry in entries if entry.result.status == "ok"]
    return tuple(
        entry
        for entry in latest
        if entry.result.status != "ok" and not any(_makes_up(later, entry) for later in good)
    )
