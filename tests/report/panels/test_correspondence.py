"""The correspondence panel counts what the probe counts, also where nothing was found."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dune_bench.probes.correspondence import Correspondences
from dune_bench.probes.correspondence_truth import lattice, pair_truth
from tests.report.panels.conftest import SIZE, Draw, shown_of, wall_pair

SIDE = 12
PROBE = SimpleNamespace(protocol=SimpleNamespace(lattice=SIDE, occlusion_cm=5.0, thresholds_px=(2.0, 6.0)))


def found(shift: float) -> np.ndarray:
    """The true places, moved to the right by `shift` pixels."""
    truth = pair_truth(wall_pair(), lattice(SIZE, SIDE), 0.05)
    return np.where(truth.asked[:, None], truth.places2, 1.0) + np.array([shift, 0.0])


def shown(places: np.ndarray, **changes: Any) -> Any:
    return shown_of(wall_pair(), Correspondences(places), probe=PROBE, **changes)


@pytest.mark.parametrize(("shift", "shares"), [(0.0, (100, 0, 0)), (4.0, (0, 100, 0)), (9.0, (0, 0, 100))])
def test_shares_by_distance(draw: Draw, shift: float, shares: tuple[int, int, int]) -> None:
    names = ("≤ 2 px", "2–6 px", "> 6 px")
    expected = [f"{name}  {share} %" for name, share in zip(names, shares, strict=True)]
    assert draw("correspondence", shown(found(shift))).legend == expected


def test_points_without_an_answer_are_beyond_not_hits(draw: Draw) -> None:
    places = found(0.0)
    places[::2] = np.nan
    drawn = draw("correspondence", shown(places))
    first, _, last = (int(text.split()[-2]) for text in drawn.legend)
    assert first + last == 100
    assert 35 < last < 65


def test_true_dots_lie_where_truth_says(draw: Draw) -> None:
    drawn = draw("correspondence", shown(found(3.0)))
    truth = pair_truth(wall_pair(), lattice(SIZE, SIDE), 0.05)
    dots = np.asarray(drawn.tile("truth").collections[0].get_offsets())
    np.testing.assert_allclose(dots, truth.places2[truth.asked])
    moved = np.asarray(drawn.tile("prediction").collections[0].get_offsets())
    np.testing.assert_allclose(moved - dots, np.broadcast_to((3.0, 0.0), dots.shape), atol=1e-9)


def test_pair_without_any_answer_says_so(draw: Draw) -> None:
    drawn = draw("correspondence", shown(np.full((SIDE**2, 2), np.nan)))
    assert "no answer" in drawn.texts


def test_photographs_have_no_truth_and_no_error(draw: Draw) -> None:
    drawn = draw("correspondence", shown(found(0.0), truth=False))
    assert not [text for text in drawn.texts if text.startswith(("truth", "error"))]
    assert not drawn.legend
