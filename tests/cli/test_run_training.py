"""`dune-bench run` with a decoder that is trained: killed and run again it gives the same head, `--fresh`
starts anew, and a folder that cannot be written is one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dune_bench.engine.record import StepLine
from dune_bench.engine.tracking import StepLog
from dune_bench.registry.cards import TaskCard, load_card
from tests.cli.conftest import Answer, Command
from tests.data.minirooms_fixture import write_tiny_minirooms, write_tiny_people

ROOT = Path(__file__).resolve().parents[2]
CARD = ROOT / "tasks/recon3d_minirooms_mast3r_mini.yaml"
PEOPLE = ROOT / "tasks/hmr_minirooms_people_multihmr_mini.yaml"
STEPS = 20


def small_card() -> dict[str, Any]:
    """The shipped task with a tiny decoder, 20 steps and a checkpoint after each second one."""
    card = load_card(CARD, TaskCard).model_dump(mode="json", exclude_none=True)
    training = card["protocol"]["training"]
    training["decoder"] |= {"width": 32, "depth": 2, "heads": 2, "descriptor_hidden": 32}
    training["pairs"] |= {"correspondences": 16}
    training["recipe"] |= {"steps": STEPS, "warmup_steps": 2, "checkpoint_every": 2, "log_every": 1}
    return card | {"id": "recon3d/tinyrooms/mast3r-mini@1", "suites": ["tiny"], "seeds": [0]}


def small_people_card() -> dict[str, Any]:
    """The same of the human head."""
    card = load_card(PEOPLE, TaskCard).model_dump(mode="json", exclude_none=True)
    training = card["protocol"]["training"]
    training["shape"] |= {"width": 32, "heads": 2, "mlp": 32}
    training["recipe"] |= {"steps": STEPS, "batch_size": 4, "warmup_steps": 2}
    training["recipe"] |= {"checkpoint_every": 2, "log_every": 1}
    return card | {"id": "hmr/tinyrooms/multihmr-mini@1", "suites": ["tiny-people"], "seeds": [0]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rooms, cards, and a cache that the runs share, so that only the training is done again."""
    root = tmp_path_factory.mktemp("world")
    write_tiny_minirooms(root / "rooms", rooms_train=2, rooms_test=2, views=3)
    write_tiny_people(root / "rooms", rooms=1, views=1)
    (root / "cards/tasks").mkdir(parents=True)
    (root / "cards/tasks/tiny.yaml").write_text(yaml.safe_dump(small_card()), encoding="utf-8")
    (root / "cards/tasks/people.yaml").write_text(yaml.safe_dump(small_people_card()), encoding="utf-8")
    suites = "tiny: a decoder in 20 steps\ntiny-people: a human head in 20 steps\n"
    (root / "cards/tasks/suites.yaml").write_text(suites, encoding="utf-8")
    return root


@pytest.fixture
def arguments(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(world / "cache"))
    places = ["--include", str(world / "cards"), "--data", str(world / "rooms")]
    return ["run", "--encoder", "pixels", "--suite", "tiny", "--resolution", "56", "--offline", *places]


def head(runs: str) -> bytes:
    (path,) = Path(runs, "heads").rglob("*.safetensors")
    return path.read_bytes()


def log(runs: str) -> list[str]:
    (path,) = Path(runs, "training").rglob("log.jsonl")
    return path.read_text("utf-8").splitlines()


def checkpoints(runs: str) -> list[Path]:
    return sorted(Path(runs, "training").rglob("step-*"))


def calm(command: Command, arguments: list[str], runs: str) -> None:
    answer = command(*arguments, "--runs", runs)
    assert answer.code == 0, answer.err


def failure(answer: Answer) -> str:
    """Why the task failed, which must be a single line."""
    (line,) = [line for line in answer.err.splitlines() if "training in runs/training/" in line]
    assert "Traceback" not in answer.err
    return line


def kill_in_training(arguments: list[str], runs: str) -> list[str]:
    """kill -9 once a checkpoint is there; the log that the process left."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    line = [sys.executable, "-m", "dune_bench", *arguments, "--runs", runs]
    with subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not checkpoints(runs):
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(Path(runs, "heads").rglob("*.safetensors")), "it was killed too late"
    return log(runs)


@pytest.mark.parametrize("suite", ["tiny", "tiny-people"])
def test_kill_9_in_training_then_the_same_command_gives_the_same_head(
    command: Command, arguments: list[str], suite: str
) -> None:
    arguments[arguments.index("tiny")] = suite
    calm(command, arguments, "calm")
    assert len(log("calm")) == STEPS
    assert checkpoints("calm") == [], "a finished training leaves its log alone"
    before = kill_in_training(arguments, "shaken")
    step = max(int(path.name.removeprefix("step-")) for path in checkpoints("shaken"))
    assert 2 <= step < STEPS
    shutil.copytree("shaken", "anew")
    calm(command, arguments, "shaken")
    assert head("shaken") == head("calm")
    assert checkpoints("shaken") == []
    # The clock's seconds tell that these lines are still those of the killed process.
    assert log("shaken")[:step] == before[:step]
    assert without_seconds(log("shaken")) == without_seconds(log("calm"))
    calm(command, [*arguments, "--fresh"], "anew")
    assert log("anew")[0] != before[0], "--fresh went on with an old training"
    assert head("anew") == head("calm")
    assert checkpoints("anew") == []


def without_seconds(lines: list[str]) -> list[dict[str, Any]]:
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def test_a_training_folder_that_cannot_be_written_is_one_line(command: Command, arguments: list[str]) -> None:
    Path("runs").mkdir()
    Path("runs/training").write_text("in the way", encoding="utf-8")
    answer = command(*arguments)
    assert answer.code == 1
    assert "stopped: Not a directory: make it writable, with room on the disk" in failure(answer)


def test_a_full_disk_in_training_is_one_line_and_room_lets_it_go_on(
    command: Command, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = StepLog.add

    def full(self: StepLog, line: StepLine) -> None:
        if line.step == 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(self, line)

    monkeypatch.setattr(StepLog, "add", full)
    answer = command(*arguments)
    assert answer.code == 1
    assert "stopped: No space left on device: make it writable, with room" in failure(answer)
    assert [path.name for path in checkpoints("runs")] == ["step-000008", "step-000010"]
    before = log("runs")
    monkeypatch.setattr(StepLog, "add", written)
    calm(command, arguments, "runs")
    assert log("runs")[:10] == before[:10]
    assert len(log("runs")) == STEPS
