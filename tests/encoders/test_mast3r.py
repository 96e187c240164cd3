"""The adapter of MASt3R's encoder: what it takes out of the file, views, shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.export import Dim

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.export import ExportModule
from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.mast3r import Mast3rEncoder
from dune_bench.errors import TaskError, UsageError
from dune_bench.models.croco import CrocoConfig, CrocoEncoder
from dune_bench.registry.cards import EncoderCard
from tests.encoders.loading import image
from tests.encoders.released import rule_tensor, save_released

ARCH = {"width": 24, "depth": 3, "heads": 2, "patch": 16}


def card(**changes: object) -> EncoderCard:
    return EncoderCard(id="tiny_mast3r", kind="mast3r", arch=ARCH | changes)


def file_state() -> dict[str, Tensor]:
    """A small network's file: encoder, and something of the rest."""
    with torch.device("meta"):
        network = CrocoEncoder(CrocoConfig.model_validate(ARCH))
    names = [(name, p.shape) for name, p in network.named_parameters()] + [
        ("mask_token", (1, 1, 16)),
        ("dec_blocks.0.norm1.weight", (16,)),
        ("downstream_head1.dpt.head.4.weight", (4, 8, 1, 1)),
    ]
    return {name: rule_tensor(name, tuple(shape)) for name, shape in names}


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return load_encoder(card(), weights=str(save_released(tmp_path / "mast3r.pth", file_state(), prefix="")))


def test_only_the_encoder_is_taken_out_of_the_file(tmp_path: Path, encoder: Encoder) -> None:
    path = save_released(tmp_path / "whole.pth", file_state(), prefix="")
    state = Mast3rEncoder.read(path)
    assert {name.split(".")[0] for name in state} == {"patch_embed", "enc_blocks", "enc_norm"}
    save_file(state, tmp_path / "encoder.safetensors")
    alone = load_encoder(card(), weights=str(tmp_path / "encoder.safetensors"))
    assert alone.weights_digest == encoder.weights_digest


def test_images_reach_the_network_between_minus_one_and_one(encoder: Encoder) -> None:
    assert isinstance(encoder, Mast3rEncoder)
    x = image(32, 48)
    with torch.inference_mode():
        tokens = encoder.network(2 * x - 1, [3])[3]
    features = encoder.encode(x, ["raw"])["raw"]
    torch.testing.assert_close(features.patch.flatten(2).transpose(1, 2), tokens)
    assert features.cls is None


def test_views_are_the_norm_of_the_last_block_and_the_blocks(encoder: Encoder) -> None:
    assert isinstance(encoder, Mast3rEncoder)
    views = encoder.encode(image(40, 60, count=2), ["norm", "raw", "layer:3", "layer:1", "layers:1,3"])
    assert views["norm"].patch.shape == (2, 24, 3, 4)
    assert views["norm"].padding == (2, 4, 2, 4)
    assert torch.equal(views["raw"].patch, views["layer:3"].patch)
    joined = torch.cat([views["layer:1"].patch, views["layer:3"].patch], 1)
    assert torch.equal(views["layers:1,3"].patch, joined)
    with torch.inference_mode():
        normed = encoder.network.enc_norm(views["raw"].patch.permute(0, 2, 3, 1))
    torch.testing.assert_close(views["norm"].patch.permute(0, 2, 3, 1), normed)
    assert not torch.allclose(views["norm"].patch, views["raw"].patch)


def test_a_place_is_told_from_its_neighbour() -> None:
    """An image without content has tokens that differ, unless positions were lost."""
    encoder = load_encoder(card(), weights="random")
    flat = encoder.encode(torch.full((1, 3, 64, 64), 0.25))["norm"].patch
    half = torch.full((1, 3, 64, 64), 0.25)
    half[..., :16, :16] = 0.75
    mixed = encoder.encode(half)["norm"].patch
    # All keys and values of a flat image are alike, so rotations cancel; one patch that is not breaks that.
    torch.testing.assert_close(flat[..., 0, 0], flat[..., 3, 3], atol=1e-5, rtol=0)
    assert float((mixed[..., 0, 1] - mixed[..., 3, 3]).norm()) > 0.01


def test_export_keeps_batch_and_image_size_open(encoder: Encoder) -> None:
    module = ExportModule(encoder, "norm", has_cls=False).eval()
    sizes = {0: Dim("batch"), 2: 16 * Dim("rows", min=2), 3: 16 * Dim("columns", min=2)}
    traced = torch.export.export(module, (image(64, 96, count=2),), dynamic_shapes={"images": sizes}).module()
    other = image(112, 48, count=3)
    with torch.inference_mode():
        torch.testing.assert_close(traced(other), module(other))


def test_files_of_something_else_are_refused_in_one_line(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(TaskError, match=r"no encoder of MASt3R in it \(no tensor patch_embed"):
        load_encoder(card(), weights=str(tmp_path / "resnet.safetensors"))
    path = str(save_released(tmp_path / "mast3r.pth", file_state(), prefix=""))
    with pytest.raises(
        TaskError, match=r"patch_embed\.proj\.weight \(24, 3, 16, 16\) instead of \(24, 3, 14, 14\)"
    ):
        load_encoder(card(patch=14), weights=path)
    with pytest.raises(TaskError, match=r"missing enc_blocks\.3\.attn.+ more"):
        load_encoder(card(depth=4), weights=path)


def test_bad_shapes_in_a_card_name_the_key() -> None:
    with pytest.raises(UsageError, match=r"tiny_mast3r, arch: unknown key 'head' \(did you mean heads"):
        load_encoder(card(head=4), weights="random")
    with pytest.raises(UsageError, match="each of 5 heads a multiple of 4 channels"):
        load_encoder(card(heads=5), weights="random")


def test_random_weights_are_reproducible_and_branded() -> None:
    first, second = (load_encoder(card(), weights="random") for _ in range(2))
    assert first.weights == "random"
    assert first.weights_digest == second.weights_digest
    other_heads = load_encoder(card(heads=3), weights="random")
    assert first.identity() != other_heads.identity()
