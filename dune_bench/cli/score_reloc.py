"""`dune-bench score-reloc`: scores a Map-free submission made elsewhere."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dune_bench.cli.options import parse_list
from dune_bench.errors import UsageError

if TYPE_CHECKING:
    from dune_bench.metrics.mapfree import RelocScore

OFFICIAL_EVERY = 5
FORMATS = ("table", "json")


class Mode(StrEnum):
    """Which form of the metrics."""

    strict = "strict"
    compat = "compat"


def score_reloc(
    submission: Annotated[
        Path, typer.Argument(metavar="ZIP", help="Submission: pose_<scene>.txt files at the zip's root.")
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Truth: <scene>/poses.txt, <scene>/intrinsics.txt.")
    ],
    mode: Annotated[
        Mode,
        typer.Option("--mode", help="compat: the official program's numbers; strict: its quirks mended."),
    ] = Mode.strict,
    every: Annotated[
        int, typer.Option("--every", min=1, metavar="N", help="Evaluate every N-th query; officially 5.")
    ] = OFFICIAL_EVERY,
    format: Annotated[
        str, typer.Option("--format", metavar="table,json", help="What to print, each once.")
    ] = "table",
) -> None:
    """Score a Map-free submission against the truth of a folder of scenes.

    Bad lines are warnings on stderr and their frames count as unanswered.
    """
    formats = parse_list(format, "--format")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UsageError(f"--format {unknown[0]}: {' or '.join(FORMATS)}, or both separated by a comma")
    if mode is Mode.compat and every != OFFICIAL_EVERY:
        raise UsageError(f"--mode compat evaluates every fifth query: leave out --every {every}")
    from dune_bench.metrics.mapfree import score_reloc as score_files

    form: Literal["strict", "mapfree-compat"] = "strict" if mode is Mode.strict else "mapfree-compat"
    score = score_files(submission, data, form, every)
    for note in score.issues.notes:
        typer.echo(f"warning: {note}", err=True)
    if nothing_used(score):
        typer.echo(
            f"warning: not one line of {submission} could be used, so every query counts as unanswered: "
            "pose_<scene>.txt files with nine fields a line belong into the zip's root",
            err=True,
        )
    rows = metric_rows(score)
    for name in formats:
        typer.echo(_table(score, rows) if name == "table" else _json(score, rows, every))


def nothing_used(score: RelocScore) -> bool:
    """Whether not one query was answered: rather a wrongly made archive than a bad method."""
    answered = {"strict": "answered", "mapfree-compat": "Estimates for % of frames"}[score.mode]
    return score.metrics[answered] == 0


def metric_rows(score: RelocScore) -> list[dict[str, Any]]:
    """One row per metric: id, value (None where undefined), unit, higher_is_better."""
    return [
        {
            "id": name,
            "value": value if math.isfinite(value) else None,
            "unit": _unit(name),
            "higher_is_better": "median" not in name.lower(),
        }
        for name, value in score.metrics.items()
    ]


def _unit(name: str) -> str:
    """Of a metric of either form; the official ones are fractions."""
    if name.startswith("median_"):
        return name.rsplit("_", 1)[1]
    if name.startswith("Average Median"):
        return {"Translation": "m", "Rotation": "deg", "Reprojection": "px"}[name.split()[2]]
    return "%" if name == "answered" or name.startswith("precision") else "1"


def _table(score: RelocScore, rows: list[dict[str, Any]]) -> str:
    from dune_bench.cli.outcome import Grid, plain
    from dune_bench.report.format import UNDEFINED

    body = tuple(
        (row["id"], UNDEFINED if row["value"] is None else f"{row['value']:.4g}", row["unit"], _arrow(row))
        for row in rows
    )
    text = plain(Grid((score.mode, "value", "unit", ""), body, ()))
    scenes = "1 scene" if len(score.scenes) == 1 else f"{len(score.scenes)} scenes"
    if score.frames is not None:
        answered = int(score.frames.answered.sum())
        return f"{text}\n{scenes}, {len(score.frames.answered)} queries evaluated, {answered} answered"
    return f"{text}\n{scenes}"


def _arrow(row: dict[str, Any]) -> str:
    return "↑" if row["higher_is_better"] else "↓"


def _json(score: RelocScore, rows: list[dict[str, Any]], every: int) -> str:
    content = {
        "mode": score.mode,
        "every": every,
        "scenes": list(score.scenes),
        "metrics": rows,
        "issues": {"total": score.issues.total, "notes": score.issues.notes},
    }
    return json.dumps(content, indent=2, allow_nan=False)
