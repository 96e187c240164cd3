from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.data.samples import PairSample
from dune_bench.errors import UsageError
from dune_bench.probes.two_view_correspondences import Correspondences, cells_seen, draw, reciprocal
from tests.probes.pair_scene import SIZE, Ball, K, room_pair, world_points

BALL = Ball()
SIZES = ((24, 20), (16, 28))
OCCLUSION_M = 0.02


def true_cells(pair: PairSample):
    forward = cells_seen(pair.view1, pair.view2, SIZES, OCCLUSION_M)
    backward = cells_seen(pair.view2, pair.view1, (SIZES[1], SIZES[0]), OCCLUSION_M)
    return reciprocal(forward, backward)


def drawn(pair: PairSample, count: int, seed: int = 0, negative_share: float = 0.5) -> Correspondences:
    return draw(*true_cells(pair), SIZES, count, np.random.default_rng(seed), negative_share)


TRUE = true_cells(room_pair(25.0, 0.5, BALL))


def reciprocal_by_loops(pair: PairSample) -> set[tuple[int, int, int, int]]:
    """Cells (x1, y1, x2, y2) that see each other: rays are cast for each cell, no depth map is read."""

    def seen(a: int, x: int, y: int) -> tuple[int, int] | None:
        views, (height, width), other = (pair.view1, pair.view2), SIZES[a], SIZES[1 - a]
        pixel = np.array([[(x + 0.5) / width * SIZE[1], (y + 0.5) / height * SIZE[0]]])
        world = world_points(views[a], pixel, BALL)[0]
        T = views[1 - a].T_cam_world
        point = T[:3, :3] @ world + T[:3, 3]
        u, v, w = K @ point
        if w <= 0 or not (0 <= u / w < SIZE[1] and 0 <= v / w < SIZE[0]):
            return None
        there = world_points(views[1 - a], np.array([[u / w, v / w]]), BALL)[0]
        if np.linalg.norm(there - world) > OCCLUSION_M:
            return None
        return int(u / w / SIZE[1] * other[1]), int(v / w / SIZE[0] * other[0])

    found = set()
    for y in range(SIZES[0][0]):
        for x in range(SIZES[0][1]):
            cell2 = seen(0, x, y)
            if cell2 is not None and seen(1, *cell2) == (x, y):
                found.add((x, y, *cell2))
    return found


@pytest.mark.parametrize("yaw", [0.0, 25.0])
def test_true_cells_are_not_other_than_those_that_rays_join(yaw: float) -> None:
    pair = room_pair(yaw, 0.5, BALL)
    found = drawn(pair, 448, negative_share=0.0)
    cells = np.concatenate([found.cells1, found.cells2], 1)[found.matched]
    ours, expected = set(map(tuple, cells.tolist())), reciprocal_by_loops(pair)
    assert len(expected) > 100
    assert ours <= expected
    # At depth edges the map cannot say what a ray can: such points are not asked.
    assert len(expected - ours) <= 0.03 * len(expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 448), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_draw_has_no_repeats_and_no_hidden_positive(seed: int, count: int, share: float) -> None:
    found = draw(*TRUE, SIZES, count, np.random.default_rng(seed), share)
    assert found.matched.shape == (count,)
    assert found.matched.sum() <= count - round(count * share)
    assert not (found.matched[1:] & ~found.matched[:-1]).any(), "true ones come first"
    for cells, (height, width) in zip((found.cells1, found.cells2), SIZES, strict=True):
        assert cells.shape == (count, 2)
        assert ((cells >= 0) & (cells < (width, height))).all()
        assert len(set(map(tuple, cells.tolist()))) == count


def test_half_are_negatives_where_there_is_enough_to_match() -> None:
    found = drawn(room_pair(10.0, 0.3), 64)
    assert found.matched.sum() == 32


def test_a_draw_is_not_another_for_the_same_seed() -> None:
    first, again, other = (drawn(room_pair(), 64, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.cells1, again.cells1)
    assert np.array_equal(first.cells2, again.cells2)
    assert not np.array_equal(first.cells1, other.cells1)


def test_views_without_overlap_are_all_negatives() -> None:
    pair = room_pair()
    turned = pair.view2.T_cam_world.copy()
    turned[:3] = np.diag([-1.0, 1.0, -1.0]) @ turned[:3]
    back = replace(pair, view2=replace(pair.view2, T_cam_world=turned))
    found = drawn(back, 64)
    assert not found.matched.any()
    assert len(found.cells1) == 64


def test_more_correspondences_than_cells_are_refused() -> None:
    with pytest.raises(UsageError, match="449 correspondences from a map of 448 cells"):
        drawn(room_pair(), 449)
