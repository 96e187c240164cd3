"""DUNE's augmentation with a seed for every image, and the view for evaluation.

All random numbers of an image are drawn at once from a generator of its own and then applied by
torchvision's functions, so nothing depends on the process or on what was read before, and switching one
operation off leaves the others as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import torch
import torchvision.transforms.v2.functional as F  # type: ignore[import-untyped]
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor
from torchvision.transforms import InterpolationMode

from dune_bench.registry.cards import Card

Share = Annotated[float, Field(ge=0, le=1)]
_ATTEMPTS = 10
_NUMBERS = 4 * _ATTEMPTS + 14
_MOST_STRETCHED = 16
_BICUBIC = InterpolationMode.BICUBIC


class Augmentation(Card):
    """What may happen to an image; the defaults are the published ones.

    scale: area of the crop as a share of the image.  ratio: its width / height.  brightness, contrast,
    saturation: factors lie within 1 ± this.  hue: shift within ± this, of a turn.  `…_p`: probabilities.
    blur_kernel: pixels.  blur_sigma: pixels.  solarize_from: brightness in [0, 1] from which on it is
    inverted.
    """

    scale: tuple[PositiveFloat, PositiveFloat] = (0.4, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)
    flip_p: Share = 0.5
    jitter_p: Share = 0.8
    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.2
    hue: float = Field(default=0.1, ge=0, le=0.5)
    grayscale_p: Share = 0.2
    blur_p: Share = 0.2
    blur_kernel: int = Field(default=9, ge=1)
    blur_sigma: tuple[PositiveFloat, PositiveFloat] = (0.1, 5.0)
    solarize_p: Share = 0.2
    solarize_from: Share = 0.5

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("scale", "ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} goes from {low} down to {high}: write the smaller number first")
        if self.scale[1] > 1:
            raise ValueError(f"scale {self.scale[1]}: a crop is not larger than its image")
        if self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel {self.blur_kernel} is even: a kernel has a middle")
        return self


@dataclass(frozen=True)
class Jitter:
    """order: of 0 brightness, 1 contrast, 2 saturation, 3 hue.  Factors; hue: a shift in turns."""

    order: tuple[int, ...]
    brightness: float
    contrast: float
    saturation: float
    hue: float


@dataclass(frozen=True)
class Draw:
    """What happens to one image.  crop: top, left, height, width, pixels.  None: it does not happen."""

    crop: tuple[int, int, int, int]
    flip: bool
    jitter: Jitter | None
    grayscale: bool
    blur_sigma: float | None
    solarize: bool


def draw(height: int, width: int, options: Augmentation, seed: int) -> Draw:
    """What happens to an image of height × width pixels: a function of these arguments alone."""
    generator = torch.Generator().manual_seed(seed)
    numbers: list[float] = torch.rand(_NUMBERS, generator=generator, dtype=torch.float64).tolist()
    crop = _crop(height, width, options, numbers[: 4 * _ATTEMPTS])
    flip, jitters, *amounts, grey, blurs, sigma, solarizes = numbers[4 * _ATTEMPTS :]
    jitter = Jitter(
        tuple(sorted(range(4), key=amounts[4:].__getitem__)),
        _between(1 - options.brightness, 1 + options.brightness, amounts[0]),
        _between(1 - options.contrast, 1 + options.contrast, amounts[1]),
        _between(1 - options.saturation, 1 + options.saturation, amounts[2]),
        _between(-options.hue, options.hue, amounts[3]),
    )
    return Draw(
        crop,
        flip < options.flip_p,
        jitter if jitters < options.jitter_p else None,
        grey < options.grayscale_p,
        _between(*options.blur_sigma, sigma) if blurs < options.blur_p else None,
        solarizes < options.solarize_p,
    )


def apply(image: NDArray[np.uint8], size: int, draw: Draw, options: Augmentation) -> Tensor:
    """float32 (3, size, size), RGB in [0, 1], of uint8 (H, W, 3).

    The crop is resized in 8 bits, as an image library does; all else is in float.
    """
    x: Tensor = F.resized_crop(_chw(image), *draw.crop, [size, size], interpolation=_BICUBIC, antialias=True)
    if draw.flip:
        x = F.horizontal_flip(x)
    x = F.to_dtype(x, torch.float32, scale=True).contiguous()
    if draw.jitter is not None:
        x = _jittered(x, draw.jitter)
    if draw.grayscale:
        x = F.rgb_to_grayscale(x, num_output_channels=3)
    if draw.blur_sigma is not None:
        x = F.gaussian_blur(x, [options.blur_kernel] * 2, [draw.blur_sigma] * 2)
    if draw.solarize:
        x = F.solarize(x, options.solarize_from)
    # Rounding in the hue and the blur may leave the range by an ulp.
    return x.clamp(0, 1).contiguous()


def augmented(image: NDArray[np.uint8], size: int, options: Augmentation, seed: int) -> Tensor:
    """float32 (3, size, size), RGB in [0, 1], of uint8 (H, W, 3): a function of the arguments alone,
    whatever process and number of threads."""
    with one_thread():
        return apply(image, size, draw(image.shape[0], image.shape[1], options, seed), options)


def evaluation_view(image: NDArray[np.uint8], size: int) -> Tensor:
    """float32 (3, size, size), RGB in [0, 1]: the shorter side resized to `size`, then the middle."""
    x = _chw(image)
    shorter = min(x.shape[-2:])
    # A sliver would fill the memory when its shorter side is enlarged; its ends are cut off anyway.
    x = F.center_crop(x, [min(side, _MOST_STRETCHED * shorter) for side in x.shape[-2:]])
    x = F.center_crop(F.resize(x, [size], interpolation=_BICUBIC, antialias=True), [size, size])
    made: Tensor = F.to_dtype(x, torch.float32, scale=True)
    return made.contiguous()


@contextmanager
def one_thread() -> Iterator[None]:
    """A mean over an image is summed in other pieces with more threads; loader processes have one."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _chw(image: NDArray[np.uint8]) -> Tensor:
    """uint8 (3, H, W) on the same memory; a copy if that is not writable, which torch would warn of."""
    return torch.from_numpy(image if image.flags.writeable else image.copy()).permute(2, 0, 1)


def _crop(height: int, width: int, options: Augmentation, numbers: list[float]) -> tuple[int, int, int, int]:
    """Top, left, height, width: area uniform, log of the ratio uniform; ten attempts to fit into the image,
    then the largest crop in the middle that respects the ratio."""
    low, high = (math.log(ratio) for ratio in options.ratio)
    for n in range(0, len(numbers), 4):
        area = height * width * _between(*options.scale, numbers[n])
        ratio = math.exp(_between(low, high, numbers[n + 1]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(numbers[n + 2] * (height - h + 1)), int(numbers[n + 3] * (width - w + 1)), h, w
    h = min(height, max(1, round(width / options.ratio[0])))
    w = min(width, max(1, round(height * options.ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


def _jittered(x: Tensor, jitter: Jitter) -> Tensor:
    for step in jitter.order:
        match step:
            case 0:
                x = F.adjust_brightness(x, jitter.brightness)
            case 1:
                x = F.adjust_contrast(x, jitter.contrast)
            case 2:
                x = F.adjust_saturation(x, jitter.saturation)
            case _:
                x = F.adjust_hue(x, jitter.hue)
    return x


def _between(low: float, high: float, number: float) -> float:
    return low + (high - low) * number
