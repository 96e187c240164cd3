"""Any model of timm."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.timm import hub_source
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.cards import EncoderCard
from tests.encoders.loading import image, load


def test_timm_final_output_is_timms_own() -> None:
    encoder = load("timm:vit_tiny_patch16_224")
    network = encoder.module
    assert network is not None
    x = (image(224, 224) - 0.5) / 0.5
    with torch.inference_mode():
        expected = network.forward_features(x)  # type: ignore[operator]
    features = encoder.encode(image(224, 224), ["norm", "layer:12", "raw"])
    torch.testing.assert_close(features["norm"].cls, expected[:, 0])
    torch.testing.assert_close(
        features["norm"].patch, expected[:, 1:].transpose(1, 2).reshape(1, 192, 14, 14)
    )
    assert torch.equal(features["layer:12"].patch, features["raw"].patch)
    assert not torch.equal(features["raw"].patch, features["norm"].patch)


@pytest.mark.parametrize(
    ("name", "grid", "channels", "has_cls"),
    [
        ("resnet18", (2, 3), 512, False),
        ("mobilenetv2_100", (2, 3), 1280, False),
        ("swin_tiny_patch4_window7_224", (2, 3), 768, False),
        ("vit_tiny_patch16_224", (4, 6), 192, True),
        ("vit_small_patch16_dinov3", (4, 6), 384, True),
        ("vit_medium_patch16_gap_256", (4, 6), 512, False),
    ],
)
def test_any_timm_model_keeps_the_contract(
    name: str, grid: tuple[int, int], channels: int, has_cls: bool
) -> None:
    encoder = load(f"timm:{name}")
    views = ["norm", "raw", "layer:1", f"layers:1,{encoder.depth}"]
    features = encoder.encode(image(), views)
    assert features["norm"].patch.shape == (1, channels, *grid)
    assert (features["norm"].cls is not None) == has_cls
    joined = torch.cat([features["layer:1"].patch, features["raw"].patch], 1)
    assert torch.equal(features[views[3]].patch, joined)
    for view in views:
        assert torch.equal(encoder.encode(image(), [view])[view].patch, features[view].patch)


def test_registers_of_timm_are_not_patches() -> None:
    encoder = load("timm:vit_small_patch16_dinov3")
    network = encoder.module
    before = encoder.encode(image(), ["layer:1"])["layer:1"]
    assert network is not None
    assert network.num_prefix_tokens == 5
    assert before.patch.shape[2:] == (4, 6)


def test_timm_weights_from_a_file_are_loaded_strictly(tmp_path: Path) -> None:
    reference = timm.create_model("resnet18")
    save_file(reference.state_dict(), tmp_path / "r.safetensors")
    encoder = load("timm:resnet18", str(tmp_path / "r.safetensors"))
    assert encoder.weights == "file"
    assert encoder.module is not None
    assert torch.equal(encoder.module.state_dict()["conv1.weight"], reference.state_dict()["conv1.weight"])
    with pytest.raises(TaskError, match="another architecture than timm's resnet34") as caught:
        load("timm:resnet34", str(tmp_path / "r.safetensors"))
    assert "\n" not in str(caught.value)


def test_unknown_timm_model_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"timm has no model 'resnet81' \(did you mean .*resnet18"):
        load("timm:resnet81")
    with pytest.raises(UsageError, match="unknown key 'nmae'"):
        load_encoder(EncoderCard(id="x", kind="timm", arch={"nmae": "resnet18"}), weights="random")


def test_bare_timm_name_knows_its_hub_file() -> None:
    source = hub_source("resnet18.a1_in1k")
    assert source.hub == "timm/resnet18.a1_in1k:model.safetensors"
    assert source.licence == "apache-2.0"
