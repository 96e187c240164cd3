"""The two-view decoder at any shape: exchange of the views, batches, precision, fresh values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dune_bench.errors import TaskError
from dune_bench.models.two_view_decoder import DecoderConfig, TwoViewDecoder, fresh_decoder
from dune_bench.models.two_view_output import ViewOutput

SMALL = {
    "encoder_dim": 20,
    "width": 32,
    "depth": 4,
    "heads": 4,
    "patch": 14,
    "cells": 4,
    "descriptor_dim": 5,
    "dpt_stage_widths": (8, 12, 16, 20),
    "dpt_features": 8,
    "dpt_last": 8,
}


def small(**changes: Any) -> TwoViewDecoder:
    config = DecoderConfig.model_validate(SMALL | changes)
    return fresh_decoder(config, torch.Generator().manual_seed(1))


def tokens(seed: int, grid: tuple[int, int] = (5, 6), batch: int = 2, dim: int = 20) -> Tensor:
    return torch.randn((batch, dim, *grid), generator=torch.Generator().manual_seed(seed))


def maps(output: ViewOutput) -> dict[str, Tensor]:
    return {field.name: getattr(output, field.name) for field in fields(output)}


def assert_same(first: ViewOutput, second: ViewOutput, atol: float = 1e-5) -> None:
    for name, values in maps(first).items():
        torch.testing.assert_close(values, maps(second)[name], atol=atol, rtol=1e-4, msg=name)


def total(outputs: tuple[ViewOutput, ViewOutput]) -> Tensor:
    return torch.stack([values.sum() for output in outputs for values in maps(output).values()]).sum()


@pytest.fixture(params=["dpt", "linear"])
def decoder(request: pytest.FixtureRequest) -> TwoViewDecoder:
    return small(head=request.param)


@pytest.mark.parametrize("head", ["dpt", "linear"])
@pytest.mark.parametrize(
    ("shape", "side"),
    [
        ({}, 4),
        ({"cells": None, "patch": 7}, 7),
        ({"cells": 3, "width": 24, "heads": 6, "depth": 1}, 3),
        ({"cells": 1, "depth": 2, "mlp_ratio": 2, "descriptor_hidden": 9}, 1),
        ({"cells": 2, "depth": 3, "encoder_dim": 32, "input_norm": True}, 2),
    ],
)
def test_maps_cover_both_images_at_every_shape(head: str, shape: dict[str, Any], side: int) -> None:
    decoder = small(head=head, **shape)
    dim = decoder.config.encoder_dim
    for grid1, grid2 in (((5, 6), (5, 6)), ((3, 7), (7, 3)), ((1, 2), (4, 4))):
        outputs = decoder(tokens(0, grid1, dim=dim), tokens(1, grid2, dim=dim))
        for output, (h, w) in zip(outputs, (grid1, grid2), strict=True):
            plane = (2, h * side, w * side)
            assert output.points.shape == (*plane, 3)
            assert output.descriptors.shape == (*plane, 5)
            assert output.confidence.shape == output.descriptor_confidence.shape == plane
            assert all(bool(torch.isfinite(values).all()) for values in maps(output).values())


def test_views_meet_as_the_previous_block_left_them(decoder: TwoViewDecoder) -> None:
    seen: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    left: dict[tuple[int, int], Tensor] = {}

    def recorder(view: int, number: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[view, number], left[view, number] = (inputs[0], inputs[1]), output

        return record

    for view, blocks in enumerate((decoder.dec_blocks, decoder.dec_blocks2)):
        for number, block in enumerate(blocks):
            block.register_forward_hook(recorder(view, number))
    decoder(tokens(0), tokens(1))
    for number in range(1, 4):
        for view in (0, 1):
            x, y = seen[view, number]
            assert torch.equal(x, left[view, number - 1])
            assert torch.equal(y, left[1 - view, number - 1])
    assert torch.equal(seen[0, 0][0], seen[1, 0][1])
    assert torch.equal(seen[0, 0][1], seen[1, 0][0])


def test_equal_decoders_and_heads_do_not_tell_the_views_apart(decoder: TwoViewDecoder) -> None:
    decoder.downstream_head2.load_state_dict(decoder.downstream_head1.state_dict())
    first, second = decoder(tokens(0), tokens(1, (3, 4)))
    second_again, first_again = decoder(tokens(1, (3, 4)), tokens(0))
    assert_same(first, first_again)
    assert_same(second, second_again)


def test_each_view_depends_on_the_other(decoder: TwoViewDecoder) -> None:
    before = decoder(tokens(0), tokens(1))
    after = decoder(tokens(0), tokens(2))
    assert not torch.allclose(before[0].points, after[0].points)
    after = decoder(tokens(3), tokens(1))
    assert not torch.allclose(before[1].points, after[1].points)


def test_pairs_of_a_batch_do_not_mix(decoder: TwoViewDecoder) -> None:
    a, b = tokens(0, batch=3), tokens(1, (4, 3), batch=3)
    together = decoder(a, b)
    for i in range(3):
        alone = decoder(a[i : i + 1], b[i : i + 1])
        for one, all_ in zip(alone, together, strict=True):
            assert_same(one, ViewOutput(**{name: m[i : i + 1] for name, m in maps(all_).items()}))


def test_strides_and_type_of_the_features_do_not_matter(decoder: TwoViewDecoder) -> None:
    a, b = tokens(0).bfloat16(), tokens(1).bfloat16()
    expected = decoder(a.float(), b.float())
    last = [x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) for x in (a, b)]
    for output, other in zip(decoder(*last), expected, strict=True):
        assert_same(output, other)


@torch.no_grad()
def test_bfloat16_autocast_gives_float32_maps_near_the_exact_ones(decoder: TwoViewDecoder) -> None:
    exact = decoder(tokens(0), tokens(1))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = decoder(tokens(0), tokens(1))
    for one, other in zip(exact, rounded, strict=True):
        for name, values in maps(one).items():
            cast = maps(other)[name]
            assert cast.dtype == torch.float32
            assert float((cast - values).norm() / values.norm()) < 0.05, name
        length = other.descriptors.norm(dim=-1)
        torch.testing.assert_close(length, torch.ones_like(length))


@pytest.mark.parametrize("head", ["dpt", "linear"])
@pytest.mark.parametrize("depth", [1, 4])
def test_no_parameter_is_left_without_gradient(head: str, depth: int) -> None:
    decoder = small(head=head, depth=depth, input_norm=True)
    total(decoder(tokens(0), tokens(1))).backward()  # type: ignore[no-untyped-call]
    idle = [name for name, p in decoder.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert idle == []


def test_input_norm_makes_the_scale_of_tokens_irrelevant() -> None:
    a, b = tokens(0), tokens(1)
    normed, bare = small(input_norm=True), small()
    assert normed.input_norm.eps == 1e-5
    for one, other in zip(normed(100 * a, 100 * b), normed(1000 * a, 1000 * b), strict=True):
        assert_same(one, other, atol=1e-4)
    assert not torch.allclose(bare(100 * a, 100 * b)[0].points, bare(1000 * a, 1000 * b)[0].points)


@pytest.mark.parametrize(
    ("depth", "hooks"),
    [(12, (0, 6, 9, 12)), (8, (0, 4, 6, 8)), (4, (0, 2, 3, 4)), (3, (0, 1, 2, 3)), (1, (0, 0, 0, 1))],
)
def test_heads_read_the_published_fractions_of_any_depth(depth: int, hooks: tuple[int, ...]) -> None:
    config = DecoderConfig(encoder_dim=384, depth=depth)
    assert config.hooks == hooks
    assert config.stage_widths == tuple(768 if hook else 384 for hook in hooks)


def test_tokens_that_do_not_fit_are_one_clear_line(decoder: TwoViewDecoder) -> None:
    with pytest.raises(TaskError, match=r"\(B, 20, h, w\), but the encoder gives \(2, 24, 5, 6\)"):
        decoder(tokens(0), tokens(1, dim=24))
    with pytest.raises(TaskError, match=r"the encoder gives \(2, 20, 30\)"):
        decoder(tokens(0).flatten(2), tokens(1))
    with pytest.raises(TaskError, match="3 first views, 2 second ones"):
        decoder(tokens(0, batch=3), tokens(1))


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ValidationError, match="each of 5 heads a multiple of 4 channels"):
        DecoderConfig(encoder_dim=8, width=32, heads=5)
    with pytest.raises(ValidationError, match="dept"):
        DecoderConfig.model_validate({"encoder_dim": 8, "dept": 2})
    for key in ("encoder_dim", "depth", "cells", "descriptor_dim", "patch"):
        with pytest.raises(ValidationError, match=key):
            DecoderConfig.model_validate({"encoder_dim": 8, key: 0})


def test_fresh_values_follow_from_the_generator_alone() -> None:
    config = DecoderConfig.model_validate(SMALL)
    state = torch.get_rng_state()
    first, again, other = (
        fresh_decoder(config, torch.Generator().manual_seed(seed)).state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state), "the global RNG moved"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["decoder_embed.weight"], other["decoder_embed.weight"])
    for name, values in first.items():
        if name.startswith("dec_blocks."):
            assert torch.equal(values, first[name.replace("dec_blocks.", "dec_blocks2.")])
    assert not torch.equal(
        first["downstream_head1.dpt.head.4.weight"], first["downstream_head2.dpt.head.4.weight"]
    )


@torch.no_grad()
def test_floor_of_the_descriptors_confidence_reaches_the_heads(decoder: TwoViewDecoder) -> None:
    raised = small(head=decoder.config.head, descriptor_floor=1)
    for one, other in zip(decoder(tokens(0), tokens(1)), raised(tokens(0), tokens(1)), strict=True):
        torch.testing.assert_close(other.descriptor_confidence, one.descriptor_confidence + 1)
        assert torch.equal(other.confidence, one.confidence)


@pytest.mark.parametrize("head", ["dpt", "linear"])
def test_a_grid_that_merging_does_not_divide_keeps_its_field_of_view(head: str) -> None:
    decoder = small(head=head, merge=2)
    odd = tokens(1, (5, 7))
    filled = torch.nn.functional.pad(odd, (0, 1, 0, 1), mode="replicate")
    found, expected = decoder(odd, odd)[0], decoder(filled, filled)[0]
    assert found.confidence.shape == (2, 5 * 4, 7 * 4)
    for name, values in maps(found).items():
        torch.testing.assert_close(values, maps(expected)[name][:, :20, :28], msg=name)


def test_merged_tokens_do_not_lose_their_places() -> None:
    decoder = small(head="linear", merge=2, depth=1)
    moved = tokens(1, (4, 4))
    other = moved.clone()
    other[:, :, 0, 3] += 1.0
    with torch.no_grad():
        for block in (*decoder.dec_blocks, *decoder.dec_blocks2):
            for parameter in block.parameters():
                parameter.zero_()  # no exchange: what changes, changes where the token is
        change = (decoder(moved, moved)[0].points - decoder(other, moved)[0].points).abs().sum(-1)[0]
    assert bool((change[:8, 8:] > 0).any())
    change[:8, 8:] = 0.0  # the merged token of rows 0-1, columns 2-3
    assert not bool(change.any())


def test_standardised_tokens_forget_their_scale_and_offset() -> None:
    plain, standardised = small(), small(standardised=True)
    state = plain.state_dict()
    mean, std = torch.linspace(-3, 40, 20), torch.linspace(0.01, 30, 20)
    standardised.load_state_dict({**state, "token_mean": mean, "token_std": std})
    x = tokens(3)
    scaled = x * std[:, None, None] + mean[:, None, None]
    assert_same(plain(x, x)[0], standardised(scaled, scaled)[0], atol=1e-4)


def test_token_path_starts_with_descriptors_that_know_equal_tokens() -> None:
    decoder = small(head="linear", token_path=True, descriptor_dim=16)
    with torch.no_grad():
        for head in (decoder.downstream_head1, decoder.downstream_head2):
            head.head_local_features.fc2.weight.zero_()
    x = tokens(5, (3, 4))
    flipped = x.flip(-1)
    first, second = decoder(x, flipped)
    torch.testing.assert_close(first.descriptors, second.descriptors.flip(2))
    untouched = small(head="linear", descriptor_dim=16)
    untouched.load_state_dict({k: v for k, v in decoder.state_dict().items() if "token_path" not in k})
    torch.testing.assert_close(first.points, untouched(x, flipped)[0].points)


def test_token_path_is_interpolated_between_token_centres() -> None:
    decoder = small(head="linear", token_path=True)
    with torch.no_grad():
        for parameter in decoder.downstream_head1.parameters():
            parameter.zero_()
        decoder.token_path.weight.zero_()
        decoder.token_path.weight[3, 0] = 1.0  # the confidence: 1 + exp(channel 0)
    x = torch.zeros(1, 20, 1, 2)
    x[0, 0, 0, 1] = 1.0
    along = (decoder(x, x)[0].confidence[0, 0] - 1.0).log()
    # Cells of width 1/4 between token centres at 0.5 and 1.5; the border's value beyond them.
    expected = ((torch.arange(8) + 0.5) / 4 - 0.5).clamp(0.0, 1.0)
    torch.testing.assert_close(along, expected)
