"""Two processes: the step of one with the whole batch, or as the original, each on its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dune_bench.distill.data import DistillData
from dune_bench.distill.groups import open_groups
from dune_bench.distill.train import first_student, make_objective, order_of
from dune_bench.engine import checkpoint
from dune_bench.engine.data import derived_seed
from dune_bench.engine.processes import Processes
from dune_bench.errors import UsageError
from tests.distill.small import felt, log_of, pictures, recipe, run, teachers
from tests.engine.test_parallel import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes have trained, started as torchrun does."""
    folder = tmp_path_factory.mktemp("two")
    pictures(folder / "pictures")
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.distill.small", str(folder), "--parallel"],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return folder


def test_two_processes_are_one_with_the_whole_batch(two: Path, tmp_path: Path) -> None:
    run(tmp_path, two / "pictures")
    ours, theirs = log_of(tmp_path), log_of(two / "clean")
    assert len(ours) == 5
    worst = 0.0
    for one, both in zip(ours, theirs, strict=True):
        assert one["terms"].keys() == both["terms"].keys()
        for name, value in one["terms"].items():
            worst = max(worst, abs(value - both["terms"][name]))
    first, second = checkpoint.newest(tmp_path), checkpoint.newest(two / "clean")
    assert first is not None
    assert second is not None
    weights = max(
        float((value - second.model[name])[felt(name, len(value))].abs().max())
        for name, value in first.model.items()
    )
    print(f"losses differ by {worst:.2g}, weights by {weights:.2g}")
    assert worst < 1e-5
    assert weights < 1e-5


def test_original_divides_and_draws_in_each_process(two: Path) -> None:
    """The first step restated: statistics of both, quotients of each, truncated batches."""
    made = recipe(preset="dune-cvpr25")
    base = two / "pictures"
    data = DistillData(open_groups(made.data.groups, base), 28, made.data.augmentation)
    order = order_of(made, data, Processes(0, 2, torch.device("cpu")))
    whole = data.batch([order(place) for place in range(8)])
    assert whole.groups.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    student = first_student(made, teachers())
    objective = make_objective(made, teachers(), ("a", "b"), Processes(0, 1, torch.device("cpu")))
    with torch.no_grad():
        losses = objective.image_losses(student, whole, 1.0)
    stacked = torch.stack(list(losses.values()), 1)
    quotients = []
    kept_in_all = torch.zeros(2)
    for rank in range(2):
        part = stacked[4 * rank : 4 * rank + 4]
        generator = torch.Generator().manual_seed(derived_seed(made.seed, 0, rank, 0))
        kept = (torch.rand((4, 2), generator=generator) >= 0.5).float()
        kept[torch.arange(4), part.argmax(1)] = 1
        kept_in_all[rank] = kept.sum()
        quotients.append(float((kept * part).sum() / kept.sum()))
    logged = log_of(two / "original")[0]
    assert logged["loss"] == pytest.approx(sum(quotients) / 2, abs=1e-6)
    assert log_of(two / "clean")[0]["loss"] != pytest.approx(logged["loss"], abs=1e-6)


@pytest.mark.parametrize("name", ["clean", "original"])
def test_world_size_may_not_change_on_a_resume(two: Path, name: str) -> None:
    changes: dict[str, Any] = {} if name == "clean" else {"preset": "dune-cvpr25"}
    with pytest.raises(UsageError, match="processes: 2 there, 1 now"):
        run(two / name, two / "pictures", **changes)
