"""`prepare` and its check: damage is found and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dune_bench.cli.prepare import resolve_version
from dune_bench.doctor import _smplx
from dune_bench.errors import UsageError
from dune_bench.registry.lookup import Registry
from tests.cli.conftest import Command
from tests.data.minirooms_fixture import write_tiny_minirooms
from tests.models import synthetic_smplx


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    root = tmp_path / "rooms"
    root.mkdir()
    write_tiny_minirooms(root, rooms_train=2, rooms_test=2, views=2)
    return root


def test_sound_data_passes_and_states_its_licence(command: Command, rooms: Path) -> None:
    answer = command("prepare", "minirooms", "--check", "--root", str(rooms))
    assert answer.code == 0
    assert answer.out.startswith("minirooms@1: ok (train, test; licence: ")


def test_a_flipped_byte_is_found_and_the_file_named(command: Command, rooms: Path) -> None:
    shard = rooms / "test.zip"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    answer = command("prepare", "minirooms@1", "--check", "--root", str(rooms))
    assert answer.code == 1
    assert "test.zip" in answer.err
    assert "ok" not in answer.out


def test_missing_data_is_exit_3(command: Command, tmp_path: Path) -> None:
    answer = command("prepare", "minirooms", "--check", "--root", str(tmp_path / "nowhere"))
    assert answer.code == 3
    assert "nowhere" in answer.error


def test_without_check_it_says_what_it_did(command: Command, rooms: Path) -> None:
    answer = command("prepare", "minirooms", "--root", str(rooms))
    assert answer.code == 0
    assert answer.out.startswith("minirooms@1: ")


def test_a_name_without_version_means_the_newest_by_number() -> None:
    registry = Registry(datasets={"rooms@2": "", "rooms@10": "", "rooms@9": "", "roomsy@11": ""})
    assert resolve_version(registry, "rooms") == "rooms@10"
    assert resolve_version(registry, "rooms@2") == "rooms@2"
    with pytest.raises(UsageError, match="did you mean rooms@"):
        resolve_version(registry, "room")


def test_missing_body_model_is_exit_3_and_says_where_to_register(command: Command, tmp_path: Path) -> None:
    for arguments in ((), ("--check",), ("--root", str(tmp_path / "nowhere"))):
        answer = command("prepare", "smplx", *arguments)
        assert answer.code == 3
        assert "register at https://smpl-x.is.tue.mpg.de" in answer.error


def test_body_model_is_recorded_checked_and_seen_by_doctor(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "licensed"
    root.mkdir()
    arrays = synthetic_smplx.synthetic_arrays(np.random.default_rng(0))
    path = synthetic_smplx.write(root / "SMPLX_NEUTRAL.npz", arrays)
    assert "no folder recorded" in _smplx().text
    answer = command("prepare", "smplx", "--root", str(root))
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"smplx: recorded {root}: neutral is there; male and female are not")
    assert command("prepare", "smplx", "--check").out.startswith(f"smplx: ok in {root}")
    assert _smplx().text.startswith(f"neutral in {root}; evaluation uses SMPLX_NEUTRAL.npz")
    path.write_bytes(path.read_bytes()[:-1000])
    answer = command("prepare", "smplx", "--check")
    assert answer.code == 1
    assert "SMPLX_NEUTRAL.npz cannot be read" in answer.error
    assert command("prepare", "smplx", "--root", str(path)).code == 2
    path.unlink()
    assert _smplx().state.value == "missing"
