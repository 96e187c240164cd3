"""Reciprocal matches of dense descriptors: those of brute force, in the pixels of the original images."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import project, unproject
from dune_bench.geometry.matching import reciprocal_matches
from dune_bench.geometry.poses import transform
from dune_bench.probes import two_view_matching
from dune_bench.probes.pair_matches import UnmatchableError
from dune_bench.probes.two_view_maps import PairMaps
from dune_bench.probes.two_view_matching import DescriptorMatchConstants, descriptor_matches, reciprocal_from
from tests.probes.fake_room import SIZE, depth_at, intrinsics, pair, relative
from tests.probes.two_view_world import box_maps, view_maps

Pairs = set[tuple[int, int]]


def constants(
    seed_stride: int = 1, border_px: float = 0.0, max_matches: int = 10**6
) -> DescriptorMatchConstants:
    return DescriptorMatchConstants(seed_stride=seed_stride, border_px=border_px, max_matches=max_matches)


def unit(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def random_maps(grid1: tuple[int, int], grid2: tuple[int, int], noise: float = 0.5) -> PairMaps:
    """View 2 shows descriptors of view 1 at other places, with noise."""
    first = unit((*grid1, 8), 0)
    pick = np.random.default_rng(1).integers(0, grid1[0] * grid1[1], grid2)
    second = first.reshape(-1, 8)[pick] + noise * unit((*grid2, 8), 2)
    return PairMaps(view_maps(np.ones((*grid1, 3)), first), view_maps(np.ones((*grid2, 3)), second))


def brute_force(desc1: NDArray[np.float32], desc2: NDArray[np.float32]) -> Pairs:
    """One by one: the best of each row, the first among equals, both ways."""

    def best(query: NDArray[np.float32], table: NDArray[np.float32]) -> int:
        found = 0
        for i in range(len(table)):
            if query @ table[i] > query @ table[found]:
                found = i
        return found

    forward = [best(row, desc2) for row in desc1]
    backward = [best(row, desc1) for row in desc2]
    return {(i, j) for i, j in enumerate(forward) if backward[j] == i}


@settings(max_examples=60, deadline=None)
@given(n1=st.integers(1, 25), n2=st.integers(1, 25), levels=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_every_seed_finds_what_brute_force_finds_ties_included(
    n1: int, n2: int, levels: int, seed: int
) -> None:
    """Small integers: products are exact, and equal ones abound."""
    rng = np.random.default_rng(seed)
    desc1, desc2 = (rng.integers(-levels, levels + 1, (n, 2)).astype(np.float32) for n in (n1, n2))
    every = brute_force(desc1, desc2)
    assert set(zip(*map(list, reciprocal_from(np.arange(n1), desc1, desc2)), strict=True)) == every
    seeds = np.flatnonzero(rng.random(n1) < 0.3)
    some = set(zip(*map(list, reciprocal_from(seeds, desc1, desc2)), strict=True))
    assert some <= every
    assert {(i, j) for i, j in every if i in seeds} <= some
    assert len(some) > 0 or len(seeds) == 0  # every way ends in a pair


def test_a_seed_that_is_no_match_walks_to_one() -> None:
    """Angles: 0° of view 1 goes to 20°, which prefers 30°, which prefers 32°, which prefers 30° too."""

    def at(*degrees: float) -> NDArray[np.float32]:
        angles = np.radians(degrees)
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)

    first, second = reciprocal_from(np.array([0]), at(0, 30, 100), at(20, 32, 101))
    assert first.tolist() == [1]
    assert second.tolist() == [1]


def test_stride_one_gives_the_exact_mutual_nearest_neighbours() -> None:
    maps = random_maps((12, 17), (15, 11))
    size1, size2 = (120, 170), (150, 110)
    found = descriptor_matches(maps, size1, size2, constants())
    oracle = reciprocal_matches(
        *(torch.from_numpy(v.descriptors.reshape(-1, 8)) for v in (maps.view1, maps.view2))
    )
    assert 20 < len(found) < 12 * 17
    assert np.array_equal(found.points1, maps.view1.centres(size1)[oracle.index1.numpy()])
    assert np.array_equal(found.points2, maps.view2.centres(size2)[oracle.index2.numpy()])
    assert np.allclose(found.similarity, oracle.similarity.numpy(), atol=1e-6)


@pytest.mark.parametrize("stride", [2, 3, 8, 40])
def test_a_coarse_start_finds_no_match_that_is_not_reciprocal(stride: int) -> None:
    maps = random_maps((24, 32), (24, 32))
    found, every = (descriptor_matches(maps, SIZE, SIZE, constants(s)) for s in (stride, 1))
    both = [{(*a, *b) for a, b in zip(m.points1, m.points2, strict=True)} for m in (found, every)]
    assert 0 < len(both[0]) < len(both[1])
    assert both[0] <= both[1]


def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = random_maps((24, 32), (20, 30))
    whole = descriptor_matches(maps, SIZE, SIZE, constants(2))
    monkeypatch.setattr(two_view_matching, "BLOCK_BYTES", 7 * 4 * 20 * 30)
    blocks = descriptor_matches(maps, SIZE, SIZE, constants(2))
    for name in ("points1", "points2", "similarity"):
        assert np.array_equal(getattr(whole, name), getattr(blocks, name))


def test_full_maps_are_not_compared_all_at_once() -> None:
    """Two maps of 512 × 384: 150 GB of products."""
    grid = (512, 384)
    desc = unit((*grid, 8), 0)
    maps = PairMaps(
        view_maps(np.ones((*grid, 3)), desc), view_maps(np.ones((*grid, 3)), np.roll(desc, (7, 5), (0, 1)))
    )
    tracemalloc.start()
    try:
        found = descriptor_matches(maps, grid, grid, constants(32, border_px=3.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100e6
    assert len(found) > 150
    assert np.all((found.points2 - found.points1) % (384, 512) == (5, 7))


def test_matches_at_the_border_of_either_image_are_dropped() -> None:
    maps = random_maps((12, 16), (12, 16), noise=0.2)
    size1, size2 = (120, 160), (240, 320)  # cells of 10 and of 20 pixels
    every = descriptor_matches(maps, size1, size2, constants())
    for border in (6.0, 12.0):
        found = descriptor_matches(maps, size1, size2, constants(border_px=border))
        inner = np.ones(len(every), bool)
        for points, (height, width) in ((every.points1, size1), (every.points2, size2)):
            x, y = points.T
            inner &= np.minimum(np.minimum(x, width - x), np.minimum(y, height - y)) >= border
        assert 0 < inner.sum() < len(every)
        assert np.array_equal(found.points1, every.points1[inner])
        assert np.array_equal(found.points2, every.points2[inner])


def test_a_surplus_of_matches_is_thinned_evenly() -> None:
    maps = random_maps((24, 32), (24, 32), noise=0.1)
    every = descriptor_matches(maps, SIZE, SIZE, constants())
    found = descriptor_matches(maps, SIZE, SIZE, constants(max_matches=50))
    assert len(every) > 100
    assert len(found) == 50
    rows = [np.flatnonzero((every.points1 == p).all(1))[0] for p in found.points1]
    assert np.ptp(np.diff(rows)) <= 1
    assert (rows[0], rows[-1]) == (0, len(every) - 1)


def test_descriptors_of_the_place_match_where_the_place_is_seen() -> None:
    """Maps of two different grids: one of them mistaken for the other, and this fails."""
    sample = pair()
    found = descriptor_matches(box_maps(sample, (48, 64), (72, 96)), SIZE, SIZE, constants(4, border_px=3.0))
    points = unproject(intrinsics(), found.points1, depth_at(sample.view1.T_cam_world, found.points1))
    true2, _ = project(intrinsics(), transform(relative(sample), points))
    errors = np.linalg.norm(true2 - found.points2, axis=1)
    assert len(errors) > 30
    assert np.median(errors) < 1.5


def test_descriptors_that_are_not_numbers_do_not_match() -> None:
    maps = random_maps((4, 5), (4, 5))
    broken = maps.view2.descriptors.copy()
    broken[1, 2, 3] = np.nan
    with pytest.raises(UnmatchableError, match="not finite"):
        descriptor_matches(
            replace(maps, view2=replace(maps.view2, descriptors=broken)), SIZE, SIZE, constants()
        )


def test_descriptors_of_different_widths_are_refused() -> None:
    maps = random_maps((4, 5), (4, 5))
    narrow = replace(maps.view2, descriptors=maps.view2.descriptors[..., :5])
    with pytest.raises(TaskError, match="8 and 5 channels"):
        descriptor_matches(replace(maps, view2=narrow), SIZE, SIZE, constants())
