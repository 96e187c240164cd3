"""The sealed call: whatever goes in, what comes out is right or refused in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dune_bench.encoders.base import Encoder, centre_padding, parse_view
from dune_bench.errors import TaskError, UsageError


class Patches(nn.Module):
    """Mean of each 4-pixel patch and a class token; `spoil` changes the output."""

    def __init__(self, spoil: str = "") -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.spoil = spoil

    def forward(self, x: Tensor) -> object:
        patch = nn.functional.avg_pool2d(x, 4) * self.scale
        spoilt = {
            "nan": patch.where(torch.arange(len(patch)).view(-1, 1, 1, 1) != 1, float("nan")),
            "cut": patch[:, :, :-1],
            "tokens": torch.cat([patch.flatten(2).transpose(1, 2), patch[:, :, 0, :1].transpose(1, 2)], 1),
            "none": None,
            "cls": (patch, patch.mean((2, 3))[:, :2]),
            "infcls": (patch, patch.mean((2, 3)) / 0),
        }
        return spoilt.get(self.spoil, (patch, patch.mean((2, 3))))


def images(count: int = 2, height: int = 12, width: int = 16) -> Tensor:
    return torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("nan", "non-finite features for 1 of 2 images"),
        ("infcls", "non-finite features for 2 of 2 images"),
        ("cut", r"shape \(2, 3, 2, 4\), expected \(2, C, 3, 4\)"),
        ("tokens", "without class and register tokens"),
        ("none", "returned NoneType"),
        ("cls", "class token of shape"),
    ],
)
def test_wrong_features_do_not_pass(spoil: str, words: str) -> None:
    encoder = Encoder.from_module(Patches(spoil), 4, id="mine")
    with pytest.raises(TaskError, match=words) as caught:
        encoder.encode(images())
    assert "mine" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.zeros(3, 8, 8), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 4, 8, 8), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 1, 8, 8), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 3, 0, 8), "not empty"),
        (torch.zeros(0, 3, 8, 8), "not empty"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "divide by 255"),
        (torch.full((1, 3, 8, 8), 255.0), r"lie in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), -0.1), "do not normalise"),
        (torch.full((1, 3, 8, 8), float("nan")), "hold NaN"),
        (np.zeros((1, 3, 8, 8), np.float32), "must be a torch.Tensor, not ndarray"),
    ],
)
def test_wrong_images_are_not_encoded(bad: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Encoder.from_module(Patches(), 4).encode(bad)


def test_one_view_by_name_is_not_read_letter_by_letter() -> None:
    found = Encoder.from_module(Patches(), 4).encode(torch.zeros(1, 3, 8, 8), views="norm")
    assert list(found) == ["norm"]


def test_unknown_view_names_what_there_is() -> None:
    encoder = Encoder.from_module(Patches(), 4, id="mine")
    for view in ("layer:1", "proj:mast3r_vitl16", "nrom", "layer:0", "layers:3", "proj:"):
        with pytest.raises(UsageError, match=r"has no view|is not one of"):
            encoder.encode(images(), [view])
    assert parse_view("layers:6,8,10").layers == (6, 8, 10)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 32))
def test_padding_is_neither_short_nor_lopsided(height: int, width: int, patch: int) -> None:
    left, top, right, bottom = centre_padding((height, width), patch)
    assert (height + top + bottom) % patch == 0
    assert (width + left + right) % patch == 0
    assert 0 <= top + bottom < patch
    assert bottom - top in (0, 1)
    assert right - left in (0, 1)


def test_padding_is_the_mean_colour_and_reported() -> None:
    encoder = Encoder.from_module(Patches(), 4)
    features = encoder.encode(torch.ones(1, 3, 9, 13))["norm"]
    assert features.padding == (1, 1, 2, 2)
    assert features.patch.shape == (1, 3, 3, 4)
    white = (1 - torch.tensor(encoder.mean)) / torch.tensor(encoder.std)
    # The left column of patches holds one padded column of four; padding adds zeros after normalising.
    torch.testing.assert_close(features.patch[0, :, 1, 0], white * 3 / 4)


def test_features_follow_the_weights_into_the_identity() -> None:
    module = Patches()
    first = Encoder.from_module(module, 4, fingerprint="run 1").identity()
    assert first == Encoder.from_module(module, 4, fingerprint="run 1", id="other name").identity()
    with torch.no_grad():
        module.scale += 1
    assert first != Encoder.from_module(module, 4, fingerprint="run 1").identity()
    assert first != Encoder.from_module(Patches(), 4, fingerprint="run 2").identity()
    assert Encoder.from_module(module, 4).identity()["weights_digest"] is None
    assert set(first) == {"weights_digest", "adapter", "mean", "std", "patch_size", "options"}
    assert first != Encoder.from_module(Patches(), 4, fingerprint="run 1", mean=(0, 0, 0)).identity()


def test_module_in_training_mode_does_not_stay_so() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.BatchNorm2d(5))
    encoder = Encoder.from_module(module, 4)
    both, one = encoder.encode(images())["norm"].patch, encoder.encode(images()[:1])["norm"].patch
    torch.testing.assert_close(both[:1], one)
    assert encoder.dim == 5


def test_dimension_is_known_before_the_first_image() -> None:
    assert Encoder.from_module(Patches(), 4).dim == 3


def test_bfloat16_changes_little_and_returns_float32() -> None:
    module = nn.Conv2d(3, 8, 4, 4)
    encoder = Encoder.from_module(module, 4)
    full = encoder.encode(images())["norm"].patch
    half = encoder.to(torch.device("cpu"), "bfloat16").encode(images())["norm"].patch
    assert half.dtype == torch.float32
    assert 0 < float((half - full).abs().max()) < 0.05 * float(full.std())


@pytest.mark.parametrize("size", [0, -4])
def test_impossible_patch_size_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="patch_size"):
        Encoder.from_module(Patches(), size)


def test_tokens_and_maps_are_the_same_features() -> None:
    def pooled(x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 4)

    as_map = Encoder.from_module(pooled, 4)
    as_tokens = Encoder.from_module(lambda x: pooled(x).flatten(2).transpose(1, 2), 4)
    ours, theirs = (encoder.encode(images())["norm"].patch for encoder in (as_map, as_tokens))
    torch.testing.assert_close(ours, theirs)
