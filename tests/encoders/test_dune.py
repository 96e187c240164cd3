"""The DUNE adapter: file layouts, teachers, views."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dune_bench.encoders.dune import DuneEncoder, DuneNetwork
from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.vit import VitConfig
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.cards import EncoderCard
from tests.encoders.released import rule_tensor, save_released

ARCH = {"width": 24, "depth": 2, "heads": 2, "patch": 14, "registers": 4, "table": 4, "position": "dinov2"}
FILE_TEACHERS = ("dino2reg_vitlarge_14", "mast3r_vitlarge_16", "multihmr_vitlarge_14_672")
TEACHERS = ("dinov2reg_vitl14", "mast3r_vitl16", "multihmr_vitl14_672")


def card(**changes: object) -> EncoderCard:
    return EncoderCard(id="tiny_dune", kind="dune", arch=ARCH | changes, teachers=TEACHERS)


def file_state(teachers: tuple[str, ...] = FILE_TEACHERS) -> dict[str, torch.Tensor]:
    """A small student under the released names."""
    network = DuneNetwork(VitConfig.model_validate(ARCH), teachers)
    names = [
        (n.replace("encoder.blocks.", "encoder.blocks.0."), p.shape) for n, p in network.named_parameters()
    ]
    state = {name: rule_tensor(name, tuple(shape)) for name, shape in names}
    return state | {"teacher_norms.mast3r_vitlarge_16.normalizers.patch.mean": torch.zeros(1024)}


def image(height: int = 60, width: int = 80) -> torch.Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoder(tmp_path: Path) -> DuneEncoder:
    loaded = load_encoder(card(), weights=str(save_released(tmp_path / "dune.pth", file_state())))
    assert isinstance(loaded, DuneEncoder)
    return loaded


def test_teachers_bear_their_canonical_names(encoder: DuneEncoder) -> None:
    assert set(encoder.teachers) == set(TEACHERS)
    with pytest.raises(UsageError, match="its projectors: dinov2reg_vitl14"):
        encoder.encode(image(), ["proj:dino2reg_vitlarge_14"])


def test_projector_of_one_teacher_is_not_that_of_another(tmp_path: Path) -> None:
    state = file_state()
    changed = "projectors.mast3r_vitlarge_16.linear.bias"
    before = load_encoder(card(), weights=str(save_released(tmp_path / "a.pth", state)))
    after = load_encoder(
        card(), weights=str(save_released(tmp_path / "b.pth", state | {changed: torch.ones(1024)}))
    )
    views = [f"proj:{teacher}" for teacher in TEACHERS]
    pairs = zip(before.encode(image(), views).items(), after.encode(image(), views).values(), strict=True)
    moved = {view for (view, old), new in pairs if not torch.equal(old.patch, new.patch)}
    assert moved == {"proj:mast3r_vitl16"}


def test_projection_has_class_token_and_the_teachers_width(encoder: DuneEncoder) -> None:
    features = encoder.encode(image(), ["proj:multihmr_vitl14_672"])["proj:multihmr_vitl14_672"]
    assert features.patch.shape == (2, 1024, 5, 6)
    assert features.cls is not None
    assert features.cls.shape == (2, 1024)


def test_registers_do_not_reach_the_projector(encoder: DuneEncoder) -> None:
    raw = encoder.encode(image(), ["raw"])["raw"]
    assert raw.cls is not None
    tokens = torch.cat([raw.cls[:, None], raw.patch.flatten(2).transpose(1, 2)], 1)
    with torch.inference_mode():
        by_hand = encoder.projectors["mast3r_vitl16"](tokens)
    features = encoder.encode(image(), ["proj:mast3r_vitl16"])["proj:mast3r_vitl16"]
    torch.testing.assert_close(features.patch.flatten(2).transpose(1, 2), by_hand[:, 1:])
    torch.testing.assert_close(features.cls, by_hand[:, 0])


def test_all_views_of_one_forward_equal_separate_ones(encoder: DuneEncoder) -> None:
    views = ["raw", "norm", "layer:1", "layers:1,2", *(f"proj:{teacher}" for teacher in TEACHERS)]
    together = encoder.encode(image(), views)
    for view in views:
        alone = encoder.encode(image(), [view])[view]
        assert torch.equal(alone.patch, together[view].patch)
        assert torch.equal(alone.cls, together[view].cls)  # type: ignore[arg-type]


@pytest.mark.parametrize("prefix", ["encoder.", ""])
def test_encoder_only_file_has_no_projections(tmp_path: Path, prefix: str) -> None:
    state = {
        prefix + name.removeprefix("encoder."): tensor
        for name, tensor in file_state().items()
        if name.startswith("encoder.")
    }
    save_file(state, tmp_path / "encoder.safetensors")
    loaded = load_encoder(card(), weights=str(tmp_path / "encoder.safetensors"))
    assert loaded.teachers == ()
    with pytest.raises(UsageError, match="its projectors: none"):
        loaded.encode(image(), ["proj:mast3r_vitl16"])
    full = load_encoder(card(), weights=str(save_released(tmp_path / "full.pth", file_state())))
    assert torch.equal(loaded.encode(image())["norm"].patch, full.encode(image())["norm"].patch)


def test_file_of_another_size_lists_what_differs(tmp_path: Path) -> None:
    path = str(save_released(tmp_path / "dune.pth", file_state()))
    with pytest.raises(
        TaskError, match=r"encoder\.pos_embed \(1, 17, 24\) instead of \(1, 26, 24\)"
    ) as caught:
        load_encoder(card(table=5), weights=path)
    assert "\n" not in str(caught.value)
    with pytest.raises(TaskError, match=r"missing encoder\.blocks\.2\.attn.+ more"):
        load_encoder(card(depth=3), weights=path)
    extra = file_state() | {
        "encoder.blocks.0.0.attn.q_norm.weight": torch.ones(3),
        "head.bias": torch.ones(3),
    }
    with pytest.raises(TaskError, match=r"unexpected encoder\.blocks\.0\.attn\.q_norm\.weight, head\.bias"):
        load_encoder(card(), weights=str(save_released(tmp_path / "extra.pth", extra)))


def test_another_model_is_no_dune(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(TaskError, match="not a DUNE checkpoint"):
        load_encoder(card(), weights=str(tmp_path / "resnet.safetensors"))


def test_random_weights_are_reproducible_and_branded() -> None:
    state = torch.get_rng_state()
    first, second = (load_encoder(card(), weights="random") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state), "the global RNG moved"
    assert first.weights == second.weights == "random"
    assert first.weights_digest == second.weights_digest
    assert set(first.teachers) == set(TEACHERS)
    assert first.encode(image(), ["proj:mast3r_vitl16"])


def test_misspelt_arch_key_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"tiny_dune, arch: unknown key 'regsters' \(did you mean registers"):
        load_encoder(card(regsters=4), weights="random")
