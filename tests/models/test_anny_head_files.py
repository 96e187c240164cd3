"""The file of Multi-HMR's Anny release: its names, its options, and files of something else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dune_bench.errors import UsageError
from dune_bench.models.anny_head import AnnyHead, AnnyHeadConfig
from dune_bench.models.anny_head_files import config_of, is_anny_release, read_anny_head, released_name
from tests.models.released_anny import HEADS, D, E, head_shapes, options, released_state
from tests.models.released_multihmr import LISTS, listed_shapes

ANCHOR = "body_model.anchors."


def refused(state: dict[str, Tensor], args: dict[str, Any] | None = None, **fit: Any) -> str:
    with pytest.raises(UsageError) as caught:
        read_anny_head(state, options() if args is None else args, "some.pt", **fit)
    text = str(caught.value)
    assert text.startswith("some.pt: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("width", "mlp", "count"), [(512, 2048, 1.375), (1024, 2048, 1.533), (1024, 4096, 1.667)]
)
def test_names_and_shapes_are_those_of_the_release(width: int, mlp: int, count: float) -> None:
    """Of each width that the file may have: 175 tensors beside the backbone's, and as many gigabytes."""
    shapes = head_shapes(1024, width, mlp, 8, 512, 48)
    assert len(shapes) == 175
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values()) + 304_368_640
    assert 4 * numbers / 1e9 == pytest.approx(count, abs=6e-4)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = config_of(state, {}, "f")
    assert config == AnnyHeadConfig(
        encoder_dim=1024, patch=14, grid=(48, 48), width=width, depth=8, heads=16, head_dim=32, mlp=mlp
    )
    with torch.device("meta"):
        head = AnnyHead(config)
    own = {released_name(name): tuple(value.shape) for name, value in head.state_dict().items()}
    unused = {name for name in shapes if name == "eye" or name.startswith(ANCHOR)}
    assert own == {name: shape for name, shape in shapes.items() if name not in unused}


def test_every_tensor_of_the_file_is_in_the_head() -> None:
    state = {**released_state(), "encoder.backbone.cls_token": torch.zeros(1, 1, E)}
    found = read_anny_head(state, options(), "f", grid=(4, 4), encoder_dim=E)
    own = found.head.state_dict()
    assert all(torch.equal(value, state[released_name(name)]) for name, value in own.items())
    assert found.differing == ()
    assert not found.head.training
    assert not any(p.requires_grad for p in found.head.parameters())


def test_half_precision_file_is_not_computed_in_half_precision() -> None:
    state = {name: value.half() for name, value in released_state().items()}
    found = read_anny_head(state, options(), "f")
    assert {p.dtype for p in found.head.parameters()} == {torch.float32}
    # A table in half precision is not that of the formula, and is said to be another.
    assert "dec_pos_emb" in found.differing


def test_a_release_is_told_by_its_tensors_not_by_its_name() -> None:
    assert is_anny_release(released_state())
    for name in LISTS:
        assert not is_anny_release(listed_shapes(name))
    assert "no 'dec_to_token.weight' in it" in refused({"mlp_classif.0.weight": torch.zeros(3, 3)})


def test_stored_buffers_come_before_the_formulas_and_the_difference_is_said() -> None:
    state = released_state()
    state["dec_pos_emb"] = state["dec_pos_emb"] * 1.5
    state["useful_rotmat"] = state["useful_rotmat"].clone()
    state["useful_rotmat"][0, 104] = 0.0
    found = read_anny_head(state, options(), "f")
    assert sorted(found.differing) == ["dec_pos_emb", "useful_rotmat"]
    assert torch.equal(found.head.position, state["dec_pos_emb"])
    assert found.head.kept[0, 104] == 0
    # As the released files are said to hold it.
    state = released_state()
    state["init_body_pose"][0, 1] = -4e-8
    assert read_anny_head(state, options(), "f").differing == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp_offset.2.bias": None}, "missing mlp_offset.2.bias"),
        ({"encoder.fov_max": None}, "missing encoder.fov_max"),
        (
            {"decoder.transformer.layers.1.1.norm.bias": None},
            "missing decoder.transformer.layers.1.1.norm.bias",
        ),
        ({"mlp_offset.4.bias": (2,)}, "unexpected mlp_offset.4.bias"),
        ({"encoder.mlp_ray.0.weight": (2, 2)}, "unexpected encoder.mlp_ray.0.weight"),
        ({"body_model.faces": (2, 3)}, "unexpected body_model.faces"),
        ({"x_attention_head.init_cam": (1, 3)}, "unexpected x_attention_head.init_cam"),
        ({"mlp_dist.2.weight": (2, D)}, f"shape of mlp_dist.2.weight (2, {D}) instead of (1, {D})"),
        ({"eye": (1, 4, 4)}, "shape of eye (1, 4, 4) instead of (1, 3, 3)"),
        ({"encoder.mlp_det.0.weight": (7, E)}, f"shape of encoder.mlp_det.0.weight (7, {E})"),
        ({"mlp_pose.2.weight": (624, D)}, "another body model: it predicts 624 pose numbers"),
        ({"mlp_shape.2.weight": (6, D)}, "another body model: it predicts 6 shape numbers"),
        ({"mlp_shape.2.weight": None}, "no usable 'mlp_shape.2.weight'"),
        ({"dec_pos_emb": (15, D)}, "a position table of 15 tokens, which are no square"),
        ({"dec_to_token.weight": (6, E)}, "no Multi-HMR head has width 6"),
        ({f"{ANCHOR}age": (5,)}, "age is 0, 0, 0, 0, 0, the built-in body has -0.333, 0, 0.333, 0.667, 1"),
    ],
)
def test_other_tensors_are_one_clear_line(change: dict[str, tuple[int, ...] | None], message: str) -> None:
    state = {name: value for name, value in released_state().items() if name not in change}
    state |= {name: torch.zeros(shape) for name, shape in change.items() if shape is not None}
    assert message in refused(state)


def test_bones_that_the_body_is_not_driven_by_are_refused() -> None:
    state = released_state()
    state["useful_rotmat"] = torch.ones(1, 163)
    assert "useful_rotmat keeps bone 7" in refused(state)


def test_tensors_that_nothing_is_computed_with_may_be_missing() -> None:
    state = released_state()
    for name in [n for n in state if n == "eye" or n.startswith(ANCHOR)]:
        del state[name]
    assert read_anny_head(state, options(), "f").differing == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"person_center": "neck01"}, "args.person_center is 'neck01': only heads that place a body by"),
        ({"simple_depth_encoding": 0}, "args.simple_depth_encoding is 0: only 1 can be read"),
        ({"img_size": 896}, "args.img_size is 896, but its position table is for 56 px"),
        ({"xat_heads": 3}, "args.xat_heads is 3, which does not divide 8 channels"),
        ({"xat_heads": "many"}, "args.xat_heads is 'many'"),
        ({"xat_heads": 0}, "args.xat_heads is 0"),
    ],
)
def test_options_that_mean_another_computation_are_one_line(change: dict[str, Any], message: str) -> None:
    assert message in refused(released_state(), options(**change))


def test_heads_are_the_files_own_else_of_32_channels() -> None:
    assert config_of(released_state(), options(), "f").heads == HEADS
    wide = released_state(inner=96)
    assert (config_of(wide, {}, "f").heads, config_of(wide, {}, "f").head_dim) == (3, 32)
    assert config_of(wide, {"xat_heads": 2}, "f").head_dim == 48


@pytest.mark.parametrize("size", [56, [56, 56], (56,)])
def test_image_size_is_a_number_or_a_list(size: object) -> None:
    assert read_anny_head(released_state(), options(img_size=size), "f").head.config.grid == (4, 4)


def test_head_of_another_size_or_encoder_is_refused() -> None:
    assert "a head for 4×4 tokens (56 px), not for 48×48" in refused(released_state(), grid=(48, 48))
    assert "tokens of 12 channels, the encoder gives 7" in refused(released_state(), encoder_dim=7)
