"""Released Multi-HMR heads: the golden values, the tensor lists, and files of something else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.errors import UsageError
from dune_bench.models.human_camera import depth_of, embed_rays, focal_ratio, token_rays
from dune_bench.models.human_files import config_of, read_human_head, released_name
from dune_bench.models.human_head import HumanHead, local_maxima, scores
from tests.models.released_multihmr import GOLDEN, LISTS, empty_state, golden_state, listed_shapes

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return golden_state()


@pytest.fixture(scope="module")
def answers(state: dict[str, Tensor]) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Ours and the original's, by the golden file's key."""
    with np.load(GOLDEN / "multihmr_head.npz") as archive:
        golden = dict(archive)
    generator = torch.Generator().manual_seed(int(golden["tokens_seed"]))
    tokens = torch.randn((2, 256, 384), generator=generator).transpose(1, 2).reshape(2, 384, 16, 16)
    K, cells = torch.from_numpy(golden["K"]), torch.from_numpy(golden["idx"]).T
    with torch.no_grad():
        logits, output = read_human_head(state, "golden")(tokens, K, cells)
    score = scores(logits)
    ours = {
        "scores": score[..., None],
        "scores_after_nms": (score * local_maxima(score))[:, None],
        "ray_embedding": embed_rays(token_rays(K, (16, 16), 14, compat=True))[:, ::5, ::5],
        "dist_raw": output.dist_raw[:, None],
        "dist": output.dist[:, None],
        **{name: getattr(output, name) for name in ("offset", "loc", "rotmat", "betas", "expression")},
    }
    assert ours.keys() == golden.keys() - {"tokens_seed", "K", "idx"}
    return {name: (value, golden[name]) for name, value in ours.items()}


@pytest.mark.parametrize(
    "name",
    [
        *("scores", "scores_after_nms", "offset", "loc", "ray_embedding"),
        *("dist_raw", "dist", "rotmat", "betas", "expression"),
    ],
)
def test_released_head_does_not_drift_from_the_original(
    name: str, answers: dict[str, tuple[Tensor, np.ndarray]]
) -> None:
    ours, golden = answers[name]
    assert tuple(ours.shape) == golden.shape
    assert np.abs(ours.numpy() - golden).max() <= TOLERANCE * np.abs(golden).max()


def placed_everywhere(head: HumanHead, context: Tensor, cells: Tensor) -> Tensor:
    return context + head.value_rows[:, None] + head.value_columns[None]


def test_golden_values_tell_the_quirks_apart(
    state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the parity above rests on: without any one of the quirks it would fail."""
    with np.load(GOLDEN / "multihmr_head.npz") as archive:
        golden = {name: torch.from_numpy(archive[name]) for name in archive if name != "tokens_seed"}
    rays = embed_rays(token_rays(golden["K"], (16, 16), 14, compat=False))[:, ::5, ::5]
    assert float((rays - golden["ray_embedding"]).abs().max()) > 0.1
    ratio = focal_ratio(golden["K"], (16, 16), 14, compat=False)[golden["idx"][0]]
    depth = depth_of(golden["dist_raw"][:, 0], ratio, compat=False)
    assert float((depth / golden["dist"][:, 0]).log().abs().min()) > 0.1
    monkeypatch.setattr(HumanHead, "_placed", placed_everywhere)
    generator = torch.Generator().manual_seed(41)
    tokens = torch.randn((2, 256, 384), generator=generator).transpose(1, 2).reshape(2, 384, 16, 16)
    with torch.no_grad():
        output = read_human_head(state, "golden").regress(tokens, golden["K"], golden["idx"].T)
    assert float((output.betas - golden["betas"]).abs().max()) > 0.01


@pytest.mark.parametrize("name", LISTS)
def test_names_and_shapes_are_those_of_the_released_files(name: str) -> None:
    shapes = listed_shapes(name)
    with torch.device("meta"):
        head = HumanHead(config_of(empty_state(name), name))
    own = {released_name(key): tuple(value.shape) for key, value in head.state_dict().items()}
    assert own == {key: shape for key, shape in shapes.items() if not key.endswith("init_betas_kid")}
    assert head.config.grid == ((48, 48) if name.startswith("672") else (64, 64))


def test_backbone_and_body_model_of_the_file_are_left_alone(state: dict[str, Tensor]) -> None:
    whole = {
        **state,
        "backbone.encoder.cls_token": torch.zeros(1, 1, 384),
        "smpl_layer.faces": torch.zeros(3),
    }
    head = read_human_head(whole, "whole file", grid=(16, 16), encoder_dim=384)
    assert not head.training
    assert not any(p.requires_grad for p in head.parameters())


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x_attention_head.decpose.weight": (978, 1024)},
            "another body model: it predicts 978 pose numbers",
        ),
        (
            {"x_attention_head.decshape.weight": (11, 1024)},
            "another body model: it predicts 11 shape numbers",
        ),
        ({"x_attention_head.decpose.weight": None}, "no usable 'x_attention_head.decpose.weight'"),
        ({"x_attention_head.init_cam": None}, "missing x_attention_head.init_cam"),
        ({"mlp_offset.2.bias": None}, "missing mlp_offset.2.bias"),
        ({"mlp_offset.4.bias": (2,)}, "unexpected mlp_offset.4.bias"),
        ({"x_attention_head.decfov.weight": (1, 1024)}, "unexpected x_attention_head.decfov.weight"),
        (
            {"x_attention_head.deccam.weight": (5, 1024)},
            r"shape of x_attention_head.deccam.weight \(5, 1024\) instead of \(3, 1024\)",
        ),
        (
            {"x_attention_head.transformer.transformer.layers.0.0.fn.to_qkv.weight": (9, 1024)},
            "no Multi-HMR head has head_dim 0",
        ),
        ({"x_attention_head.cross_queries_y": (48, 483)}, "position tables of 16 and 48 tokens"),
    ],
)
def test_other_heads_are_one_clear_line(
    state: dict[str, Tensor], change: dict[str, tuple[int, ...] | None], message: str
) -> None:
    changed = without(state, *change)
    changed |= {name: torch.zeros(shape) for name, shape in change.items() if shape is not None}
    with pytest.raises(UsageError, match=message) as caught:
        read_human_head(changed, "some.pt")
    assert str(caught.value).startswith("some.pt: ")
    assert "\n" not in str(caught.value)


def test_head_of_another_size_or_encoder_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(UsageError, match=r"a head for 16×16 tokens \(224 px\), not for 48×48"):
        read_human_head(state, "some.pt", grid=(48, 48))
    with pytest.raises(UsageError, match="for tokens of 384 channels, the encoder gives 768"):
        read_human_head(state, "some.pt", encoder_dim=768)


def test_file_without_a_head_is_refused() -> None:
    with pytest.raises(UsageError, match="no tensor of a Multi-HMR head"):
        read_human_head({"encoder.cls_token": torch.zeros(1, 1, 384)}, "some.pt")
