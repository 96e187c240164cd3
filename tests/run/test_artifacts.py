from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dune_bench.errors import TaskError
from dune_bench.probes.base import Head
from dune_bench.run.artifacts import HeadStore

HEAD = Head({"w": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(3)}, {"lambda": 1e-3, "path": [1, 2]})


def store_in(folder: Path) -> tuple[HeadStore, list[str]]:
    warnings: list[str] = []
    return HeadStore(folder, warnings.append), warnings


def test_head_comes_back_exactly(tmp_path: Path) -> None:
    store, warnings = store_in(tmp_path)
    store.write("ab12", HEAD, {"task": "t"})
    found = store.find("ab12")
    assert found is not None
    assert found.choices == HEAD.choices
    assert found.tensors.keys() == HEAD.tensors.keys()
    for name, tensor in HEAD.tensors.items():
        torch.testing.assert_close(found.tensors[name], tensor, rtol=0, atol=0)
    assert (store.find("ab13"), warnings) == (None, [])


@pytest.mark.parametrize("victim", ["ab12.safetensors", "ab12.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_head_is_never_used(tmp_path: Path, victim: str, damage: str) -> None:
    store, warnings = store_in(tmp_path)
    store.write("ab12", HEAD, {})
    path = tmp_path / "ab" / victim
    data = path.read_bytes()
    middle = len(data) // 2
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:middle])
    else:
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])
    assert store.find("ab12") is None
    assert len(warnings) == (0 if (victim, damage) == ("ab12.json", "gone") else 1)


def test_head_under_another_key_is_not_used(tmp_path: Path) -> None:
    store, warnings = store_in(tmp_path)
    store.write("ab12", HEAD, {})
    for suffix in (".json", ".safetensors"):
        (tmp_path / "ab" / f"ab12{suffix}").rename(tmp_path / "ab" / f"ab99{suffix}")
    assert store.find("ab99") is None
    assert len(warnings) == 1


@pytest.mark.parametrize("choice", [float("nan"), torch.tensor(1.0), {1, 2}])
def test_choice_that_json_cannot_hold_is_an_error_not_a_null(tmp_path: Path, choice: object) -> None:
    store, _ = store_in(tmp_path)
    with pytest.raises(TaskError, match="cannot be stored as JSON"):
        store.write("ab12", Head({}, {"c": choice}), {"task": "t"})
    assert store.find("ab12") is None
