"""What the HTML page knows: the board as JSON, one part for the page and one per column.

The page's part is read at once; a column's part, with everything about its results, when it is
looked at.  Values keep nine digits, more than any of them is sure of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from dune_bench.report.board import Board, Column, Entry, encoder_identity
from dune_bench.report.conditions import facts, machine, queries
from dune_bench.report.format import DECIMALS, heading, one_line, overlaps, qualifiers
from dune_bench.report.glossary import PROBES, explain, group_word
from dune_bench.report.shown import shown_encoders
from dune_bench.results.schema import BreakdownResult, Metric, Result

_FOLDERS = re.compile(r"(?<![^=,])(?:[A-Za-z]:)?[\\/](?:[^\\/,]*[\\/])*")


class Detail(IntEnum):
    """How much of each result goes into the page, from everything to what the tables need."""

    full = 2
    no_choices = 1
    metrics_only = 0


@dataclass(frozen=True)
class PageData:
    """page: what the whole page shares.  columns: per column of the board its results, best first."""

    page: dict[str, Any]
    columns: tuple[list[dict[str, Any]], ...]


@dataclass
class Interned:
    """Values that many results share, each kept once."""

    values: list[Any] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def place(self, value: Any) -> int:
        key = json.dumps(value, sort_keys=True, ensure_ascii=False)
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


@dataclass(frozen=True)
class Encoders:
    """The rows of the page.  entries: index of the encoder of each entry, by the entry's file."""

    labels: tuple[str, ...]
    results: tuple[Result, ...]
    entries: dict[str, int]

    def of(self, entry: Entry) -> int:
        return self.entries[entry.file]


def collect_encoders(board: Board) -> Encoders:
    """All encoders with a result, by name; `results` has one result of each, for what it says of it."""
    known: dict[str, Result] = {}
    by_file: dict[str, str] = {}
    for column in board.columns:
        for entry in column.entries:
            identity = by_file[entry.file] = encoder_identity(entry.result)
            known.setdefault(identity, entry.result)
    order = sorted(known, key=lambda identity: (board.labels[identity].lower(), identity))
    places = {identity: place for place, identity in enumerate(order)}
    return Encoders(
        labels=tuple(one_line(board.labels[identity]) for identity in order),
        results=tuple(known[identity] for identity in order),
        entries={file: places[identity] for file, identity in by_file.items()},
    )


def page_data(board: Board, encoders: Encoders, detail: Detail) -> PageData:
    """Everything that the page's script reads."""
    origins, machines = Interned(), Interned()
    identities = [encoder_identity(result) for result in encoders.results]
    columns = tuple(_results(column, detail, origins) for column in board.columns)
    page = {
        "encoders": [
            _encoder(label, result, board.descriptions.encoders.get(encoder_identity(result), ""))
            for label, result in zip(encoders.labels, encoders.results, strict=True)
        ],
        "shown": [identities.index(identity) for identity in shown_encoders(board)],
        "columns": [_column(board, column, encoders, machines) for column in board.columns],
        "machines": machines.values,
        "origins": origins.values,
    }
    return PageData(page, columns)


def to_json(value: Any) -> str:
    """JSON for a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def rows_to_json(rows: Sequence[Any]) -> str:
    """A list as `to_json`, an item a line, so that a change of one result is a change of one line."""
    return "[\n" + ",\n".join(map(to_json, rows)) + "\n]"


def rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.9g}")


def _encoder(label: str, result: Result, description: str) -> dict[str, Any]:
    info = result.encoder
    without = info.weights == "none"
    return {
        "name": label,
        "random": info.weights == "random",
        "facts": [
            (name, one_line(text))
            for name, text in (
                ("Encoder", info.id),
                ("What it is", description),
                ("Weights", "none: nothing in it was trained" if without else info.weights),
                ("Digest of the weights", "" if without else info.digest or "not known"),
                ("Adapter", info.adapter),
                ("Card", f"fingerprint {info.card_fingerprint[:12]}"),
                ("Trained on", ", ".join(info.trained_on) or "not stated by its card"),
                ("Teachers", ", ".join(info.teachers)),
            )
            if text
        ],
    }


def _column(board: Board, column: Column, encoders: Encoders, machines: Interned) -> dict[str, Any]:
    task, asked = column.task, queries(column)
    return {
        "name": one_line(column.name),
        "probe": task.probe,
        "question": PROBES.get(task.probe, ""),
        "changed": bool(qualifiers(task)),
        "groups": group_word(task.dataset),
        "facts": facts(board, column),
        "scored": asked and f"{asked} queries",
        "metrics": [_metric(metric) for metric in column.metrics],
        "breakdowns": [
            {"metric": metric, "by": by, "keys": [*map(one_line, keys)], **_unit(metric, column.metrics)}
            for (metric, by), keys in breakdown_keys(column).items()
        ],
        "cells": [
            [
                encoders.of(entry),
                *_primary(entry.result),
                int(overlaps(entry.result)),
                *_cost(entry, machines),
            ]
            for entry in column.entries
        ],
    }


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "id": metric.id,
        "heading": heading(metric),
        "unit": metric.unit,
        "up": metric.higher_is_better,
        "decimals": DECIMALS.get(metric.unit),
        "primary": metric.primary,
        "meaning": explain(metric.id) or "",
    }


def _unit(metric: str, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Unit, digits and direction of a breakdown: those of the metric of its name, or of its mean's."""
    names = (metric, f"m{metric}")
    found = next((known for known in metrics if known.id in names), None)
    if found is None:
        return {"unit": "", "decimals": None, "up": None}
    return {"unit": found.unit, "decimals": DECIMALS.get(found.unit), "up": found.higher_is_better}


def breakdown_keys(column: Column) -> dict[tuple[str, str], list[str]]:
    """(metric, by) -> all keys that a result of the column has, in the order they appear."""
    keys: dict[tuple[str, str], dict[str, None]] = {}
    for entry in column.entries:
        for part in entry.result.breakdowns:
            keys.setdefault((part.metric, part.by), {}).update(dict.fromkeys(part.values))
    return {name: list(found) for name, found in keys.items()}


def _primary(result: Result) -> list[float | int | None]:
    primary = result.primary
    if primary is None:
        return [None, None, None, 0]
    return [rounded(primary.value), *_interval(primary), primary.n_failed]


def _interval(metric: Metric) -> list[float | None]:
    low, high = metric.ci95 or (None, None)
    return [rounded(low), rounded(high)]


def _cost(entry: Entry, machines: Interned) -> list[float | int | None]:
    """Parameters, FLOPs, latency and where the latency was measured."""
    cost = entry.result.cost
    where = None if cost.latency_ms is None else machines.place(machine(entry.result))
    return [cost.parameters, rounded(cost.flops), rounded(cost.latency_ms), where]


def _results(column: Column, detail: Detail, origins: Interned) -> list[dict[str, Any]]:
    keys, metrics = breakdown_keys(column), column.metrics
    rows = []
    for entry in column.entries:
        result = entry.result
        own = {metric.id: metric for metric in result.metrics}
        row: dict[str, Any] = {
            "metrics": [_values(own.get(metric.id)) for metric in metrics],
            "view": one_line(result.encoder.view),
            "file": one_line(entry.file),
            "key": result.key,
            "started": result.provenance.started,
            "origin": origins.place(_origin(result)),
        }
        if detail >= Detail.no_choices:
            row["breakdowns"] = _breakdowns(result.breakdowns, keys)
        if detail >= Detail.full:
            row |= _extras(result)
        rows.append(row)
    return rows


def _values(metric: Metric | None) -> list[float | int | None] | None:
    if metric is None:
        return None
    return [rounded(metric.value), *_interval(metric), metric.n, metric.n_failed]


def _breakdowns(
    parts: Sequence[BreakdownResult], keys: Mapping[tuple[str, str], Sequence[str]]
) -> list[list[float | None] | None]:
    """Values in the order of the column's keys; None for a breakdown that the result lacks."""
    own = {(part.metric, part.by): part.values for part in parts}
    return [
        [rounded(own[name].get(key)) for key in found] if name in own else None
        for name, found in keys.items()
    ]


def _extras(result: Result) -> dict[str, Any]:
    memory = result.timings.peak_memory_bytes
    return {
        "choices": _short(result.choices),
        "seeds": list(result.seeds),
        "seconds": {name: float(f"{value:.3g}") for name, value in result.timings.seconds.items()},
        "memory": None if memory is None else round(memory / 1e6),
        "upstream": {role: key[:12] for role, key in result.task.upstream.items()},
        "samples": None if result.samples is None else result.samples.sha256[:12],
    }


def _short(value: Any) -> Any:
    """Numbers with four digits, also inside lists and mappings."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _short(item) for name, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list) else value


def _origin(result: Result) -> list[tuple[str, str]]:
    """Where a result was made, but for the moment.  Folders of the command line stay private."""
    made = result.provenance
    commit = "not from a checkout" if made.commit is None else made.commit[:12]
    command = " ".join(_FOLDERS.sub("…/", argument) for argument in made.argv).removeprefix("…/")
    found = (
        ("dune-bench", made.dune_bench),
        ("Commit", commit + (" with uncommitted changes" if made.dirty else "")),
        ("Python, torch", f"{made.python}, {made.torch}"),
        ("Machine", f"{made.platform}, {made.device}, {made.threads} threads"),
        ("Command", command),
    )
    return [(name, one_line(text)) for name, text in found if text]
