"""Maps of a pair: whose pixel a cell is, and what a map says between its cells and beyond them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.geometry.matching import cell_centres
from dune_bench.geometry.poses import invert, pose
from dune_bench.models.two_view_output import ViewOutput
from dune_bench.probes.two_view_maps import PairMaps, pair_maps
from tests.probes.fake_room import SIZE, depth_at, pair, relative, turn
from tests.probes.two_view_world import box_maps, view_maps

RNG = np.random.default_rng(0)


def output(batch: int = 2, grid: tuple[int, int] = (4, 6)) -> ViewOutput:
    rng = torch.Generator().manual_seed(0)
    shape = (batch, *grid)
    points = torch.randn(*shape, 3, generator=rng, requires_grad=True)
    ones = torch.ones(shape)
    return ViewOutput(points, ones, torch.randn(*shape, 5, generator=rng), 2 * ones)


def test_pairs_of_a_batch_do_not_mix() -> None:
    first, second = output(), output()
    second = replace(second, points=second.points + 10)
    pairs = pair_maps(first, second)
    assert len(pairs) == 2
    for i, maps in enumerate(pairs):
        assert np.array_equal(maps.view1.points, first.points[i].detach().numpy())
        assert np.array_equal(maps.view2.points, second.points[i].detach().numpy())
        assert np.array_equal(maps.view1.descriptors, first.descriptors[i].numpy())
        assert (maps.view1.descriptor_confidence == 2).all()
        assert (maps.view1.confidence == 1).all()
        assert maps.view1.points.dtype == np.float32


def test_half_precision_becomes_float32() -> None:
    half = ViewOutput(*(t.bfloat16() for t in vars(output()).values()))
    assert pair_maps(half, half)[0].view1.descriptors.dtype == np.float32


@pytest.mark.parametrize("size", [(4, 6), (300, 400), (720, 540)])
def test_cells_are_not_half_a_cell_off(size: tuple[int, int]) -> None:
    """Also where the image was stretched: 4 × 6 cells of an upright image."""
    view = view_maps(RNG.normal(size=(4, 6, 3)))
    assert np.allclose(view.centres(size), cell_centres((4, 6), size).numpy())
    assert np.allclose(view.centres(size)[0], (size[1] / 12, size[0] / 8))
    assert np.array_equal(view.points_at(view.centres(size), size), view.points.reshape(-1, 3))


def test_points_between_cells_are_interpolated_and_points_outside_are_not() -> None:
    view = view_maps(np.arange(24.0).reshape(2, 4, 3))
    size = (20, 40)
    between = view.points_at(np.array([[10.0, 5.0], [0.0, 0.0], [20.0, 10.0]]), size)
    cells = view.points.reshape(8, 3)
    expected = [cells[:2].mean(0), cells[0], cells[[1, 2, 5, 6]].mean(0)]
    assert np.allclose(between, expected)
    assert np.isnan(view.points_at(np.array([[-0.1, 5.0], [40.1, 5.0], [5.0, 20.1]]), size)).all()


def test_a_cell_without_a_point_is_not_blended_in() -> None:
    points = np.ones((2, 4, 3))
    points[0, 1] = np.nan
    view = view_maps(points)
    assert not view.finite
    assert not PairMaps(view_maps(np.ones((2, 4, 3))), view).finite
    got = view.points_at(np.array([[10.0, 5.0], [5.0, 5.0]]), (20, 40))
    assert np.isnan(got[0]).all()
    assert (got[1] == 1).all()


def test_depth_of_the_second_view_is_not_taken_in_camera_1() -> None:
    sample = pair(pose(turn(40.0), np.array([0.5, 0.1, -0.3])))
    maps = box_maps(sample, (24, 32), (30, 20))
    for view, maps_, T in (
        (sample.view1, maps.view1, np.eye(4)),
        (sample.view2, maps.view2, relative(sample)),
    ):
        pixels = maps_.centres(SIZE)
        assert np.allclose(maps_.depth_at(pixels, SIZE, T), depth_at(view.T_cam_world, pixels), rtol=1e-5)


def test_a_point_behind_the_camera_has_no_depth() -> None:
    view = view_maps(np.full((2, 2, 3), [0.0, 0.0, 1.0]))
    away = invert(pose(turn(180.0), np.zeros(3)))
    assert np.isnan(view.depth_at(np.array([[1.0, 1.0]]), (2, 2), away)).all()


@given(h=st.integers(1, 20), w=st.integers(1, 20), stride=st.integers(1, 25))
def test_a_grid_of_cells_is_even_and_never_empty(h: int, w: int, stride: int) -> None:
    view = view_maps(np.ones((h, w, 3)))
    cells = view.every(stride)
    rows, columns = np.unique(cells // w), np.unique(cells % w)
    assert len(cells) == len(rows) * len(columns) > 0
    assert (np.diff(rows) == stride).all()
    assert (np.diff(columns) == stride).all()
    assert cells.max() < h * w
    if stride == 1:
        assert np.array_equal(cells, np.arange(h * w))


def test_maps_of_different_grids_are_refused() -> None:
    view = view_maps(np.ones((4, 6, 3)))
    for name in ("points", "confidence", "descriptors", "descriptor_confidence"):
        with pytest.raises(TaskError, match="do not belong to one view"):
            replace(view, **{name: getattr(view, name)[:, :-1]})
    with pytest.raises(TaskError, match="do not belong to one view"):
        replace(view, points=view.points[..., :2])
    with pytest.raises(TaskError, match="do not belong to one view"):
        replace(view, descriptors=view.confidence)
