"""The augmentation against torchvision itself, and that a seed alone decides."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode

from dune_bench.distill.augment import (
    Augmentation,
    Draw,
    Jitter,
    apply,
    augmented,
    draw,
    evaluation_view,
)
from tests.distill.pictures import textured

PUBLISHED = Augmentation()
WHOLE = (0, 0, 40, 56)
NOTHING: dict[str, Any] = {
    "flip": False,
    "jitter": None,
    "grayscale": False,
    "blur_sigma": None,
    "solarize": False,
}


def plain(crop: tuple[int, int, int, int] = WHOLE, size: int = 24) -> Tensor:
    """The crop alone, by torchvision, as float."""
    image = torch.from_numpy(textured(1)).permute(2, 0, 1)
    resized: Tensor = F.resized_crop(
        image, *crop, [size, size], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    return resized.float() / 255


def test_crop_is_that_of_an_image_library() -> None:
    top, left, height, width = 3, 7, 30, 41
    made = apply(textured(1), 24, Draw((top, left, height, width), **NOTHING), PUBLISHED)
    assert (made.dtype, made.shape) == (torch.float32, (3, 24, 24))
    cropped = Image.fromarray(textured(1)).crop((left, top, left + width, top + height))
    wanted = np.asarray(cropped.resize((24, 24), Image.Resampling.BICUBIC)).astype(np.int64)
    found = (made.permute(1, 2, 0).numpy() * 255).round().astype(np.int64)
    assert np.abs(found - wanted).max() <= 1
    torch.testing.assert_close(made, plain((top, left, height, width)), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"flip": True}, lambda x: x.flip(-1)),
        ({"grayscale": True}, lambda x: F.rgb_to_grayscale(x, num_output_channels=3)),
        ({"blur_sigma": 1.7}, lambda x: F.gaussian_blur(x, [9, 9], [1.7, 1.7])),
        ({"solarize": True}, lambda x: torch.where(x >= 0.5, 1 - x, x)),
        (
            {"jitter": Jitter((3, 1, 0, 2), 1.3, 0.7, 1.15, -0.06)},
            lambda x: F.adjust_saturation(
                F.adjust_brightness(F.adjust_contrast(F.adjust_hue(x, -0.06), 0.7), 1.3), 1.15
            ),
        ),
        (
            {"jitter": Jitter((0, 1, 2, 3), 0.6, 1.4, 0.8, 0.1), "flip": True, "solarize": True},
            lambda x: F.solarize(
                F.adjust_hue(
                    F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(x.flip(-1), 0.6), 1.4), 0.8),
                    0.1,
                ),
                0.5,
            ),
        ),
    ],
)
def test_each_operation_is_torchvisions(change: dict[str, Any], wanted: Any) -> None:
    made = apply(textured(1), 24, Draw(WHOLE, **{**NOTHING, **change}), PUBLISHED)
    torch.testing.assert_close(made, wanted(plain()).clamp(0, 1), rtol=0, atol=1e-6)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_grey_comes_before_the_blur_and_solarize_last() -> None:
    made = apply(
        textured(1), 24, Draw(WHOLE, **{**NOTHING, "grayscale": True, "blur_sigma": 0.9, "solarize": True}),
        PUBLISHED,
    )  # fmt: skip
    grey = F.rgb_to_grayscale(plain(), num_output_channels=3)
    wanted = F.solarize(F.gaussian_blur(grey, [9, 9], [0.9, 0.9]), 0.5)
    torch.testing.assert_close(made, wanted.clamp(0, 1), rtol=0, atol=1e-6)


def draws(count: int, height: int = 300, width: int = 400) -> list[Draw]:
    return [draw(height, width, PUBLISHED, seed) for seed in range(count)]


def test_probabilities_are_the_published_ones() -> None:
    drawn = draws(3000)
    for probability, hits in [
        (0.5, [d.flip for d in drawn]),
        (0.8, [d.jitter is not None for d in drawn]),
        (0.2, [d.grayscale for d in drawn]),
        (0.2, [d.blur_sigma is not None for d in drawn]),
        (0.2, [d.solarize for d in drawn]),
    ]:
        assert stats.binomtest(sum(hits), len(hits), probability).pvalue > 1e-3
    # And they go together no more often than chance has it.
    both = [d.grayscale and d.solarize for d in drawn]
    assert stats.binomtest(sum(both), len(both), 0.04).pvalue > 1e-3


def test_amounts_are_uniform_over_the_published_ranges() -> None:
    drawn = draws(3000)
    jitters = [d.jitter for d in drawn if d.jitter is not None]
    for low, high, values in [
        (0.6, 1.4, [j.brightness for j in jitters]),
        (0.6, 1.4, [j.contrast for j in jitters]),
        (0.8, 1.2, [j.saturation for j in jitters]),
        (-0.1, 0.1, [j.hue for j in jitters]),
        (0.1, 5.0, [d.blur_sigma for d in drawn if d.blur_sigma is not None]),
    ]:
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3
    orders = [j.order for j in jitters]
    assert len(set(orders)) == math.factorial(4)
    assert stats.chisquare([orders.count(order) for order in set(orders)]).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (97, 640)])
def test_crops_are_distributed_as_torchvisions(height: int, width: int) -> None:
    theirs = v2.RandomResizedCrop(24, scale=(0.4, 1.0), ratio=(3 / 4, 4 / 3))
    image = torch.zeros(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        boxes = [theirs.make_params([image]) for _ in range(1500)]
    mine = [d.crop for d in draws(1500, height, width)]
    for place, key in enumerate(["top", "left", "height", "width"]):
        theirs_of_key = [box[key] for box in boxes]
        assert stats.ks_2samp([crop[place] for crop in mine], theirs_of_key).pvalue > 1e-3


@given(height=st.integers(1, 900), width=st.integers(1, 900), seed=st.integers(0, 2**63 - 1))
def test_a_crop_is_never_empty_and_never_leaves_the_image(height: int, width: int, seed: int) -> None:
    top, left, h, w = draw(height, width, PUBLISHED, seed).crop
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert min(h, w) > 0


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (1, 1), (1, 50)])
def test_an_image_that_no_crop_fits_gets_torchvisions_middle(height: int, width: int) -> None:
    options = Augmentation(scale=(1.0, 1.0), ratio=(0.9, 1.1))
    theirs = v2.RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(0.9, 1.1))
    with torch.random.fork_rng():
        box = theirs.make_params([torch.zeros(3, height, width)])
    crop = (box["top"], box["left"], box["height"], box["width"])
    assert draw(height, width, options, 3).crop == crop


def test_switching_one_operation_off_leaves_the_others_as_they_were() -> None:
    for seed in range(50):
        full, without = (draw(300, 400, Augmentation(jitter_p=p, flip_p=p), seed) for p in (1.0, 0.0))
        assert (full.crop, full.grayscale, full.blur_sigma, full.solarize) == (
            *(without.crop, without.grayscale, without.blur_sigma, without.solarize),
        )
        assert (without.jitter, without.flip) == (None, False)


def _numpy_state() -> Any:
    return np.random.get_state(legacy=True)[1]  # type: ignore[index]  # noqa: NPY002


def test_no_global_generator_is_read_or_moved() -> None:
    image = textured(2)
    wanted = augmented(image, 24, PUBLISHED, 123)
    random.seed(9)
    np.random.seed(9)  # noqa: NPY002  # the one that must not matter
    with torch.random.fork_rng():
        torch.manual_seed(9)
        states = torch.get_rng_state(), _numpy_state().copy(), random.getstate()
        assert torch.equal(augmented(image, 24, PUBLISHED, 123), wanted)
        assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(_numpy_state(), states[1])
    assert random.getstate() == states[2]
    assert not torch.equal(augmented(image, 24, PUBLISHED, 124), wanted)


def test_the_number_of_threads_moves_no_bit() -> None:
    image = textured(3, 400, 500)
    options = Augmentation(jitter_p=1.0, blur_p=1.0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = [augmented(image, 336, options, seed) for seed in range(3)]
        torch.set_num_threads(4)
        four = [augmented(image, 336, options, seed) for seed in range(3)]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, four, strict=True))


def test_the_image_itself_is_not_changed_and_may_be_read_only() -> None:
    image = textured(4)
    image.setflags(write=False)
    apply(image, 40, Draw((0, 0, 40, 40), **{**NOTHING, "solarize": True}), PUBLISHED)
    assert np.array_equal(image, textured(4))


@pytest.mark.parametrize(("height", "width"), [(40, 56), (56, 40), (24, 24), (23, 91)])
def test_evaluation_view_is_torchvisions_resize_and_centre_crop(height: int, width: int) -> None:
    image = textured(5, height, width)
    theirs = v2.Compose(
        [v2.Resize(24, interpolation=InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(24)]
    )
    wanted = theirs(torch.from_numpy(image).permute(2, 0, 1)).float() / 255
    made = evaluation_view(image, 24)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-6)
    assert float(evaluation_view(np.full_like(image, 255), 24).max()) == 1


def test_a_sliver_does_not_fill_the_memory() -> None:
    # Enlarged whole it would have 224 × 22.4 million pixels.
    assert evaluation_view(np.zeros((1, 100_000, 3), np.uint8), 224).shape == (3, 224, 224)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"scale": (0.9, 0.4)}, "scale goes from 0.9 down"),
        ({"scale": (0.4, 1.5)}, "a crop is not larger"),
        ({"scale": (0.0, 1.0)}, "greater than 0"),
        ({"blur_kernel": 8}, "is even"),
        ({"hue": 0.6}, "less than or equal to 0.5"),
        ({"flip_p": 1.1}, "less than or equal to 1"),
        ({"flips": 1}, "Extra inputs"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Augmentation(**values)
