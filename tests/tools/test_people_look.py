"""Clothes of the anny people: colours only, no anny needed."""

from __future__ import annotations

import numpy as np
import pytest

from tools.minirooms.people_look import (
    MIN_CLOTH_DISTANCE,
    Pattern,
    distance_from_skin,
    lab,
    linear,
    sample_look,
)


def test_no_garment_has_the_colour_of_its_wearers_skin() -> None:
    for seed in range(300):
        look = sample_look(np.random.default_rng(seed), age=0.5, gender=float(seed % 2))
        for garment in (look.shirt, look.bottoms):
            assert distance_from_skin(garment, look.skin) >= MIN_CLOTH_DISTANCE


def test_distance_from_skin_is_that_of_the_farthest_colour_worn() -> None:
    skin, blue = linear((0.8, 0.6, 0.5)), linear((0.1, 0.2, 0.8))
    waves = np.zeros((1, 4))
    assert distance_from_skin(Pattern("plain", skin, blue, 0.1, waves), skin) == 0.0
    far = distance_from_skin(Pattern("stripes", skin, blue, 0.1, waves), skin)
    assert far == distance_from_skin(Pattern("plain", blue, skin, 0.1, waves), skin) > 60
    # Half the lightness: black cloth on mid-grey skin is 25 of L* away, not 50.
    grey, black = linear((0.466,) * 3), linear((0.0,) * 3)
    step = lab(grey)[0] - lab(black)[0]
    assert distance_from_skin(Pattern("plain", black, blue, 0.1, waves), grey) == pytest.approx(step / 2)
