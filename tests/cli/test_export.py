"""`dune-bench export` as its user meets it, on a tiny random ViT."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dune_bench.encoders.base import centre_padding
from dune_bench.encoders.load import load_encoder
from dune_bench.registry.lookup import load_registry
from tests.cli.conftest import Command

CARD = """id: tiny
kind: random
arch: {vit: {width: 24, depth: 2, heads: 2, table: 5, registers: 2, position: dinov2, mask_token: false}}
views: {default: norm}
"""
FIXED = """import torch
from torch import nn
from dune_bench.encoders.base import Encoder

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, 8)
        self.bias = nn.Parameter(torch.randn(1, 4, 4, 6))

    def forward(self, x):
        return self.conv(x) + self.bias[:, :, : x.shape[2] // 8, : x.shape[3] // 8].mean((2, 3), True) * BY

encoder = Encoder.from_module(Fixed(), 8)
"""


@pytest.fixture(autouse=True)
def _cards(tmp_path: Path) -> None:
    folder = tmp_path / ".dune_bench" / "encoders"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(CARD)


def test_onnx_file_gives_the_features_of_any_batch_and_size(command: Command) -> None:
    """A user with numpy and onnxruntime alone, following the description, gets what `encode` gives."""
    onnxruntime = pytest.importorskip("onnxruntime")
    answer = command("export", "tiny", "--resolution", "70")
    assert answer.code == 0, answer.err
    assert answer.out.count("parity") == 2
    assert "onnxruntime" in answer.out
    about = json.loads(Path("tiny.onnx.json").read_text())
    assert (about["view"], about["weights"], about["patch_size"]) == ("norm", "random", 14)
    session = onnxruntime.InferenceSession("tiny.onnx", providers=["CPUExecutionProvider"])
    encoder = load_encoder(load_registry().encoder("tiny"))
    for shape in [(1, 3, 70, 70), (3, 3, 30, 101), (2, 3, 200, 29)]:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(3))
        mean, std = (np.array(about[key], np.float32).reshape(1, 3, 1, 1) for key in ("mean", "std"))
        left, top, right, bottom = centre_padding((shape[2], shape[3]), about["patch_size"])
        x = np.pad((images.numpy() - mean) / std, ((0, 0), (0, 0), (top, bottom), (left, right)))
        patch, cls = session.run(["patch", "cls"], {"images": x.astype(np.float32)})
        features = encoder.encode(images)["norm"]
        assert features.cls is not None
        np.testing.assert_allclose(patch, features.patch.numpy(), atol=1e-4)
        np.testing.assert_allclose(cls, features.cls.numpy(), atol=1e-4)


def test_torch_program_gives_the_features_of_any_batch_and_size(command: Command) -> None:
    answer = command("export", "tiny", "--format", "torch", "--resolution", "42", "--view", "layers:1,2")
    assert answer.code == 0, answer.err
    program = torch.export.load("tiny.pt2").module()
    encoder = load_encoder(load_registry().encoder("tiny"))
    for shape in [(1, 3, 28, 42), (3, 3, 70, 28)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            patch, _ = program(x)
            expected, _ = encoder._forward(x, ("layers:1,2",))["layers:1,2"]
        torch.testing.assert_close(patch, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_network_whose_graph_holds_the_size_is_refused_and_leaves_no_file(
    command: Command, format: str
) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    Path("fixed.py").write_text(FIXED.replace("BY", "(int(x.shape[3]) if x.shape[3] == 48 else 1)"))
    answer = command("export", "fixed.py", "--format", format, "--resolution", "32")
    assert answer.code == 1
    assert "--fixed-size" in answer.error
    assert not [*Path().glob("fixed.*x*"), *Path().glob("fixed.pt2*")]
    assert command("export", "fixed.py", "--format", format, "--resolution", "32", "--fixed-size").code == 0


def test_encoder_without_a_network_is_exit_2(command: Command) -> None:
    answer = command("export", "pixels")
    assert answer.code == 2
    assert "no torch module" in answer.error


def test_wrong_suffix_is_exit_2_before_anything_is_loaded(command: Command) -> None:
    answer = command("export", "tiny", "--format", "torch", "--out", "tiny.onnx")
    assert answer.code == 2
    assert "ends in .pt2" in answer.error


def test_absent_extra_is_exit_3_with_the_install_line(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = command("export", "tiny")
    assert answer.code == 3
    assert "pip install '.[export]'" in answer.error
