"""Where the losses are written: a JSON line per logged step, and mmengine's tracker backends."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from dune_bench.engine.mm import (
    BaseVisBackend,
    MLflowVisBackend,
    TensorboardVisBackend,
    Visualizer,
    WandbVisBackend,
)
from dune_bench.engine.record import StepLine
from dune_bench.errors import TaskError, UnavailableError, UsageError

Tracker = Literal["tensorboard", "wandb", "mlflow"]


class StepLog:
    """`log.jsonl`: after a resume the same as an undisturbed run's, but for the seconds."""

    def __init__(self, path: Path | None, first: int) -> None:
        """Cuts what was logged after step `first`.  path: None keeps the lines in memory alone."""
        self._path = path
        self.lines: list[StepLine] = []
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self.lines, size = _read(path, first)
            os.truncate(path, size)

    def add(self, line: StepLine) -> None:
        self.lines.append(line)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_text(line))

    def to_disk(self) -> None:
        """Before a checkpoint, so that it never knows more steps than the log."""
        if self._path is not None:
            with self._path.open("rb") as file:
                os.fsync(file.fileno())


def _text(line: StepLine) -> str:
    return json.dumps(line.as_json(), ensure_ascii=False) + "\n"


def _read(path: Path, last: int) -> tuple[list[StepLine], int]:
    """Lines up to step `last` and the bytes they take.  What follows may be half a line."""
    lines: list[StepLine] = []
    size = 0
    for number, text in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            line = StepLine(**json.loads(text))
        except (ValueError, TypeError) as error:
            if not text.endswith(b"\n"):
                break
            raise TaskError(f"{path}:{number} is no line of a training log: {error}") from error
        if line.step > last or not text.endswith(b"\n"):
            break
        lines.append(line)
        size += len(text)
    return lines, size


class _Tensorboard(TensorboardVisBackend):  # type: ignore[misc]  # mmengine has no types
    """Hides what an interrupted run wrote after the checkpoint."""

    def __init__(self, save_dir: str, first: int) -> None:
        super().__init__(save_dir)
        self._first = first

    def _init_env(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._tensorboard = SummaryWriter(self._save_dir, purge_step=self._first + 1)


class _Wandb(WandbVisBackend):  # type: ignore[misc]
    """Logs by step and ends the run; mmengine's counts its own calls, and ends by a call that is gone."""

    def add_scalars(
        self, scalar_dict: dict[str, float], step: int = 0, file_path: str | None = None, **options: Any
    ) -> None:
        self.experiment.log(scalar_dict, step=step)

    def close(self) -> None:
        if hasattr(self, "_wandb"):
            self._wandb.finish()


class _Mlflow(MLflowVisBackend):  # type: ignore[misc]
    """Ends the run; mmengine's would first upload whatever lies in its work folder."""

    def close(self) -> None:
        if hasattr(self, "_mlflow"):
            self._mlflow.end_run()


def visualizer(
    name: str, trackers: Collection[Tracker], folder: Path | None, run: Mapping[str, Any], first: int
) -> Visualizer:
    """mmengine's visualizer with these backends, which write below `folder`.

    Raises UsageError for an unknown tracker or no folder, UnavailableError for a missing package.
    """
    backends: list[BaseVisBackend] = []
    for tracker in trackers:
        if tracker not in get_args(Tracker):
            raise UsageError(f"no tracker is called {tracker!r}: there are {', '.join(get_args(Tracker))}")
        if folder is None:
            raise UsageError(f"the tracker {tracker} needs a folder to write to")
        if find_spec(tracker) is None:
            raise UnavailableError(
                f"{tracker} is not installed; from the dune-bench folder: pip install '.[{tracker}]'"
            )
        backends.append(_backend(tracker, folder / tracker, run, first))
    return Visualizer(name=name, vis_backends=backends)


def _backend(tracker: Tracker, folder: Path, run: Mapping[str, Any], first: int) -> BaseVisBackend:
    match tracker:
        case "tensorboard":
            return _Tensorboard(str(folder), first)
        case "wandb":
            # The same id each time the folder is resumed.
            same = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
            start = {"project": "dune-bench", "id": same, "resume": "allow", "config": dict(run)}
            return _Wandb(str(folder), init_kwargs=start)
        case "mlflow":
            # Not mmengine's default, plain files, which newer versions refuse.
            here = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
            server = os.environ.get("MLFLOW_TRACKING_URI", here)
            return _Mlflow(str(folder), exp_name="dune-bench", params=_flat(run), tracking_uri=server)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings with dotted keys."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[prefix + key] = inner
    return flat


def scalars(line: StepLine) -> dict[str, float]:
    """The line as the trackers show it: `loss`, `terms/NAME`, `lr`, `grad_norm`, `seconds/PHASE`."""
    found: dict[str, float | None] = {"loss": line.loss, "lr": line.lr, "grad_norm": line.grad_norm}
    found |= {f"terms/{name}": value for name, value in line.terms.items()}
    found |= {f"seconds/{phase}": value for phase, value in line.seconds.items()}
    return {name: value for name, value in found.items() if value is not None}
