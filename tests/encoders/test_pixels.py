"""The floor without a network."""

from __future__ import annotations

import pytest
import torch

from dune_bench.errors import UsageError
from tests.encoders.loading import image, load


def test_pixels_are_the_mean_colour_and_place() -> None:
    picture = image(28, 42)
    features = load("pixels", "auto").encode(picture, ["raw"])["raw"]
    assert features.cls is None
    assert features.patch.shape == (1, 5, 2, 3)
    block = picture[0, :, 14:28, 28:42].mean((1, 2))
    torch.testing.assert_close(features.patch[0, :3, 1, 2], 2 * block - 1)
    torch.testing.assert_close(features.patch[0, 3:, 1, 2], torch.tensor([0.5, 2 / 3]))
    torch.testing.assert_close(features.patch[0, 3:, 0, 0], torch.tensor([-0.5, -2 / 3]))
    with pytest.raises(UsageError, match="use raw"):
        load("pixels", "auto").encode(picture, ["norm"])
