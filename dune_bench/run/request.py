"""What a run is asked to do, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dune_bench.errors import ExitCode, worst
from dune_bench.results.schema import Result

if TYPE_CHECKING:
    from dune_bench.encoders.base import Encoder


@dataclass(frozen=True)
class RunRequest:
    """One `dune-bench run`.

    encoders: names (see `Registry.encoder`) or `Encoder` objects made in
    this process.  tasks, suite: see `Registry.select_tasks`.  weights: `auto`, `random`, or a file
    (with one encoder).  limit: about so many samples of each split, whole groups.  seeds: fit seeds of
    protocols with random fits (the others have none).  resolution, view, dtype override the
    tasks' input policy and the cards' views, None keeps them; `device` is `auto`, `cpu` or `cuda`.
    keep_going: after a failed (encoder, task) the others still run.  fresh: nothing that earlier
    runs left is reused.  verify: also check what is otherwise trusted, the data files and the
    weights' digests.  data: folder of the datasets, None for each one's own place.  runs: output.
    """

    encoders: tuple[str | Encoder, ...]
    tasks: str = "all"
    suite: str = "mini"
    weights: str = "auto"
    limit: int | None = None
    seeds: tuple[int, ...] | None = None
    resolution: int | None = None
    view: str | None = None
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] | None = None
    batch_size: int | Literal["auto"] = "auto"
    keep_going: bool = True
    fresh: bool = False
    offline: bool = False
    verify: bool = False
    include: tuple[Path, ...] = ()
    data: Path | None = None
    runs: Path = Path("runs")


_CODES = {"ok": ExitCode.OK, "failed": ExitCode.FAILED, "unavailable": ExitCode.UNAVAILABLE}


@dataclass(frozen=True)
class Outcome:
    """What became of one (encoder, task).

    path: the result file.  reused: it stood there from an earlier run.  code: the exit code that
    this outcome alone would give.  written: False for a request that cannot be meant (an unknown
    device or view, a file without an encoder): it says nothing about the encoder, so no file is left.
    """

    encoder: str
    task: str
    result: Result
    path: Path
    reused: bool = False
    code: ExitCode = ExitCode.OK
    written: bool = True


def code_of(result: Result, error: Exception | None = None) -> ExitCode:
    """The exit code of one result; a known error knows better than the status."""
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, ExitCode) else _CODES[result.status]


@dataclass(frozen=True)
class RunSummary:
    """Every outcome of a run, in the order of the request."""

    outcomes: tuple[Outcome, ...]
    runs: Path

    @property
    def exit_code(self) -> ExitCode:
        return worst(outcome.code for outcome in self.outcomes)
