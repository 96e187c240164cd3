"""The adapter of Multi-HMR's backbone: what it takes out of the file, and whose features these are."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dune_bench.encoders.adapter import Adapter
from dune_bench.encoders.base import Encoder
from dune_bench.encoders.dinov2 import DinoV2Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.multihmr import BACKBONES, MultiHmrEncoder
from dune_bench.encoders.vit import VisionTransformer, VitConfig
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.lookup import ADAPTERS, resolve
from tests.encoders.loading import REGISTRY, image
from tests.encoders.released import rule_tensor

ARCH = {"width": 24, "depth": 2, "heads": 2, "table": 5}
CARDS = {
    "multihmr_vits14_672": (384, 12, 6),
    "multihmr_vitb14_672": (768, 12, 12),
    "multihmr_vitl14_672": (1024, 24, 16),
    "multihmr_vitl14_896": (1024, 24, 16),
    "multihmr_vitl14_672_anny": (1024, 24, 16),
}


def card(**changes: object) -> EncoderCard:
    return EncoderCard(id="tiny_multihmr", kind="multihmr", arch=ARCH | changes)


def backbone_state() -> dict[str, Tensor]:
    """A small backbone under the names of DINOv2's hub files."""
    vit = VisionTransformer(VitConfig.model_validate(ARCH))
    return {name: rule_tensor(name, tuple(p.shape)) for name, p in vit.named_parameters()}


def save_model(path: Path, prefix: str = BACKBONES[0], nest: str = "model_state_dict") -> Path:
    """A whole model's file: backbone, something of the head and the body model, options."""
    state = {prefix + name: tensor for name, tensor in backbone_state().items()}
    state |= {"mlp_classif.0.weight": torch.ones(24, 24), "smpl_layer.bm_x.v_template": torch.ones(9, 3)}
    torch.save({nest: state, "epoch": 3, "args": argparse.Namespace(img_size=672, backbone="dinov2")}, path)
    return path


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return load_encoder(card(), weights=str(save_model(tmp_path / "multihmr.pt")))


@pytest.mark.parametrize("prefix", [*BACKBONES, "module.backbone.encoder."])
@pytest.mark.parametrize("nest", ["model_state_dict", "model", "state_dict"])
def test_only_the_backbone_is_taken_out_of_the_file(
    tmp_path: Path, encoder: Encoder, prefix: str, nest: str
) -> None:
    path = save_model(tmp_path / "other.pt", prefix, nest)
    state = MultiHmrEncoder.read(path)
    assert state.keys() == backbone_state().keys()
    save_file(state, tmp_path / "backbone.safetensors")
    for file in (path, tmp_path / "backbone.safetensors"):
        assert load_encoder(card(), weights=str(file)).weights_digest == encoder.weights_digest


def test_features_are_those_of_dinov2_with_these_tensors(encoder: Encoder) -> None:
    """Also off the native grid, where DINOv2's position rule counts."""
    vit = VisionTransformer(VitConfig.model_validate(ARCH))
    vit.load_state_dict(backbone_state())
    plain = DinoV2Encoder("plain", vit)
    for size in ((70, 70), (45, 100)):
        views = ["norm", "raw", "layers:1,2"]
        features, expected = (e.encode(image(*size), views) for e in (encoder, plain))
        for view in views:
            assert torch.equal(features[view].patch, expected[view].patch)
            assert torch.equal(features[view].cls, expected[view].cls)  # type: ignore[arg-type]


def test_files_of_something_else_are_refused_in_one_line(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(
        TaskError,
        match=r"no backbone of Multi-HMR in it \(no tensor backbone\.encoder\.cls_token or",
    ):
        load_encoder(card(), weights=str(tmp_path / "resnet.safetensors"))
    path = str(save_model(tmp_path / "multihmr.pt"))
    with pytest.raises(TaskError, match=r"pos_embed \(1, 26, 24\) instead of \(1, 17, 24\)"):
        load_encoder(card(table=4), weights=path)
    with pytest.raises(TaskError, match=r"missing blocks\.2\.attn.+ more"):
        load_encoder(card(depth=3), weights=path)
    with pytest.raises(TaskError, match=r"missing register_tokens"):
        load_encoder(card(registers=4), weights=path)
    with pytest.raises(TaskError, match=r"unexpected blocks\.1\.attn.+ more"):
        load_encoder(card(depth=1), weights=path)


def test_code_in_a_file_is_not_executed(tmp_path: Path) -> None:
    torch.save({"model_state_dict": backbone_state(), "args": Path("x")}, tmp_path / "code.pt")
    with pytest.raises(TaskError, match="refused, it holds objects other than tensors"):
        load_encoder(card(), weights=str(tmp_path / "code.pt"))


@pytest.mark.parametrize(("name", "shape"), CARDS.items())
def test_cards_describe_dinov2_without_registers(name: str, shape: tuple[int, int, int]) -> None:
    entry = REGISTRY.encoder(name)
    config = VitConfig.model_validate(entry.arch)
    assert (config.width, config.depth, config.heads) == shape
    assert (config.patch, config.registers, config.table, config.position) == (14, 0, 37, "dinov2")
    assert str(entry.resolution) in name
    assert issubclass(resolve(ADAPTERS[entry.kind]), Adapter)
    with torch.device("meta"):
        names = VisionTransformer(config).state_dict()
    # DINOv2 ViT-L has 343 tensors, S and B 175.
    assert len(names) == 14 * config.depth + 7


def test_misspelt_arch_key_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"tiny_multihmr, arch: unknown key 'tabel' \(did you mean table"):
        load_encoder(card(tabel=4), weights="random")
