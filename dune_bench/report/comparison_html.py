"""A comparison as one HTML file: the samples where B loses most, with the pictures of A and B side by side.

The pictures are those that `dune-bench panel` or `compare --pictures` made; for those that are missing the
page gives the command.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dune_bench.report.comparison import HEADER, NOTE, row, who, worst_rows, worst_title
from dune_bench.report.format import column_name, heading
from dune_bench.report.glossary import PROBES, explain, group_word
from dune_bench.report.html_pictures import as_data
from dune_bench.report.html_table import bullets, safe
from dune_bench.results.compare import Compared, Comparison, TaskComparison
from dune_bench.results.store import safe_name, weights_folder

MAX_BYTES = 20_000_000
"""Of pictures in one page; the rest are named."""
_STYLE = (
    ":root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:1rem auto;max-width:90rem;"
    "padding:0 1rem}table{border-collapse:collapse}th,td{padding:.2rem .6rem;text-align:left;"
    "border-bottom:1px solid #8886}.scroll{overflow:auto}.pair{display:grid;gap:1rem;"
    "grid-template-columns:repeat(auto-fit,minmax(min(30rem,100%),1fr))}figure{margin:0}"
    "img{max-width:100%;height:auto}h1,h2,h3,p,li,figcaption{overflow-wrap:anywhere}"
    "th,td{white-space:nowrap}.wide{display:none}"
    "@media(max-width:60rem){.wide{display:block}}"
)


@dataclass(frozen=True)
class Missing:
    """Samples of a task that there is no picture of yet, under one encoder.  folder: where they belong
    below `panels`."""

    side: Compared
    folder: str
    task: TaskComparison
    samples: tuple[str, ...]


def missing_pictures(comparison: Comparison, runs: Path) -> tuple[Missing, ...]:
    """What the page would show and `runs/panels` does not hold, task by task, A before B.  Nothing if the
    encoders have one name and one digest: their pictures could not be told apart."""
    if indistinct(comparison):
        return ()
    found = []
    for task in comparison.tasks:
        for side in (comparison.first, comparison.second):
            folder = _folder(comparison, side)
            samples = tuple(s.id for s in task.worst if not _picture(runs, folder, task, s.id).is_file())
            if samples:
                found.append(Missing(side, folder, task, samples))
    return tuple(found)


def indistinct(comparison: Comparison) -> bool:
    """Whether both encoders have one name and one digest, and so one folder of pictures."""
    return _folder(comparison, comparison.first) == _folder(comparison, comparison.second)


def _folder(comparison: Comparison, side: Compared) -> str:
    """Below `panels`: the encoder's name, with the digest of its weights if both have that name."""
    one_name = comparison.first.label == comparison.second.label
    return weights_folder(side.label, side.encoder.digest) if one_name else safe_name(side.label)


def _picture(runs: Path, folder: str, task: TaskComparison, sample: str) -> Path:
    return runs / "panels" / folder / safe_name(column_name(task.task)) / f"{safe_name(sample)}.png"


@dataclass
class _Album:
    """Pictures of a comparison until `room` bytes are full."""

    runs: Path
    comparison: Comparison
    room: int = MAX_BYTES

    def figure(self, letter: str, side: Compared, task: TaskComparison, sample: str, value: str) -> str:
        caption = f"<figcaption>{letter}: {safe(side.label)}, {safe(value)}</figcaption>"
        path = _picture(self.runs, _folder(self.comparison, side), task, sample)
        if indistinct(self.comparison):
            return f"<figure>{caption}<p>No picture: A and B share one folder of pictures.</p></figure>"
        if not path.is_file():
            return f"<figure>{caption}<p>No picture yet.</p></figure>"
        try:
            data, (width, height) = as_data(path)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            return f"<figure>{caption}<p>Not readable as a picture ({type(error).__name__}).</p></figure>"
        if len(data) > self.room:
            return f"<figure>{caption}<p>Left out: the page would grow too large.</p></figure>"
        self.room -= len(data)
        alt = safe(f"{side.label} on {sample}: image, truth, prediction, error")
        return f'<figure>{caption}<img src="{data}" width="{width}" height="{height}" alt="{alt}"></figure>'


def comparison_page(comparison: Comparison, runs: Path) -> str:
    """The whole page.  runs: folder whose `panels` hold the pictures.  The same files give the same bytes."""
    album = _Album(runs, comparison)
    title = f"A {safe(who(comparison.first))} and B {safe(who(comparison.second))} on the same samples"
    parts = [
        f"<h1>{title}</h1>",
        f"<p>A: {_origin(comparison.first)}<br>B: {_origin(comparison.second)}</p>",
        _table("The tasks compared", HEADER, [row(task) for task in comparison.tasks]),
        f"<p>{safe(NOTE)}</p><p>Pictures are filed by an encoder's name, not its weights (but where A "
        "and B have one name): those of an older checkpoint stay until <code>dune-bench panel</code> draws "
        "them again.</p>",
        f"<h2>What was measured</h2><ul>{bullets(map(_measured, comparison.tasks))}</ul>",
        *(_task(comparison, task, album) for task in comparison.tasks if task.worst),
    ]
    if missing := missing_pictures(comparison, runs):
        parts.append(_to_make(comparison, missing, runs))
    if comparison.left_out:
        lines = [f"{entry.task}: {entry.reason}" for entry in comparison.left_out]
        parts.append(f"<h2>Not compared</h2><ul>{bullets(lines)}</ul>")
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'sha256-{digest}'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _origin(side: Compared) -> str:
    """The encoder, the kind of its weights and the view that its features are of."""
    weights = "no weights" if side.encoder.weights == "none" else f"{side.encoder.weights} weights"
    return safe(f"{who(side)}: {weights}, view {side.encoder.view}")


def _measured(task: TaskComparison) -> str:
    """One line: question, metric, data, how many of its groups, protocol."""
    info, metric = task.task, task.metric
    question = PROBES.get(info.probe, f"Probe {info.probe}.")
    meaning = explain(metric.id) or "no description is known"
    return (
        f"{column_name(info)}. {question} {heading(metric)}: {meaning}. Data: {info.dataset}, scored on "
        f"{task.difference.groups} {group_word(info.dataset)}. Protocol {info.protocol}, fingerprint "
        f"{info.protocol_fingerprint[:12]}."
    )


def _task(comparison: Comparison, task: TaskComparison, album: _Album) -> str:
    parts = [f"<h2>{safe(worst_title(task))}</h2>"]
    for sample, (_, group, first, second, change) in zip(task.worst, worst_rows(task), strict=True):
        a = album.figure("A", comparison.first, task, sample.id, first)
        b = album.figure("B", comparison.second, task, sample.id, second)
        parts.append(
            f"<h3>{safe(sample.id)}</h3><p>{safe(group)}: B − A {safe(change)}</p>"
            f'<div class="pair">{a}{b}</div>'
        )
    return "\n".join(parts)


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{safe(text)}</th>' for text in header)
    body = "\n".join(
        f'<tr><th scope="row">{safe(line[0])}</th>'
        + "".join(f"<td>{safe(t)}</td>" for t in line[1:])
        + "</tr>"
        for line in rows
    )
    return (
        '<p class="wide">On a narrow screen the table scrolls sideways →</p>'
        f'<div class="scroll" role="region" aria-label="{safe(caption)}" tabindex="0"><table>'
        f"<caption>{safe(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _to_make(comparison: Comparison, missing: Sequence[Missing], runs: Path) -> str:
    """How the missing pictures are made."""
    if comparison.first.label == comparison.second.label:
        text = (
            "<code>dune-bench compare … --html FILE --pictures</code> draws those of the checkpoint whose "
            "weights are in place; put those of the other in place and draw again: what is drawn stays."
        )
        return f"<h2>Pictures not made yet</h2><p>{text}</p>"
    commands = bullets([_command(entry, runs) for entry in missing])
    return (
        "<h2>Pictures not made yet</h2><p>These commands make them; add the run's own options, if any."
        f"</p><ul>{commands}</ul>"
    )


def _command(missing: Missing, runs: Path) -> str:
    encoder = missing.side.encoder
    weights = {"random": ["--weights", "random"], "file": ["--weights", "PATH"]}.get(encoder.weights, [])
    words = ["dune-bench", "panel", encoder.id, "--task", missing.task.task.id, *weights]
    return shlex.join([*words, "--samples", ",".join(missing.samples), "--runs", runs.as_posix()])
