"""Our ViT against timm's, and the position rules."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer as TimmVit

from dune_bench.encoders.adapter import build_empty, reinitialise
from dune_bench.encoders.checkpoint import load_into, tensor_digest
from dune_bench.encoders.dinov2 import from_timm_name, our_names
from dune_bench.encoders.load import load_encoder
from dune_bench.encoders.vit import VisionTransformer, VitConfig, position_table
from dune_bench.encoders.vit_encoder import VitEncoder
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.cards import EncoderCard

TINY = {"width": 48, "depth": 3, "heads": 3, "table": 6, "mask_token": False}


def tiny(**changes: object) -> VisionTransformer:
    vit = build_empty(lambda: VisionTransformer(VitConfig.model_validate(TINY | changes)))
    reinitialise(vit, 0)
    return vit.eval()


def image(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(1))


def timm_vit(**options: object) -> TimmVit:
    """timm's network of the shape of `tiny`."""
    shape = {"img_size": 84, "patch_size": 14, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0}
    reference = TimmVit(**shape, init_values=1.0, **options).eval()
    reinitialise(reference, 5)
    return reference


@pytest.mark.parametrize("kind", ["plain", "registers", "swiglu"])
def test_timm_weights_are_not_misread(kind: str) -> None:
    """On the native grid timm's model and ours are the same function of timm's tensors."""
    hidden = tiny(mlp="swiglu").blocks[0].mlp.w12.out_features  # type: ignore[union-attr]
    vit, reference = {
        "plain": lambda: (tiny(), timm_vit()),
        "registers": lambda: (tiny(registers=4), timm_vit(reg_tokens=4, no_embed_class=True)),
        "swiglu": lambda: (
            tiny(mlp="swiglu"),
            timm_vit(mlp_layer=SwiGLUPacked, mlp_ratio=hidden / 48, act_layer=torch.nn.SiLU),
        ),
    }[kind]()
    load_into(vit, our_names(reference.state_dict(), vit.config), "test")
    with torch.inference_mode():
        final, (inner,) = reference.forward_intermediates(image(84, 84), indices=[1])
        outputs = vit(image(84, 84), {2, 3})
        torch.testing.assert_close(vit.norm(outputs[3]), final, atol=1e-5, rtol=1e-5)
        patches = outputs[2][:, -36:].transpose(1, 2).reshape(1, 48, 6, 6)
        torch.testing.assert_close(patches, inner, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
def test_released_shapes_fit(name: str) -> None:
    reference = timm.create_model(name, dynamic_img_size=True)
    encoder = from_timm_name("x", name, "dinov2", reference.state_dict())
    theirs = encoder.vit.state_dict() | {"mask_token": torch.zeros(1, 384)}
    chunked = {name.replace("blocks.", "blocks.0."): value for name, value in theirs.items()}
    official = from_timm_name("x", name, "dinov2", chunked)
    assert tensor_digest(official.vit.state_dict()) == tensor_digest(encoder.vit.state_dict())


def test_giant_has_the_released_number_of_parameters() -> None:
    with torch.device("meta"):
        vit = VisionTransformer(
            VitConfig(width=1536, depth=40, heads=24, registers=4, mlp="swiglu", mask_token=False)
        )
        reference = timm.create_model("vit_giant_patch14_reg4_dinov2")
    class_entry = 1536  # of the position table; timm folds it into the class token
    count = sum(p.numel() for p in vit.parameters())
    assert count == sum(p.numel() for p in reference.parameters()) + class_entry


def test_position_rules_are_not_mixed_up() -> None:
    table = torch.randn((1, 37, 8), generator=torch.Generator().manual_seed(0))
    config = {rule: VitConfig(width=8, depth=1, heads=1, table=6, position=rule) for rule in RULES}
    for rule in RULES:
        assert position_table(table, (6, 6), config[rule]) is table
        assert position_table(table, (9, 4), config[rule]).shape == (1, 37, 8)
    resampled = [position_table(table, (4, 9), config[rule]) for rule in RULES]
    for index, one in enumerate(resampled):
        assert torch.equal(one[:, 0], table[:, 0])
        for other in resampled[index + 1 :]:
            assert float((one - other).abs().max()) > 1e-2


RULES = ("dinov2", "dinov2reg", "transformers")


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel with the constant of torch and PIL."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def test_offset_enters_the_sampling_not_the_size() -> None:
    """Rule dinov2 by hand along one axis: sample i lies at (i + 0.5)/s - 0.5 with s = (h + 0.1)/M."""
    side, rows = 8, 5
    column = torch.randn(side, generator=torch.Generator().manual_seed(0))
    patches = column.view(side, 1).expand(side, side)
    table = torch.cat([torch.zeros(1), patches.reshape(-1)]).view(1, -1, 1)
    config = VitConfig(width=1, depth=1, heads=1, table=side)
    got = position_table(table, (rows, side + 1), config)[0, 1:, 0].view(rows, side + 1)[:, 4]
    for i in range(rows):
        place = (i + 0.5) * side / (rows + 0.1) - 0.5
        first = math.floor(place) - 1
        value = sum(
            cubic(place - j) * float(column[min(max(j, 0), side - 1)]) for j in range(first, first + 4)
        )
        assert float(got[i]) == pytest.approx(value, abs=1e-5)


def test_registers_carry_no_position_and_leave_the_features() -> None:
    vit = tiny(registers=4)
    encoder = VitEncoder("x", vit)
    assert vit.embed(torch.zeros(2, 3, 28, 42)).shape == (2, 1 + 4 + 6, 48)
    torch.testing.assert_close(vit.embed(torch.zeros(1, 3, 28, 42))[:, 1:5], vit.register_tokens)
    features = encoder.encode(image(28, 42), ["raw"])["raw"]
    assert features.patch.shape == (1, 48, 2, 3)
    with torch.no_grad():
        vit.register_tokens += 1
    assert not torch.equal(encoder.encode(image(28, 42), ["raw"])["raw"].patch, features.patch)


def test_views_of_one_forward_are_those_of_separate_ones() -> None:
    encoder = VitEncoder("x", tiny(registers=2))
    views = ["raw", "norm", "layer:1", "layer:3", "layers:1,3"]
    together = encoder.encode(image(50, 70, 2), views)
    for view in views:
        alone = encoder.encode(image(50, 70, 2), [view])[view]
        assert torch.equal(alone.patch, together[view].patch)
        assert torch.equal(alone.cls, together[view].cls)  # type: ignore[arg-type]
    assert torch.equal(together["layer:3"].patch, together["raw"].patch)
    joined = torch.cat([together["layer:1"].patch, together["raw"].patch], 1)
    assert torch.equal(together["layers:1,3"].patch, joined)


def test_one_image_is_forwarded_once_for_all_views() -> None:
    vit = tiny()
    calls: list[int] = []
    vit.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    VitEncoder("x", vit).encode(image(28, 28), ["raw", "norm", "layers:1,2"])
    assert calls == [1]


def test_blocks_after_the_last_asked_one_are_not_run() -> None:
    vit = tiny()
    vit.blocks[2].register_forward_hook(lambda *_: pytest.fail("block 3 ran"))
    VitEncoder("x", vit).encode(image(28, 28), ["layer:2"])


def test_heads_are_part_of_the_identity() -> None:
    """The same tensors with other heads are another function."""
    assert VitEncoder("x", tiny(heads=3)).identity() != VitEncoder("x", tiny(heads=4)).identity()
    assert VitEncoder("x", tiny()).identity() != VitEncoder("x", tiny(position="dinov2reg")).identity()


def test_position_rule_of_another_model_is_refused() -> None:
    card = EncoderCard(id="x", kind="timm", arch={"name": "resnet18", "position": "dinov2"})
    with pytest.raises(UsageError, match="DINOv2 models"):
        load_encoder(card, weights="random")
    with pytest.raises(TaskError, match=r"missing blocks\.0.+unexpected head"):
        from_timm_name("x", "vit_small_patch14_dinov2", "dinov2", {"head": torch.zeros(1)})


def test_bfloat16_stays_near_float32() -> None:
    encoder = VitEncoder("x", tiny(registers=2))
    full = encoder.encode(image(50, 70), ["norm", "layers:1,2"])
    half = encoder.to(torch.device("cpu"), "bfloat16").encode(image(50, 70), ["norm", "layers:1,2"])
    for view, features in full.items():
        difference = (half[view].patch - features.patch).abs().max()
        assert 0 < float(difference) < 0.1 * float(features.patch.std())
