"""A distillation on a GPU that is only pretended: what stays behind on the CPU is seen here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dune_bench.distill.recipe import load_recipe
from dune_bench.distill.train import distill
from tests.other_device import OtherDevice, pretend_a_gpu


def test_student_and_teachers_leave_no_tensor_on_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe("smoke", ["training.steps=4"], None)
    pretend_a_gpu(monkeypatch)
    with OtherDevice():
        done = distill(recipe, tmp_path / "student", device="cuda")
    loss = done.record.lines[-1].loss
    assert done.record.steps == 4
    assert loss is not None
    assert math.isfinite(loss)
