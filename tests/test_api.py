"""The Python API: what it promises in its signatures, and the same numbers as the command line."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

import dune_bench
from dune_bench.encoders.base import Encoder
from dune_bench.errors import UnavailableError, UsageError
from dune_bench.registry import lookup
from dune_bench.registry.cards import EncoderCard
from dune_bench.run.request import RunRequest
from tests.data.minirooms_fixture import write_tiny_minirooms

COLUMNS = ["encoder", "task", "metric", "value", "unit", "ci_low", "ci_high", "primary", "status"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lookup, "_registered", [])
    lookup.load_registry.cache_clear()
    yield
    lookup.load_registry.cache_clear()


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=3, rooms_test=2, views=2)
    return root


def test_run_takes_every_option_of_a_request() -> None:
    parameters = set(inspect.signature(dune_bench.run).parameters) - {"ui"}
    assert parameters == {field.name for field in fields(RunRequest)}


def test_defaults_of_run_are_those_of_a_request() -> None:
    plain = RunRequest(encoders=())
    for name, parameter in inspect.signature(dune_bench.run).parameters.items():
        if name not in ("encoders", "ui"):
            default = parameter.default
            assert (Path(default) if name == "runs" else default) == getattr(plain, name), name


@pytest.mark.parametrize(
    "first",
    [
        "dune_bench.run",
        "dune_bench.results",
        "dune_bench.run.request, dune_bench.results.store",
        "dune_bench",
    ],
)
def test_functions_stay_functions_whatever_was_imported_before(first: str) -> None:
    """`run` and `results` are also parts of the package; importing these must not hide the functions."""
    code = (
        f"import {first}, dune_bench, inspect\n"
        "from dune_bench import results, run\n"
        "import dune_bench.run.request as part\n"
        "assert dune_bench.run.request is part\n"
        "for function in (run, dune_bench.run): assert 'encoders' in inspect.signature(function).parameters\n"
        "for function in (results, dune_bench.results): print(list(function('nowhere').columns))\n"
    )
    root = Path(dune_bench.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout.splitlines() == [str(COLUMNS)] * 2, done.stderr


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod_encoder'"):
        _ = dune_bench.lod_encoder


def test_all_names_are_there() -> None:
    assert {name for name in dune_bench.__all__ if getattr(dune_bench, name) is None} == set()
    assert dir(dune_bench) == sorted(dune_bench.__all__)


def test_run_returns_its_own_rows_and_results_all_of_them(rooms: Path) -> None:
    first = dune_bench.run("pixels", "depth", data=rooms, resolution=56)
    assert list(first.columns) == COLUMNS
    assert set(first.status) == {"ok"}
    assert first.primary.sum() == 1
    assert np.isfinite(first.value[first.primary]).all()
    second = dune_bench.run(["pixels"], "depth", data=rooms, resolution=28)
    assert len(dune_bench.results()) == len(first) + len(second)


def test_a_failed_encoder_is_a_row_not_an_exception(rooms: Path) -> None:
    frame = dune_bench.run("dune_vitb", "depth", data=rooms, offline=True)
    assert list(frame.status) == ["unavailable"]
    assert frame.value.isna().all()


def test_an_encoder_object_can_be_run(rooms: Path) -> None:
    module = torch.nn.AvgPool2d(14)
    frame = dune_bench.run(Encoder.from_module(module, 14, id="mine"), "depth", data=rooms, resolution=56)
    assert set(frame.status) == {"ok"}
    assert frame.encoder.str.startswith("mine").all()


def test_wrong_requests_raise_what_the_command_line_prints(rooms: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown encoder 'pixel' \(did you mean pixels"):
        dune_bench.run("pixel", data=rooms)
    with pytest.raises(UnavailableError, match="--weights PATH"):
        dune_bench.load_encoder("dune_vitb", offline=True)


def test_load_encoder_gives_features_of_the_right_shape() -> None:
    encoder = dune_bench.load_encoder("pixels", device="cpu")
    features = encoder.encode(torch.rand(2, 3, 28, 42), [encoder.default_view])[encoder.default_view]
    assert features.patch.shape[0] == 2
    assert features.patch.shape[2:] == (2, 3)


def test_a_registered_encoder_can_be_loaded_by_name() -> None:
    dune_bench.register_encoder(
        EncoderCard(id="big_pixels", kind="pixels", arch={"patch": 28}, views={"default": "raw"})
    )
    assert dune_bench.load_encoder("big_pixels").patch_size == 28
    with pytest.raises(UsageError, match="already defined"):
        dune_bench.register_encoder(EncoderCard(id="big_pixels", kind="pixels"))
