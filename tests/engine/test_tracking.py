"""Logs and trackers, where the time went, and that nothing else is printed, written or seeded."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dune_bench.engine.mm import MessageHub, MMLogger, Visualizer
from dune_bench.engine.record import PHASES
from dune_bench.engine.runner import Every
from dune_bench.engine.train import train
from dune_bench.errors import UnavailableError, UsageError
from tests.engine.toy import SEED, ToyData, drawing_loss, recipe, toy, toy_loss


def test_shares_sum_to_one_and_name_the_slow_part() -> None:
    record = train(toy(), toy_loss, ToyData(pause=0.02), recipe(log_every=5), folder=None, seed=SEED)
    assert [line.step for line in record.lines] == [5, 10, 12]
    shares = record.shares()
    assert tuple(shares) == PHASES
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0
    assert shares["data"] == max(shares.values())
    assert sum(sum(line.seconds.values()) for line in record.lines) > 12 * 0.02


def test_callbacks_take_no_time_of_a_step() -> None:
    def slow(module: nn.Module, steps: int) -> None:
        time.sleep(0.2)

    calls: list[int] = []
    hooks = [Every(12, slow), Every(5, lambda _, steps: calls.append(steps))]
    started = time.perf_counter()
    record = train(toy(), toy_loss, ToyData(), recipe(), folder=None, seed=SEED, hooks=hooks)
    elapsed = time.perf_counter() - started
    assert calls == [5, 10, 12]
    assert sum(sum(line.seconds.values()) for line in record.lines) < elapsed - 0.19


class Progress:
    def __init__(self) -> None:
        self.seen: list[tuple[float, float, str]] = []

    def update(self, done: float, total: float, note: str = "") -> None:
        self.seen.append((done, total, note))


def test_progress_reaches_the_end() -> None:
    progress = Progress()
    record = train(toy(), toy_loss, ToyData(), recipe(), folder=None, seed=SEED, progress=progress)
    assert [done for done, _, _ in progress.seen] == list(range(1, 13))
    assert progress.seen[-1][1:] == (12, f"loss {record.lines[-1].loss:.4g}")


def test_nothing_is_printed_written_elsewhere_or_seeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    states = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # noqa: NPY002
    instances = [len(kind._instance_dict) for kind in (MMLogger, MessageHub, Visualizer)]
    folder = tmp_path / "run"
    for seed in (1, 2):
        train(toy(0.3), drawing_loss, ToyData(), recipe(), folder=folder / str(seed), seed=seed)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert [len(kind._instance_dict) for kind in (MMLogger, MessageHub, Visualizer)] == instances


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


class CrashError(Exception):
    pass


def crash(module: nn.Module, steps: int) -> None:
    if steps == 8:
        raise CrashError


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path: Path) -> None:
    def run(*hooks: Every) -> Any:
        numbers = recipe(checkpoint_every=3)
        options = {"folder": tmp_path, "seed": SEED, "trackers": ("tensorboard",), "hooks": hooks}
        return train(toy(), toy_loss, ToyData(), numbers, **options)  # type: ignore[arg-type]

    with pytest.raises(CrashError):
        run(Every(1, crash))
    record = run()
    for tag, values in {
        "loss": [line.loss for line in record.lines],
        "terms/error": [line.terms["error"] for line in record.lines],
        "lr": [line.lr for line in record.lines],
    }.items():
        found = events(tmp_path / "tensorboard", tag)
        assert [step for step, _ in found] == list(range(1, 13))
        assert [value for _, value in found] == pytest.approx(values, rel=1e-6)


def test_wandb_is_given_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, Any]] = []
    logged: list[tuple[int, float]] = []
    ended: list[bool] = []
    package = ModuleType("wandb")
    package.__spec__ = SimpleNamespace(name="wandb")  # type: ignore[assignment]
    package.init = lambda **options: started.append(options)  # type: ignore[attr-defined]
    package.log = lambda values, step: logged.append((step, values["loss"]))  # type: ignore[attr-defined]
    package.finish = lambda: ended.append(True)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    numbers = recipe(log_every=6)
    record = train(toy(), toy_loss, ToyData(), numbers, folder=tmp_path, seed=SEED, trackers=("wandb",))
    assert logged == [(line.step, line.loss) for line in record.lines]
    assert ended == [True]
    assert started[0]["config"]["recipe"]["lr"] == 0.05


@pytest.mark.parametrize(
    ("tracker", "folder", "error", "message"),
    [
        ("csv", True, UsageError, "no tracker is called 'csv': there are tensorboard, wandb, mlflow"),
        ("tensorboard", False, UsageError, "needs a folder"),
        ("wandb", True, UnavailableError, r"wandb is not installed; .* pip install '.\[wandb\]'"),
    ],
)
def test_tracker_that_cannot_work_is_refused_before_the_first_step(
    tracker: Any, folder: bool, error: type[Exception], message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("dune_bench.engine.tracking.find_spec", lambda name: None)
    where = tmp_path if folder else None
    with pytest.raises(error, match=message):
        train(toy(), toy_loss, ToyData(), recipe(), folder=where, seed=SEED, trackers=(tracker,))
