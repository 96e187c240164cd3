"""Evaluation of a student while it trains, by the ordinary `dune-bench run`."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dune_bench.distill.recipe import DistillRecipe, Evaluation

logger = logging.getLogger(__name__)

FOLDER = "eval"
Inline = Callable[[Path, Evaluation, Path], None]
"""(folder of the student, what to run, folder of results): runs it in this process."""
Write = Callable[[Path, str], None]
"""Writes the student as it is now to a folder, under an id."""
_TORCHRUN = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)


class Evaluator:
    """Runs the student of a step on tasks; results in FOLDER/eval, one encoder `ID-stepN` for each step.

    inline: how to run in this process, for `mode: inline`; without it, that waits for a process of its own.
    An evaluation that fails is said, and the training goes on.
    """

    def __init__(self, recipe: DistillRecipe, folder: Path, inline: Inline | None = None) -> None:
        if recipe.evaluate is None:
            raise ValueError("the recipe asks for no evaluation")
        self._asked, self._id, self._inline = recipe.evaluate, recipe.id, inline
        self._folder = folder / FOLDER
        self._running: tuple[subprocess.Popen[bytes], Path] | None = None

    def start(self, step: int, write: Write) -> None:
        """Evaluates what `write` writes; in a process of its own it goes on after this returns."""
        self.wait()
        encoder = self._folder / f"student-{step:06d}"
        write(encoder, f"{self._id}-step{step:06d}")
        if self._asked.mode == "inline" and self._inline is not None:
            self._inline(encoder, self._asked, self._folder)
            shutil.rmtree(encoder)
            return
        log = self._folder / f"run-{step:06d}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603  # our own program
                self.command(encoder), stdout=stream, stderr=subprocess.STDOUT, env=_alone()
            )
        self._running = (process, encoder)
        if self._asked.mode == "inline":
            self.wait()

    def command(self, encoder: Path) -> list[str]:
        """The command line of an evaluation."""
        asked = self._asked
        limit = [] if asked.limit is None else ["--limit", str(asked.limit)]
        return [
            *(sys.executable, "-m", "dune_bench", "run", "--encoder", str(encoder), "--tasks", asked.tasks),
            *("--suite", asked.suite, "--runs", str(self._folder), *limit),
        ]

    def wait(self) -> None:
        """Until the evaluation that runs has ended."""
        if self._running is None:
            return
        process, encoder = self._running
        self._running = None
        if code := process.wait():
            step = encoder.name.removeprefix("student-")
            logger.warning("evaluation of step %s ended with %d: %s", step, code, f"run-{step}.log")
        shutil.rmtree(encoder, ignore_errors=True)

    def stop(self) -> None:
        """Ends what still runs: the training has failed."""
        if self._running is not None:
            self._running[0].terminate()
            self.wait()


def _alone() -> dict[str, str]:
    """The environment without what makes a process one of several of a training."""
    return {key: value for key, value in os.environ.items() if key not in _TORCHRUN}
