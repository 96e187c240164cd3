"""Checkpoints that must not be loaded, and digests that must not collide."""

from __future__ import annotations

import argparse
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from dune_bench.encoders.checkpoint import (
    file_sha256,
    load_into,
    read_checkpoint,
    read_with_args,
    tensor_digest,
)
from dune_bench.errors import TaskError


class Touch:
    """Unpickled by a careless reader, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[list[str]]]:
        return subprocess.check_call, (["touch", str(self.path)],)


def refused(path: Path) -> str:
    with pytest.raises(TaskError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickle_is_not_executed(tmp_path: Path, zipped: bool) -> None:
    trace, path = tmp_path / "executed", tmp_path / "evil.pth"
    torch.save(
        {"model": {"w": torch.zeros(2)}, "args": Touch(trace)}, path, _use_new_zipfile_serialization=zipped
    )
    assert "nothing of it was executed" in refused(path)
    assert not trace.exists()
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Touch(trace)))
    refused(tmp_path / "plain.pth")
    assert not trace.exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())
    assert trace.exists(), "the trap itself does not work"


def test_class_inside_a_namespace_is_not_let_in(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(2)}, "args": argparse.Namespace(x=tmp_path)}, tmp_path / "a.pth")
    assert "pathlib" in refused(tmp_path / "a.pth")


def test_namespace_of_plain_values_is_read(tmp_path: Path) -> None:
    args = argparse.Namespace(image_size=448, teachers=["a"], nested={"b": (1, 2.0, None, True)})
    torch.save({"model": {"module._orig_mod.module.w": torch.ones(2)}, "args": args}, tmp_path / "a.pth")
    assert torch.equal(read_checkpoint(tmp_path / "a.pth")["w"], torch.ones(2))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.999])
def test_truncated_file_is_not_loaded(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"w{suffix}"
    state = {f"layer.{i}": torch.randn(64, generator=torch.Generator().manual_seed(i)) for i in range(20)}
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "get it again" in refused(path)


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"PK\x03\x04 no zip", b"\x80\x02garbage", b"\x00" * 64]
)
def test_other_file_is_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"w{suffix}"
        path.write_bytes(content)
        assert "get it again" in refused(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"model": {}}, 7])
def test_file_without_tensors_is_not_an_empty_model(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "no tensors" in refused(tmp_path / "w.pth")


def test_wrong_architecture_lists_the_first_differences() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    state = {
        "0.weight": torch.zeros(3, 5),
        "0.bias": torch.zeros(3),
        **{f"x{i}": torch.ones(1) for i in range(9)},
    }
    with pytest.raises(TaskError) as caught:
        load_into(module, state, "weights of e")
    assert str(caught.value) == (
        "weights of e: another architecture than the card's: missing 1.bias, 1.weight; "
        "unexpected x0, x1, x2 and 6 more; shape of 0.weight (3, 5) instead of (3, 2)"
    )
    assert not torch.equal(module[0].weight, torch.zeros(3, 2))


@given(st.sampled_from(["name", "value", "shape", "dtype", "sign"]))
def test_digest_tells_weights_apart(change: str) -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.arange(4, dtype=torch.int32)}
    other = dict(state)
    if change == "name":
        other["c"] = other.pop("a")
    elif change == "value":
        other["b"] = torch.tensor([0, 1, 2, 4], dtype=torch.int32)
    elif change == "shape":
        other["a"] = torch.zeros(3, 2)
    elif change == "dtype":
        other["b"] = other["b"].view(torch.float32)
    else:
        other["a"] = -other["a"]
    assert tensor_digest(other) != tensor_digest(state)


def test_digest_does_not_depend_on_order_or_layout() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    state = {"a": tensor, "b": torch.tensor(1)}
    assert tensor_digest(state) == tensor_digest({"b": torch.tensor(1), "a": tensor.T.contiguous().T})
    assert tensor_digest({"a": tensor.bfloat16(), "e": torch.zeros(0, 3)})


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_text_file_in_place_of_a_checkpoint_is_one_line(tmp_path: Path) -> None:
    for text in ("hello\n", "a\n", "Not Found", "<html>", "(", "t.", "]u."):
        path = tmp_path / "weights.pth"
        path.write_text(text)
        with pytest.raises(TaskError, match="get it again"):
            read_checkpoint(path)


@pytest.mark.parametrize("args", [argparse.Namespace(heads=16, sizes=[672]), {"heads": 16, "sizes": [672]}])
def test_options_of_the_file_come_with_its_tensors(tmp_path: Path, args: object) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "args": args}, tmp_path / "a.pth")
    state, options = read_with_args(tmp_path / "a.pth")
    assert torch.equal(state["w"], torch.ones(2))
    assert options == {"heads": 16, "sizes": [672]}


def test_file_without_options_is_no_error(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pth")
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        state, options = read_with_args(tmp_path / name)
        assert (list(state), options) == (["w"], {})


def test_options_of_another_kind_are_one_line(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}, "args": [1, 2]}, tmp_path / "a.pth")
    with pytest.raises(TaskError, match="its args are of type list"):
        read_with_args(tmp_path / "a.pth")
