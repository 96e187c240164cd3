"""Every task with the encoder on a GPU that is only pretended: what stays behind on the CPU is seen here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dune_bench
import dune_bench.engine.train as engine
from dune_bench.engine.record import TrainingRecord
from tests.other_device import OtherDevice, pretend_a_gpu

TASKS = {"mini": 6, "mini-long": 5}


@pytest.mark.slow
@pytest.mark.parametrize("suite", TASKS)
def test_no_task_leaves_tensors_on_another_device(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = engine.train
    few = {"steps": 3, "warmup_steps": 0, "checkpoint_every": 2, "batch_size": 4}

    def short(module: Any, loss: Any, data: Any, recipe: Any, **options: Any) -> TrainingRecord:
        return trained(module, loss, data, recipe.model_copy(update=few), **options)

    monkeypatch.setattr(engine, "train", short)
    pretend_a_gpu(monkeypatch)
    with OtherDevice():
        frame = dune_bench.run(
            "random_vits14", suite=suite, device="cuda", seeds=[0], limit=8, runs=tmp_path, keep_going=False
        )
    for file in tmp_path.glob("results/*/*.json"):
        assert json.loads(file.read_text("utf-8")).get("failure") is None
    assert set(frame["status"]) == {"ok"}
    assert frame["task"].nunique() == TASKS[suite]
