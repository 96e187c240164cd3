"""What stops a training, and what it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from dune_bench.engine import checkpoint
from dune_bench.engine.data import Pick, ShuffledEpochs, loader
from dune_bench.engine.processes import Processes
from dune_bench.engine.step import StepContext
from dune_bench.engine.terms import LossTerm
from dune_bench.engine.train import train
from dune_bench.errors import BenchError, TaskError, UnavailableError, UsageError
from tests.engine.toy import SEED, Batch, ToyData, recipe, toy, toy_loss


def bad_from_step_5(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
    terms = dict(toy_loss(module, batch, context))
    if context.step >= 5:
        terms["size"] = LossTerm(terms["size"].total * torch.inf, terms["size"].count)
    return terms


def steep_from_step_5(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
    """The root of 0 has a value but no finite slope."""
    root = (module(batch.inputs) * 0.0).square().sum().sqrt()
    flat = toy_loss(module, batch, context)["error"]
    return {"error": LossTerm(flat.total + root, flat.count) if context.step >= 5 else flat}


@pytest.mark.parametrize(
    ("loss", "message", "names"),
    [
        (bad_from_step_5, "size not finite; samples toy/", ["size"]),
        (steep_from_step_5, "gradient norm not finite; samples toy/", ["gradient norm"]),
    ],
)
def test_bad_number_stops_and_names_itself(
    loss: object, message: str, names: list[str], tmp_path: Path
) -> None:
    module = toy()
    with pytest.raises(TaskError, match=f"training stopped at step 6: {message}") as stopped:
        train(module, loss, ToyData(), recipe(), folder=tmp_path, seed=SEED)  # type: ignore[arg-type]
    assert "\n" not in str(stopped.value)
    assert str(tmp_path / "failed-step-000005") in str(stopped.value)
    state = json.loads((tmp_path / "failed-step-000005" / "state.json").read_text("utf-8"))
    assert state["notes"]["not_finite"] == names
    assert len(state["notes"]["samples"]) == 8
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert checkpoint.newest(tmp_path) is None, "a failed state is not gone on with"


def test_bad_number_names_the_samples_of_its_micro_batch_only(tmp_path: Path) -> None:
    met: list[tuple[int, ...]] = []

    def loss(module: nn.Module, batch: Batch, context: StepContext) -> Mapping[str, LossTerm]:
        error = toy_loss(module, batch, context)["error"]
        if 11 in batch.index:
            met.append(batch.index)
            error = LossTerm(error.total * torch.nan, error.count)
        return {"error": error}

    with pytest.raises(TaskError, match="error not finite") as stopped:
        train(toy(), loss, ToyData(), recipe(accumulate=4), folder=None, seed=SEED)
    assert str(stopped.value).endswith("samples " + ", ".join(f"toy/{index}" for index in met[0]))


class BrokenData(ToyData):
    def batch(self, picks: Sequence[Pick]) -> Batch:
        if any(pick.index == 11 for pick in picks):
            raise TaskError("toy/11 cannot be read: fetch it again")
        return super().batch(picks)


@pytest.mark.parametrize("workers", [0, 1])
def test_error_of_the_data_stays_one_line(workers: int) -> None:
    with pytest.raises(BenchError) as stopped:
        train(toy(), toy_loss, BrokenData(), recipe(workers=workers), folder=None, seed=SEED)
    assert str(stopped.value) == "toy/11 cannot be read: fetch it again"


def test_batch_that_cannot_be_shared_out_is_refused() -> None:
    three = Processes(1, 3, torch.device("cpu"))
    with pytest.raises(UsageError, match=r"batch_size 8 .* 3 process\(es\) × 2 micro-batch.* multiple of 6"):
        loader(ToyData(), ShuffledEpochs(37, SEED), recipe(accumulate=2), three, 0)


class NoData(ToyData):
    def __len__(self) -> int:
        return 0


def test_no_data_are_refused() -> None:
    with pytest.raises(UsageError, match="no sample"):
        train(toy(), toy_loss, NoData(), recipe(), folder=None, seed=SEED)


def test_loss_without_terms_is_refused() -> None:
    with pytest.raises(TaskError, match="no term"):
        train(toy(), lambda *_: {}, ToyData(), recipe(), folder=None, seed=SEED)


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "step-000012").write_text("in the way")
    with pytest.raises(BenchError) as stopped:
        train(toy(), toy_loss, ToyData(), recipe(), folder=tmp_path, seed=SEED)
    assert "step-000012" in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_a_device_without_bfloat16_is_one_line_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Processes(0, 1, torch.device("cuda"))
    monkeypatch.setattr("dune_bench.engine.train.join", lambda device: old)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old card")
    with pytest.raises(UnavailableError, match="an old card has no bfloat16"):
        train(toy(), toy_loss, ToyData(), recipe(dtype="bfloat16"), folder=None, seed=SEED, device="cuda")
