"""The parts of the HTML page that need no script: the table of all results, and the lists.

Every text that comes from a result or a card goes through `safe`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from dune_bench.report.board import Board, Column, Entry, encoder_identity
from dune_bench.report.conditions import data_text
from dune_bench.report.format import (
    NO_SPREAD,
    NO_SPREAD_MEANS,
    column_name,
    heading,
    interval,
    number,
    one_line,
    overlaps,
    qualifiers,
)
from dune_bench.report.glossary import PROBES, explain, group_word
from dune_bench.report.html_data import Encoders
from dune_bench.results.schema import Metric, Result

ABSENT = (
    '<td tabindex="-1"><span class="absent" aria-hidden="true">·</span>'
    '<span class="sr">not measured</span></td>'
)
BEST = '<span class="best" title="best value of the column">●</span><span class="sr"> best </span>'
_WHY_NO_SPREAD = f' title="{NO_SPREAD_MEANS}"'


def safe(text: str) -> str:
    """Any text as one line of HTML that shows exactly it, in an element or an attribute."""
    return html.escape(one_line(text), quote=True)


def name(text: str) -> str:
    """A name of somebody's making: its direction of writing moves nothing around it."""
    return f"<bdi>{safe(text)}</bdi>"


def overview(board: Board, encoders: Encoders) -> str:
    """The table of encoders × columns, primary metric.  One row a line."""
    cells = [{encoders.of(entry): entry for entry in column.entries} for column in board.columns]
    best = [_best(column) for column in board.columns]
    rows = []
    for place, label in enumerate(encoders.labels):
        values = "".join(
            _cell(own.get(place), own.get(place) is first) for own, first in zip(cells, best, strict=True)
        )
        rows.append(f"<tr>{_row_head(place, label, encoders.results[place])}{values}</tr>")
    head = "".join(map(_column_head, board.columns))
    return (
        '<thead><tr><th scope="col" aria-sort="none">'
        f'<button type="button" tabindex="-1">Encoder</button></th>{head}</tr></thead>'
        "\n<tbody>\n" + "\n".join(rows) + "\n</tbody>"
    )


def _best(column: Column) -> Entry | None:
    """The first of a column; none where it stands alone or nothing is defined."""
    first = column.entries[0]
    if len(column.entries) < 2 or first.result.primary is None or first.result.primary.value is None:
        return None
    return first


def _row_head(place: int, label: str, result: Result) -> str:
    untrained = '<small class="brand">no weights</small>' if result.encoder.weights == "none" else ""
    return (
        f'<th scope="row"><label><input type="checkbox" tabindex="-1" data-encoder="{place}">'
        f"<span><bdi>{_breakable(label)}</bdi>{untrained}</span></label></th>"
    )


def _breakable(text: str) -> str:
    """A name that may end its line after a sign between its words, and nowhere else."""
    return re.sub(r"(?<=[_@/])(?=\w)", "<wbr>", safe(text))


def _column_head(column: Column) -> str:
    probe, *rest = column.task.id.split("/")
    extra = "".join(f'<span class="brand">{safe(text)}</span>' for text in _brands(column))
    parts = "".join(f"<small>{safe(part)}</small>" for part in rest)
    metric = _breakable(re.sub(" (?=[↑↓])", "\N{NO-BREAK SPACE}", _primary_heading(column)))
    return (
        '<th scope="col" aria-sort="none"><button type="button" tabindex="-1">'
        f'<b>{safe(probe)}</b>{parts}{extra}<span class="metric">{metric}</span>'
        "</button></th>"
    )


def _brands(column: Column) -> list[str]:
    """What tells a column from others of its task: its overrides, limit, and number if it has one."""
    parts = qualifiers(column.task)
    identity = f"#{column.identity[:6]}"
    return [*parts, identity] if column.name.endswith(identity) else parts


def primary_metric(column: Column) -> Metric | None:
    return next((metric for metric in column.metrics if metric.primary), None)


def _primary_heading(column: Column) -> str:
    primary = primary_metric(column)
    return "no primary metric" if primary is None else heading(primary)


def _cell(entry: Entry | None, best: bool) -> str:
    if entry is None:
        return ABSENT
    primary = entry.result.primary
    text = "no primary metric" if primary is None else number(primary.value, primary.unit)
    if best:
        text = f"<b>{text}</b>{BEST}"
    if overlaps(entry.result):
        text += '<span title="trained on data of this set">†</span>'
    if primary is not None and (brackets := interval(primary)):
        text += f" <small{_WHY_NO_SPREAD if brackets == NO_SPREAD else ''}>{brackets}</small>"
    if primary is not None and primary.n_failed:
        text += f" <small>{primary.n_failed} failed</small>"
    return f'<td><button type="button" tabindex="-1">{text}</button></td>'


def measured(board: Board) -> str:
    """One row a column: what is asked, of which data, and how it is counted."""
    return "\n".join(_measured_row(board, column) for column in board.columns)


def described_data(board: Board) -> str:
    """A paragraph for each set of data that describes itself."""
    return "\n".join(
        f"<p><b>The data.</b> {name(data)}: {safe(text)}.</p>"
        for data, text in board.descriptions.datasets.items()
    )


def described_encoders(board: Board, encoders: Encoders) -> str:
    """A list of the encoders that a card describes."""
    known = zip(encoders.labels, encoders.results, strict=True)
    of = board.descriptions.encoders
    texts = [(label, of.get(encoder_identity(result), "")) for label, result in known]
    return "\n".join(f"<dt>{name(label)}</dt><dd>{safe(text)}</dd>" for label, text in texts if text)


def _measured_row(board: Board, column: Column) -> str:
    task, primary = column.task, primary_metric(column)
    question = PROBES.get(task.probe, f"Probe {task.probe}: see its own documentation.")
    if primary is None:
        meaning = "no primary metric"
    else:
        direction = "higher is better" if primary.higher_is_better else "lower is better"
        meaning = f"{explain(primary.id) or 'No description is known'}. {direction.capitalize()}."
    rest = (safe(question), safe(_primary_heading(column)), safe(meaning), _size(board, column))
    cells = "".join(f"<td>{cell}</td>" for cell in rest)
    return f'<tr><th scope="row">{name(column.name)}</th>{cells}</tr>'


def _size(board: Board, column: Column) -> str:
    text = safe(data_text(board, column))
    if not any(m.ci95 for entry in column.entries for m in entry.result.metrics):
        text += f"; <b>no intervals</b> (too few {group_word(column.task.dataset)})"
    return text


def missing(board: Board) -> str:
    """Failed and unavailable results: encoder, tasks, status, reason; one row per reason."""
    tasks: dict[tuple[str, str, str], list[str]] = {}
    for entry in board.missing:
        result = entry.result
        reason = (board.label(result), result.status, result.error or "")
        tasks.setdefault(reason, []).append(column_name(result.task))
    rows = [
        f'<tr><th scope="row">{name(label)}</th><td>{"<br>".join(map(name, sorted(names)))}</td>'
        f"<td>{safe(status)}</td><td>{safe(reason)}</td></tr>"
        for (label, status, reason), names in sorted(tasks.items())
    ]
    return "\n".join(rows)


def bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"<li>{safe(text)}</li>" for text in texts)


def summary(board: Board, encoders: Encoders) -> str:
    """One sentence: how much is on the page, and how new it is."""
    entries: Sequence[Entry] = [entry for column in board.columns for entry in column.entries]
    if not entries:
        return "No result is here: see what is left out, and why."
    newest = max(entry.result.provenance.started for entry in entries)
    sizes = (
        _count(len(encoders.labels), "encoder"),
        _count(len(board.columns), "column"),
        _count(len(entries), "result"),
    )
    return f"{sizes[0]}, {sizes[1]}, {sizes[2]}; the newest result is of {safe(newest[:10])}."


def _count(number_of: int, word: str) -> str:
    return f"{number_of} {word}{'' if number_of == 1 else 's'}"
