"""`dune-bench profile` as its user meets it, on a tiny random ViT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dune_bench.cli.profile import parse_batch_sizes
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.errors import TaskError, UsageError
from dune_bench.results.profile import read_profile, read_profiles
from tests.cli.conftest import Command
from tests.cli.test_export import CARD

SMALL = ("--resolution", "28", "--repeats", "3", "--batch-sizes", "2")


@pytest.fixture(autouse=True)
def _cards(tmp_path: Path) -> None:
    folder = tmp_path / ".dune_bench" / "encoders"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(CARD)


def facts(text: str) -> dict[str, object]:
    return {k: v for k, v in json.loads(text).items() if k not in ("timings", "provenance")}


def test_facts_are_counted_right_and_the_same_twice(command: Command) -> None:
    first = command("profile", "tiny", *SMALL, "--format", "json")
    assert first.code == 0, first.err
    assert facts(first.out) == facts(command("profile", "tiny", *SMALL, "--format", "json").out)
    found = json.loads(first.out)
    width, tokens, patches = 24, 7, 4  # class, 2 registers, 2 x 2 patches
    block = 12 * width**2 * tokens + 2 * tokens**2 * width  # multiply-adds
    assert found["flops"] == 2 * (2 * block + patches * 3 * 14 * 14 * width)
    assert found["tokens"] == [2, 2]
    assert found["weights"] == "random"
    assert [b["batch_size"] for b in found["timings"]["batches"]] == [1, 2]
    assert found["timings"]["batches"][0]["p95_ms"] >= found["timings"]["batches"][0]["p50_ms"] > 0
    (stored,), refused = read_profiles(Path("runs"))
    assert (stored.encoder, refused) == ("tiny", [])


def test_table_brands_random_weights(command: Command) -> None:
    answer = command("profile", "tiny", *SMALL)
    assert answer.code == 0, answer.err
    assert "tiny [random weights]" in answer.out
    assert "images/s at batch" in answer.out


def test_memory_that_runs_out_ends_the_batch_sizes_not_the_profile(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = VitEncoder._forward

    def limited(self: VitEncoder, images: object, views: object) -> object:
        if len(images) > 2:  # type: ignore[arg-type]
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, images, views)  # type: ignore[arg-type]

    monkeypatch.setattr(VitEncoder, "_forward", limited)
    answer = command("profile", "tiny", *SMALL[:-1], "2,4,8")
    assert answer.code == 0, answer.err
    assert "    4 out of memory" in answer.out


def test_encoder_that_fails_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("my own bug")

    monkeypatch.setattr(VitEncoder, "_forward", fail)
    answer = command("profile", "tiny", *SMALL)
    assert answer.code == 1
    assert "my own bug" in answer.error


@pytest.mark.parametrize("text", ["0", "1,x", ",", "-1"])
def test_batch_sizes_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--batch-sizes"):
        parse_batch_sizes(text)


@pytest.mark.parametrize("text", ["{", "[]", '{"profile": 99}', '{"profile": 1}'])
def test_damaged_profile_is_named_not_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "runs" / "profiles" / "x" / "y.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(TaskError, match=r"y\.json"):
        read_profile(path)
    assert len(read_profiles(tmp_path / "runs")[1]) == 1
