"""The decoder released with an encoder, through whole runs: found, missing, exchanged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dune_bench.errors import ExitCode
from dune_bench.registry.lookup import load_registry
from dune_bench.registry.paths import features_cache, weights_cache
from dune_bench.run import released
from dune_bench.run.execute import execute
from dune_bench.run.request import Outcome, RunRequest
from tests.data.minirooms_fixture import write_tiny_minirooms
from tests.models.released_two_view import save_small

DIM = 16
TASK = "recon3d/minirooms/pretrained@1"


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=1, rooms_test=2, views=2, size=56)
    return root


@pytest.fixture
def include(tmp_path: Path) -> Path:
    """Cards: encoders with and without a decoder, and a task of reloc on the released decoder."""
    folder = tmp_path / "include"
    (folder / "encoders").mkdir(parents=True)
    (folder / "tasks").mkdir()
    vit = {"width": DIM, "depth": 1, "heads": 2, "patch": 14, "table": 4, "mask_token": False}
    source = {"url": "http://127.0.0.1:9/two_view.pth", "size": "20 MB", "licence": "of the tests"}
    bare = {"id": "bare", "kind": "random", "arch": {"vit": vit}}
    for card in (bare, bare | {"id": "tiny", "decoders": [source]}):
        (folder / "encoders" / f"{card['id']}.yaml").write_text(yaml.safe_dump(card))
    registry = load_registry()
    raw: dict[str, Any] = registry.task("reloc/minirooms/pnp@1").model_dump(mode="json", exclude_unset=True)
    raw |= {"id": "reloc/minirooms/pnp@9", "requires": {"decoder": TASK}, "suites": [], "seeds": []}
    (folder / "tasks" / "reloc.yaml").write_text(yaml.safe_dump(raw | {"input": {"resize": "none"}}))
    return folder


def place() -> Path:
    return weights_cache() / "tiny" / "two_view.pth"


def run(rooms: Path, include: Path, encoder: str = "tiny", tasks: str = TASK, **options: Any) -> Outcome:
    request = RunRequest(encoders=(encoder,), tasks=tasks, data=rooms, include=(include,), **options)
    (outcome,) = execute(request).outcomes
    return outcome


def test_released_decoder_runs_and_its_file_decides_the_result(rooms: Path, include: Path) -> None:
    save_small(place(), DIM, seed=1)
    first = run(rooms, include)
    assert first.code is ExitCode.OK, first.result.error
    assert first.result.choices["file"] == "two_view.pth"
    assert first.result.choices["backbone"] == "dune_tiny_14_encoder"
    assert {m.id for m in first.result.metrics if m.value is not None} >= {"inliers@25cm", "pointmap_m"}
    assert run(rooms, include).reused
    assert not list(Path("runs").glob("heads/*/*")), "a second copy of a decoder"

    save_small(place(), DIM, seed=2)
    second = run(rooms, include)
    assert second.code is ExitCode.OK
    assert not second.reused
    assert second.result.key != first.result.key
    assert second.result.choices["sha256"] != first.result.choices["sha256"]
    numbers = [{m.id: m.value for m in one.result.metrics} for one in (first, second)]
    assert numbers[0]["pointmap_m"] != numbers[1]["pointmap_m"]

    save_small(place(), DIM, seed=1)
    assert run(rooms, include).result.key == first.result.key


def test_reloc_takes_the_released_decoder(rooms: Path, include: Path) -> None:
    save_small(place(), DIM)
    first = run(rooms, include, tasks="reloc/minirooms/pnp@9")
    assert first.code is ExitCode.OK, first.result.error
    save_small(place(), DIM, seed=1)
    assert run(rooms, include, tasks="reloc/minirooms/pnp@9").result.key != first.result.key


@pytest.mark.parametrize("tasks", [TASK, "reloc/minirooms/pnp@9"])
def test_missing_decoder_says_how_to_go_on_before_anything_is_forwarded(
    rooms: Path, include: Path, tasks: str
) -> None:
    outcome = run(rooms, include, tasks=tasks)
    error = str(outcome.result.error)
    assert (outcome.code, outcome.result.status) == (ExitCode.UNAVAILABLE, "unavailable")
    for part in ("released with encoder tiny", "two_view.pth", "20 MB", "of the tests", str(place().parent)):
        assert part in error
    assert "--weights" not in error
    assert "\n" not in error
    assert not list(features_cache().glob("*/*")), "features of no use"
    save_small(place(), DIM)
    assert run(rooms, include, tasks=tasks).code is ExitCode.OK
    assert list(features_cache().glob("*/*"))
    assert not outcome.path.exists(), "the result that stood for it stays"


def test_encoder_without_a_decoder_is_told_what_to_do(rooms: Path, include: Path) -> None:
    outcome = run(rooms, include, "bare")
    assert outcome.code is ExitCode.UNAVAILABLE
    assert "no decoder was released with encoder bare: train one" in str(outcome.result.error)


@pytest.mark.parametrize("tasks", [TASK, "reloc/minirooms/pnp@9"])
def test_decoder_of_another_encoder_is_a_mistake_of_the_request_seen_before_anything_is_forwarded(
    rooms: Path, include: Path, tasks: str
) -> None:
    save_small(place(), DIM + 4)
    outcome = run(rooms, include, tasks=tasks)
    assert (outcome.code, outcome.written) == (ExitCode.USAGE, False)
    assert "tokens of 20 channels, the encoder gives 16" in str(outcome.result.error)
    assert not list(features_cache().glob("*/*")), "features of no use"


def test_decoder_of_other_values_than_numbers_is_a_failure(rooms: Path, include: Path) -> None:
    content = torch.load(save_small(place(), DIM), weights_only=True)
    content["model"]["mast3r.decoder_embed.bias"].fill_(float("nan"))
    torch.save(content, place())
    outcome = run(rooms, include)
    assert outcome.code is ExitCode.FAILED
    assert "not finite" in str(outcome.result.error)


def test_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = released.remembered_sha256(path)
    with monkeypatch.context() as patch:
        patch.setattr(released, "file_sha256", lambda _: pytest.fail("hashed again"))
        assert released.remembered_sha256(path) == first
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    second = released.remembered_sha256(path)
    assert second != first
    path.write_bytes(b"333")
    os.utime(path, ns=(1, 1))  # a change that hides itself is what `verify` is for
    assert released.remembered_sha256(path) == second
    assert released.remembered_sha256(path, verify=True) not in (first, second)


@pytest.mark.parametrize("tasks", [TASK, "reloc/minirooms/pnp@9"])
def test_file_of_something_else_is_one_line_before_anything_is_forwarded(
    rooms: Path, include: Path, tasks: str
) -> None:
    place().parent.mkdir(parents=True, exist_ok=True)
    torch.save({"weights": torch.zeros(2)}, place())
    outcome = run(rooms, include, tasks=tasks)
    assert outcome.code is ExitCode.USAGE
    assert "no MASt3R or DUNE-MASt3R file" in str(outcome.result.error)
    assert not list(features_cache().glob("*/*")), "features of no use"
