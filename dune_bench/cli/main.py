"""The command `dune-bench`: one verb per file, parsing only.

Verbs import what they need in their bodies, so that `--help`, `list`, `show` and completion start
at once and without torch.  Known errors (`dune_bench.errors`) end in one line and their exit code;
anything else keeps its traceback.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from dune_bench.cli.analyze import analyze_app
from dune_bench.cli.cache import cache_app
from dune_bench.cli.cache_teachers import cache_teachers
from dune_bench.cli.compare import compare
from dune_bench.cli.distill import distill
from dune_bench.cli.doctor import doctor
from dune_bench.cli.export import export
from dune_bench.cli.gate import gate
from dune_bench.cli.list import list_names
from dune_bench.cli.panel import panel
from dune_bench.cli.prepare import prepare
from dune_bench.cli.profile import profile
from dune_bench.cli.report import report
from dune_bench.cli.run import run
from dune_bench.cli.score_reloc import score_reloc
from dune_bench.cli.show import show
from dune_bench.errors import BenchError, ExitCode

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""


READ_ONLY = ("list", "show")
"""Verbs that only print: a reader that has seen enough (`| head -1`) is no error of theirs."""


class BenchGroup(TyperGroup):
    """The command group; turns known errors into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            try:
                return super().invoke(ctx)
            except BenchError as error:
                typer.echo(f"error: {one_line(str(error))}", err=True)
                raise typer.Exit(int(error.exit_code)) from error
            except BrokenPipeError as closed:
                if ctx.invoked_subcommand not in READ_ONLY:
                    raise  # work was cut short: not exit code 0
                # Python flushes stdout once more when it exits.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(int(ExitCode.OK)) from closed
            except KeyboardInterrupt as stop:
                # A verb that knows better says so.
                what = str(stop) or "what is finished is kept; the same command resumes"
                typer.echo(f"interrupted: {what}", err=True)
                raise typer.Exit(INTERRUPTED) from stop


def one_line(text: str) -> str:
    """Any text on one line."""
    return " ".join(text.split())


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line on stderr; the place in the code helps nobody who types a command."""
    del category, filename, lineno, line
    print(f"warning: {one_line(str(message))}", file=file or sys.stderr)


def _version(asked: bool) -> None:
    if asked:
        from dune_bench import __version__

        typer.echo(f"dune-bench {__version__}")
        raise typer.Exit(ExitCode.OK)


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Benchmark and evaluation suite for universal vision encoders.

    Start with `dune-bench doctor` and `dune-bench run`.

    Exit codes: 0 ok, 1 a task failed or got worse, 2 usage, 3 not available or not comparable.
    """
    del version


app = typer.Typer(
    name="dune-bench",
    cls=BenchGroup,
    callback=_root,
    no_args_is_help=True,
    # Plain help: drawing boxes would import rich, a third of the time that --help may take.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
_VERBS: dict[str, tuple[Callable[..., None], str]] = {
    "run": (run, "Evaluate encoders on tasks."),
    "list": (list_names, "List encoders, tasks, suites, ..."),
    "show": (show, "Show a card, or the result schema."),
    "prepare": (prepare, "Make a dataset ready, or check it."),
    "panel": (panel, "Draw what an encoder predicts."),
    "report": (report, "Write the leaderboard from results."),
    "compare": (compare, "Compare two encoders, sample by sample."),
    "distill": (distill, "Train a student from teachers, as DUNE was."),
    "cache-teachers": (cache_teachers, "Store what a recipe's teachers say."),
    "gate": (gate, "Did a checkpoint get worse? By exit code."),
    "profile": (profile, "Measure what an encoder costs."),
    "export": (export, "Write an encoder as ONNX or torch.export."),
    "score-reloc": (score_reloc, "Score a Map-free submission."),
    "doctor": (doctor, "Say what works here, what is missing."),
}
for _name, (_verb, _help) in _VERBS.items():
    app.command(_name, short_help=_help)(_verb)
app.add_typer(cache_app, name="cache")
app.add_typer(analyze_app, name="analyze")


def main() -> None:
    """Entry point of the command line."""
    app(prog_name="dune-bench")
