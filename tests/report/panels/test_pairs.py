"""Two images in one tile: points keep to their image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.report.panels.pairs import Side, position_colours, spread_out


@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)), st.tuples(st.integers(1, 900), st.integers(1, 900))
)
def test_corners_of_view_two_are_the_corners_of_its_place(
    size1: tuple[int, int], size2: tuple[int, int]
) -> None:
    side = Side(size1, size2)
    corners = side.second(np.array([[0.0, 0], [size2[1], size2[0]]]))
    np.testing.assert_allclose(corners, [[side.offset, 0], [side.width, size1[0]]])
    assert side.offset > size1[1]


def test_chosen_points_are_spread_and_always_the_same() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal((10, 10), 0.1, (500, 2)), [[90, 90], [10, 90], [90, 10]]])
    chosen = spread_out(points, 5)
    assert {500, 501, 502} <= set(chosen)
    np.testing.assert_array_equal(chosen, spread_out(points, 5))
    np.testing.assert_array_equal(spread_out(points[:3], 5), [0, 1, 2])
    assert len(spread_out(np.zeros((0, 2)), 5)) == 0


def test_places_far_apart_have_different_colours() -> None:
    corners = np.array([[0.0, 0], [100, 0], [0, 50], [100, 50], [50, 25]])
    colours = position_colours(corners, (50, 100)).astype(int)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1)
    assert distance[~np.eye(5, dtype=bool)].min() > 80
