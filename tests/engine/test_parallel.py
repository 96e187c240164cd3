"""Two processes against one with the same global batch.  One start of two processes serves all tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dune_bench.engine.train import train
from dune_bench.errors import UsageError
from tests.engine.parallel_target import run_cases
from tests.engine.toy import SEED, ToyData, drawing_loss, recipe, toy

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """What each of two processes found, started with the variables that torchrun sets."""
    out = tmp_path_factory.mktemp("two") / "out.json"
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.engine.parallel_target", str(out)],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(err for _, err in said)
    assert [text for text, _ in said] == ["", ""], "a training prints nothing"
    results = [json.loads(out.with_name(f"out{rank}.json").read_text("utf-8")) for rank in range(2)]
    return out.parent, results


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return run_cases()


@pytest.mark.parametrize("case", ["whole", "micro", "clipped", "empty"])
def test_two_processes_are_not_another_training(case: str, two: Any, one: dict[str, Any]) -> None:
    _, results = two
    for result in results:
        assert len(result[case]["losses"]) == 12
        assert result[case]["losses"] == pytest.approx(one[case]["losses"], rel=1e-5)
        assert result[case]["weights"] == pytest.approx(one[case]["weights"], rel=1e-5, abs=1e-5)


def test_two_processes_resume_to_the_bit(two: Any) -> None:
    _, results = two
    for result in results:
        assert result["crashed"]
        assert result["resumed"].pop("from") == 6
        assert result["resumed"] == result["undisturbed"]


def test_loss_that_is_bad_on_one_process_stops_both(two: Any) -> None:
    folder, results = two
    for result in results:
        assert "error not finite; samples" in result["bad"]
        assert "toy/11" in result["bad"]
    assert (len(list((folder / "bad").glob("failed-step-*")))) == 1


def test_resume_with_other_processes_is_refused(two: Any) -> None:
    folder, _ = two
    with pytest.raises(UsageError, match="processes: 2 there, 1 now"):
        train(
            toy(0.2),
            drawing_loss,
            ToyData(),
            recipe(checkpoint_every=3),
            folder=folder / "run",
            seed=SEED,
        )
