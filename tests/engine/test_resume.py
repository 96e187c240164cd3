"""Resumes: killed at any moment, damaged files, and folders of another training."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dune_bench.engine import checkpoint
from dune_bench.engine.record import TrainingRecord
from dune_bench.engine.runner import Every
from dune_bench.engine.train import train
from dune_bench.errors import TaskError, UsageError
from tests.engine.toy import SEED, Toy, ToyData, drawing_loss, recipe, toy

ROOT = Path(__file__).parents[2]


def run(folder: Path, changes: dict[str, Any] | None = None, **options: Any) -> tuple[Toy, TrainingRecord]:
    module = toy(0.2)
    numbers = recipe(**{"checkpoint_every": 3, **(changes or {})})
    return module, train(module, drawing_loss, ToyData(), numbers, folder=folder, seed=SEED, **options)


def untimed(folder: Path) -> list[dict[str, Any]]:
    """The log without its timings."""
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def weights(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters())


def assert_same(got: Path, expected: Path) -> None:
    """Two folders of the same training, to the bit."""
    assert untimed(got) == untimed(expected)
    steps = sorted(path.name for path in expected.glob("step-*"))
    assert steps == sorted(path.name for path in got.glob("step-*"))
    for step in steps:
        for name in ("model.safetensors", "optimizer.safetensors"):
            assert (got / step / name).read_bytes() == (expected / step / name).read_bytes()


class CrashError(Exception):
    pass


def crash_at(step: int) -> Every:
    def call(module: nn.Module, steps: int) -> None:
        if steps == step:
            raise CrashError

    return Every(1, call)


def program(folder: Path, changes: dict[str, Any]) -> subprocess.Popen[str]:
    """The training as a process of its own: to the bit means in processes alike, with one number of
    threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.engine.toy", str(folder), json.dumps(changes)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def finished(folder: Path, changes: dict[str, Any]) -> str:
    """Trains to the end; the step that it went on from, or `None`."""
    out, _ = program(folder, changes).communicate(timeout=200)
    return out.split()[-1]


def killed_at(folder: Path, lines: int, changes: dict[str, Any]) -> None:
    """Trains and kills it as soon as it has logged so many lines."""
    process = program(folder, changes)
    log, deadline = folder / "log.jsonl", time.monotonic() + 200
    try:
        while not log.exists() or log.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()  # waits, and closes its pipe
    assert process.returncode == -signal.SIGKILL


def test_kill_9_at_any_moment_changes_no_bit(tmp_path: Path) -> None:
    changes = {"steps": 60, "checkpoint_every": 2}
    lines = random.SystemRandom().randint(1, 50)
    print(f"killed after {lines} lines")
    killed_at(tmp_path / "killed", lines, changes)
    before = checkpoint.newest(tmp_path / "killed")
    assert finished(tmp_path / "killed", changes) == str(None if before is None else before.step)
    finished(tmp_path / "undisturbed", changes)
    assert len(untimed(tmp_path / "killed")) == 60
    assert_same(tmp_path / "killed", tmp_path / "undisturbed")


def test_resume_does_not_repeat_or_skip_a_step(tmp_path: Path) -> None:
    run(tmp_path / "undisturbed")
    with pytest.raises(CrashError):
        run(tmp_path / "crashed", hooks=[crash_at(8)])
    assert len(untimed(tmp_path / "crashed")) == 8, "two lines more than the checkpoint knows"
    with (tmp_path / "crashed" / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    module, record = run(tmp_path / "crashed")
    assert record.resumed_from == 6
    assert [line.step for line in record.lines] == list(range(1, 13))
    assert_same(tmp_path / "crashed", tmp_path / "undisturbed")
    stored = checkpoint.newest(tmp_path / "crashed")
    assert stored is not None
    assert torch.equal(stored.model["head.weight"], module.head.weight)
    assert "frozen.weight" not in stored.model


def test_finished_training_is_not_trained_on(tmp_path: Path) -> None:
    first, record = run(tmp_path)
    again, same = run(tmp_path)
    assert same.lines == record.lines
    assert same.resumed_from == 12
    assert torch.equal(weights(again), weights(first))


@pytest.mark.parametrize("damage", ["model.safetensors", "optimizer.safetensors", "state.json", "missing"])
def test_damaged_checkpoint_is_passed_over_and_said(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "undisturbed")
    run(tmp_path / "damaged")
    newest = tmp_path / "damaged" / "step-000012"
    if damage == "missing":
        (newest / "model.safetensors").unlink()
    else:
        data = bytearray((newest / damage).read_bytes())
        data[-3] ^= 0xFF
        (newest / damage).write_bytes(bytes(data))
    with caplog.at_level(logging.WARNING, "dune_bench"):
        _, record = run(tmp_path / "damaged")
    assert record.resumed_from == 9
    warnings = [entry.getMessage() for entry in caplog.records]
    assert len(warnings) == 1
    assert "step-000012 is damaged" in warnings[0]
    assert_same(tmp_path / "damaged", tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"lr": 0.06}, {}, r"recipe.lr: 0.05 there, 0.06 now"),
        ({"batch_size": 4, "steps": 24}, {}, r"recipe.batch_size: 8 there, 4 now; recipe.steps: 12 there"),
        ({}, {"identity": {"encoder": {"weights": "b"}}}, r'identity.encoder.weights: "a" there, "b" now'),
        ({}, {"identity": {}}, r"identity.encoder: .* there, nothing now"),
    ],
)
def test_folder_of_another_training_is_refused(
    changes: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    identity = {"encoder": {"weights": "a"}}
    run(tmp_path, identity=identity)
    before = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(UsageError, match=message) as refused:
        run(tmp_path, changes, **{"identity": identity, **options})
    assert "\n" not in str(refused.value)
    assert (tmp_path / "log.jsonl").read_bytes() == before


def test_other_module_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    module = toy(0.2)
    module.head = nn.Linear(12, 3, bias=False)
    with pytest.raises(UsageError, match=r"tensor head.bias: \[3\] there, nothing now"):
        train(module, drawing_loss, ToyData(), recipe(checkpoint_every=3), folder=tmp_path, seed=SEED)


def test_loader_processes_and_checkpoint_interval_may_change(tmp_path: Path) -> None:
    run(tmp_path / "undisturbed", {"checkpoint_every": 4})
    with pytest.raises(CrashError):
        run(tmp_path / "crashed", {"checkpoint_every": 4}, hooks=[crash_at(7)])
    _, record = run(tmp_path / "crashed", {"checkpoint_every": 8, "workers": 1})
    assert record.resumed_from == 4
    assert untimed(tmp_path / "crashed") == untimed(tmp_path / "undisturbed")


def test_no_more_than_two_checkpoints_stay_and_nothing_unfinished(tmp_path: Path) -> None:
    (tmp_path / ".step-000003.unfinished").mkdir()
    run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "step-000009", "step-000012"]


def test_format_of_another_version_is_not_called_damaged(tmp_path: Path) -> None:
    run(tmp_path)
    state = tmp_path / "step-000012" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 99}))
    with pytest.raises(TaskError, match="format 99, this version reads 1"):
        run(tmp_path)
