"""The encoder that never looks."""

from __future__ import annotations

import math

import pytest
import torch

from dune_bench.encoders.load import load_encoder
from dune_bench.errors import UsageError
from dune_bench.registry.cards import EncoderCard
from tests.encoders.loading import image, load


def test_position_does_not_see_the_image() -> None:
    encoder = load("position", "auto")
    black, noise = torch.zeros(2, 3, 56, 70), torch.rand(2, 3, 56, 70, generator=torch.Generator())
    features = encoder.encode(black, ["raw"])["raw"]
    assert features.cls is None
    assert torch.equal(features.patch, encoder.encode(noise, ["raw"])["raw"].patch)
    assert torch.equal(features.patch[0], features.patch[1])


def test_features_are_products_of_cosines_at_patch_centres() -> None:
    patch = load("position", "auto").encode(image(42, 70), ["raw"])["raw"].patch
    assert patch.shape == (1, 63, 3, 5)
    row, column = (1 + 0.5) / 3, (3 + 0.5) / 5
    for i, j in ((0, 1), (1, 0), (3, 2), (7, 7)):
        expected = math.cos(math.pi * i * row) * math.cos(math.pi * j * column)
        assert float(patch[0, 8 * i + j - 1, 1, 3]) == pytest.approx(expected, abs=1e-6)


def test_nearest_neighbour_of_a_place_is_itself_and_not_its_mirror() -> None:
    patch = load("position", "auto").encode(image(336, 336), ["raw"])["raw"].patch
    tokens = torch.nn.functional.normalize(patch[0].flatten(1), dim=0)
    similarity = tokens.T @ tokens
    assert torch.equal(similarity.argmax(1), torch.arange(24 * 24))
    assert float((similarity - 2 * torch.eye(24 * 24)).max()) < 0.999


def test_another_number_of_waves_is_another_identity() -> None:
    cards = [EncoderCard(id="p", kind="position", arch={"waves": n}) for n in (4, 8)]
    few, many = (load_encoder(card) for card in cards)
    assert few.identity() != many.identity()
    assert few.dim == few.encode(image(28, 28), ["raw"])["raw"].patch.shape[1] == 15


def test_views_of_a_network_are_refused() -> None:
    with pytest.raises(UsageError, match="use raw"):
        load("position", "auto").encode(image(28, 28), ["norm"])
