"""mmengine's Runner without its effects outside: it prints nothing, seeds nothing, leaves no file."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from torch import nn

from dune_bench.engine.checkpoint import Checkpoint, keep_newest, save
from dune_bench.engine.data import TrainingData, next_batches
from dune_bench.engine.mm import BaseLoop, DefaultScope, Hook, MessageHub, MMLogger, Runner, Visualizer
from dune_bench.engine.optimizer import StepOptimizer
from dune_bench.engine.processes import Processes
from dune_bench.engine.recipe import Recipe
from dune_bench.engine.record import StepClock, StepLine
from dune_bench.engine.step import Objective, ParallelObjective, StepData, StepOutcome
from dune_bench.engine.tracking import StepLog, scalars
from dune_bench.errors import TaskError

_DEFAULT_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")


class SupportsUpdate(Protocol):
    """Where a training says how far it is."""

    def update(self, done: float, total: float, note: str = "") -> None: ...


@dataclass(frozen=True)
class Every:
    """Calls `call(module, steps taken)` on every process after each `steps` steps and after the last.

    It comes after the checkpoint of that step, and its time is no part of a step's.  It leaves the
    module in the mode in which it found it.
    """

    steps: int
    call: Callable[[nn.Module, int], None]


@dataclass(frozen=True)
class Session:
    """One training, as its loop and hooks see it.  first: the steps that a checkpoint had taken.
    snapshot: the state after so many steps, with notes."""

    recipe: Recipe
    seed: int
    data: TrainingData
    processes: Processes
    folder: Path | None
    first: int
    clock: StepClock
    log: StepLog
    progress: SupportsUpdate
    snapshot: Callable[[int, dict[str, Any]], Checkpoint]
    find_unused_parameters: bool
    name: str


class StepLoop(BaseLoop):  # type: ignore[misc]  # mmengine has no types
    """Steps by number.  mmengine's own loop would read all the data again on a resume."""

    def __init__(self, runner: EngineRunner, dataloader: Any) -> None:
        super().__init__(runner, dataloader)
        self.iter = runner.session.first
        self.max_iters = runner.session.recipe.steps

    def run(self) -> nn.Module:
        session: Session = self.runner.session
        batches = iter(self.dataloader)
        self.runner.call_hook("before_train")
        while self.iter < self.max_iters:
            with session.clock.step():
                outcome = self._step(batches)
            self.runner.call_hook("after_train_iter", batch_idx=self.iter, outputs=outcome)
            self.iter += 1
        self.runner.call_hook("after_train")
        model: nn.Module = self.runner.model
        return model

    def _step(self, batches: Iterator[Any]) -> StepOutcome:
        session: Session = self.runner.session
        self.runner.call_hook("before_train_iter", batch_idx=self.iter)
        with session.clock.phase("data"):
            found = next_batches(batches, session.recipe.accumulate, session.processes.device)
        data = StepData(self.iter, self.max_iters, session.seed, found, session.clock)
        outcome: StepOutcome = self.runner.model.train_step(data, self.runner.optim_wrapper)
        if outcome.bad:
            _stop(session, self.iter, outcome)
        return outcome


def _stop(session: Session, step: int, outcome: StepOutcome) -> None:
    """Saves the weights before the step that failed, and says what was not finite where."""
    picks = [pick for batch in outcome.bad_batches for pick in batch.picks]
    ids = [name for names in session.processes.gather(list(session.data.describe(picks))) for name in names]
    what = " and ".join(outcome.bad)
    saved = ""
    if session.folder is not None and session.processes.first:
        notes = {"not_finite": list(outcome.bad), "samples": ids}
        saved = f"; state: {save(session.folder, session.snapshot(step, notes), 'failed-step')}"
    # A process that ends makes torchrun end the others: the first must have saved.
    session.processes.wait()
    more = f" and {len(ids) - 8} more" if len(ids) > 8 else ""
    raise TaskError(
        f"training stopped at step {step + 1}: {what} not finite; samples {', '.join(ids[:8])}{more}{saved}"
    )


class _Schedule(Hook):  # type: ignore[misc]
    """Sets the learning rate, which is a function of the step."""

    def before_train_iter(self, runner: EngineRunner, batch_idx: int, data_batch: Any = None) -> None:
        runner.optim_wrapper.set_learning_rate(batch_idx)


class _Report(Hook):  # type: ignore[misc]
    """Log lines, trackers and the progress bar."""

    def after_train_iter(
        self, runner: EngineRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        session, steps = runner.session, batch_idx + 1
        session.progress.update(steps, session.recipe.steps, _note(outputs))
        if steps % session.recipe.log_every and steps < session.recipe.steps:
            return
        rate = session.recipe.learning_rate(batch_idx)
        seconds = session.clock.lap()
        line = StepLine(steps, outputs.loss, outputs.terms, rate, outputs.grad_norm, seconds)
        session.log.add(line)
        runner.visualizer.add_scalars(scalars(line), step=steps)


def _note(outcome: StepOutcome) -> str:
    return "no loss" if outcome.loss is None else f"loss {outcome.loss:.4g}"


class _Checkpoints(Hook):  # type: ignore[misc]
    """Writes checkpoints; the last two stay, so that one may be damaged."""

    def after_train_iter(
        self, runner: EngineRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        session, steps = runner.session, batch_idx + 1
        due = steps % session.recipe.checkpoint_every == 0 or steps == session.recipe.steps
        if session.folder is not None and due:
            if session.processes.first:
                session.log.to_disk()
                save(session.folder, session.snapshot(steps, {}))
                keep_newest(session.folder, 2)
            session.processes.wait()


class _Callback(Hook):  # type: ignore[misc]
    """The caller's own."""

    def __init__(self, every: Every) -> None:
        self._every = every

    def after_train_iter(
        self, runner: EngineRunner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        steps = batch_idx + 1
        if steps % self._every.steps == 0 or steps == runner.session.recipe.steps:
            self._every.call(runner.objective.network, steps)


class EngineRunner(Runner):  # type: ignore[misc]
    """Runner whose environment, seeds and log are the engine's."""

    def __init__(
        self,
        session: Session,
        objective: Objective,
        optimizer: StepOptimizer,
        dataloader: Any,
        visualizer: Visualizer,
        hooks: tuple[Every, ...],
        work_dir: str,
    ) -> None:
        self.session = session
        self.objective = objective
        super().__init__(
            model=objective,
            work_dir=work_dir,
            train_dataloader=dataloader,
            train_cfg={"type": StepLoop},
            optim_wrapper=optimizer,
            default_hooks=dict.fromkeys(_DEFAULT_HOOKS),
            custom_hooks=[_Schedule(), _Report(), _Checkpoints(), *map(_Callback, hooks)],
            visualizer=visualizer,
            experiment_name=session.name,
        )

    def setup_env(self, env_cfg: Any) -> None:
        """mmengine's would change the start method of processes, OpenCV's threads and file limits."""
        del env_cfg
        self._rank, self._world_size = self.session.processes.rank, self.session.processes.world
        self._timestamp = time.strftime("%Y%m%d_%H%M%S")

    def set_randomness(self, seed: Any, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        """mmengine's would seed Python, NumPy and torch globally."""
        del seed, diff_rank_seed
        self._seed, self._deterministic = self.session.seed, deterministic

    def build_logger(self, log_level: Any = "INFO", log_file: Any = None, **options: Any) -> MMLogger:
        """The silent one."""
        del log_level, log_file, options
        return MMLogger.get_instance(self.session.name)

    def _log_env(self, env_cfg: Any) -> None:
        """Nothing: provenance is written with results, and asking for it here starts compilers."""

    def dump_config(self) -> None:
        """Nothing: the recipe is in the checkpoints."""

    def wrap_model(self, model_wrapper_cfg: Any, model: Objective) -> nn.Module:
        """DDP on this process's device.  Its forward pass takes the first process's buffers, which are
        those of a checkpoint."""
        del model_wrapper_cfg
        processes = self.session.processes
        if processes.world == 1:
            return model
        wrapped: nn.Module = ParallelObjective(
            module=model,
            device_ids=[processes.device] if processes.device.type == "cuda" else None,
            find_unused_parameters=self.session.find_unused_parameters,
        )
        return wrapped


@contextmanager
def private_instances() -> Iterator[tuple[str, str]]:
    """A name for one Runner and a work folder; mmengine's global instances of that name go with it."""
    name = f"dune-bench-{uuid.uuid4().hex}"
    logger = MMLogger.get_instance(name)
    logger.handlers = []
    # What asks for the current hub finds this one and makes no other.
    MessageHub.get_instance(name)
    with TemporaryDirectory(prefix="dune-bench-") as work_dir:
        try:
            yield name, work_dir
        finally:
            for kind in (MMLogger, MessageHub, Visualizer, DefaultScope):
                for key in [key for key in kind._instance_dict if key.startswith(name)]:
                    del kind._instance_dict[key]
