"""The engine with the real dataset, probes and encoders, on tiny rooms."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dune_bench.errors import ExitCode
from dune_bench.registry.lookup import load_registry
from dune_bench.results.store import ResultStore
from dune_bench.run.execute import execute
from dune_bench.run.request import RunRequest, RunSummary
from tests.data.minirooms_fixture import write_tiny_minirooms
from tests.run.recorder import Recorder

ENCODER_FILE = '''\
"""A network of one convolution."""

import torch

PATCH_SIZE = 14

def encoder():
    net = torch.nn.Conv2d(3, 8, 14, 14)
    torch.nn.init.constant_(net.weight, 0.01)
    return net
'''


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=3, rooms_test=2, views=2, size=56)
    return root


@pytest.fixture
def small_tasks(tmp_path: Path) -> Path:
    """The two convex tasks at 56 px, and nothing else, as an --include folder."""
    folder = tmp_path / "include"
    (folder / "tasks").mkdir(parents=True)
    for card in load_registry().tasks.values():
        if card.id in ("semseg/minirooms/convex@1", "depth/minirooms/convex@1"):
            raw: dict[str, Any] = card.model_dump(mode="json", exclude_unset=True)
            raw["id"] = card.id.replace("minirooms", "tiny")
            raw["input"] = {"resolution": 56}
            raw["suites"] = []
            (folder / "tasks" / f"{card.probe}.yaml").write_text(yaml.safe_dump(raw))
    return folder


def run(*encoders: str, rooms: Path, include: Path, **options: Any) -> RunSummary:
    options.setdefault("tasks", "*/tiny/*")
    request = RunRequest(encoders=encoders, data=rooms, include=(include,), **options)
    return execute(request, Recorder())


def numbers(summary: RunSummary) -> dict[tuple[str, str, str], float]:
    return {
        (outcome.encoder, outcome.task, metric.id): metric.value
        for outcome in summary.outcomes
        for metric in outcome.result.metrics
        if metric.value is not None
    }


def test_task_is_added_by_one_card_alone_and_encoder_by_a_ten_line_file(
    rooms: Path, small_tasks: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(ENCODER_FILE)
    assert len(ENCODER_FILE.splitlines()) <= 10
    summary = run(str(file), "pixels", rooms=rooms, include=small_tasks)
    assert summary.exit_code is ExitCode.OK, [outcome.result.error for outcome in summary.outcomes]
    found = numbers(summary)
    for encoder in ("mine", "pixels"):
        assert 0 < found[encoder, "depth/tiny/convex@1", "rmse_m"] < 3
        assert 20 < found[encoder, "semseg/tiny/convex@1", "pixel_acc"] <= 100
    again = run(str(file), "pixels", rooms=rooms, include=small_tasks)
    assert [outcome.reused for outcome in again.outcomes] == [True] * 4
    good, refused = ResultStore(Path("runs")).load()
    assert (len(good), refused) == (4, [])


def test_changed_encoder_file_is_not_served_from_the_cache(
    rooms: Path, small_tasks: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(ENCODER_FILE)
    first = run(str(file), rooms=rooms, include=small_tasks, tasks="depth/tiny/*")
    file.write_text(ENCODER_FILE.replace("0.01", "0.02").replace("constant_", "ones_").replace(", 0.02", ""))
    second = run(str(file), rooms=rooms, include=small_tasks, tasks="depth/tiny/*")
    assert not second.outcomes[0].reused
    assert first.outcomes[0].result.encoder.digest != second.outcomes[0].result.encoder.digest


def test_batch_size_moves_no_metric_beyond_1e_6(rooms: Path, small_tasks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "include" / "encoders"
    folder.mkdir()
    arch = {"vit": {"width": 64, "depth": 2, "heads": 2, "patch": 14, "table": 4, "mask_token": False}}
    card = {"id": "small_vit", "kind": "random", "arch": arch}
    (folder / "small.yaml").write_text(yaml.safe_dump(card))
    found = [
        numbers(
            run(
                "small_vit",
                rooms=rooms,
                include=small_tasks,
                batch_size=size,
                runs=Path(f"runs{size}"),
                fresh=True,
            )
        )
        for size in (1, 4, 16)
    ]
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert len(found[0]) >= 8
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, abs=1e-6), name
        assert found[2][name] == pytest.approx(value, abs=1e-6), name
    again = run("small_vit", rooms=rooms, include=small_tasks, batch_size=4, runs=Path("again"), fresh=True)
    assert numbers(again) == found[1]


def test_missing_data_folder_is_unavailable_and_says_where(small_tasks: Path, tmp_path: Path) -> None:
    summary = run("pixels", rooms=tmp_path / "nowhere", include=small_tasks)
    assert summary.exit_code is ExitCode.UNAVAILABLE
    assert "nowhere" in str(summary.outcomes[0].result.error)


def test_damaged_shard_fails_with_one_line_and_keeps_what_is_finished(
    rooms: Path, small_tasks: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(rooms, copy)
    good = run("pixels", rooms=copy, include=small_tasks, tasks="depth/tiny/*")
    shard = copy / "test.zip"
    data = bytearray(shard.read_bytes())
    for position in range(1000, len(data) - 1000, 50):
        data[position] ^= 0x55
    shard.write_bytes(data)
    bad = run("pixels", rooms=copy, include=small_tasks, tasks="semseg/tiny/*", fresh=True)
    assert bad.exit_code is ExitCode.FAILED
    error = str(bad.outcomes[0].result.error)
    assert "test.zip" in error
    assert "\n" not in error
    assert good.outcomes[0].path.is_file()
