"""Bilinear sampling against a linear map, whose value between pixels is known."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.geometry.cameras import pixel_centres
from dune_bench.geometry.sampling import sample_features, sample_map, sample_nearest

sides = st.integers(1, 8)


def ramp(size: tuple[int, int]) -> np.ndarray:
    x, y = np.moveaxis(pixel_centres(size), -1, 0)
    return 3 * x - 2 * y + 1


@given(height=sides, width=sides, seed=st.integers(0, 999))
def test_linear_map_is_sampled_exactly(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform((0.5, 0.5), (width - 0.5 + 1e-12, height - 0.5 + 1e-12), (20, 2))
    want = 3 * points[:, 0] - 2 * points[:, 1] + 1
    np.testing.assert_allclose(sample_map(ramp((height, width)), points), want, atol=1e-9)
    maps = torch.from_numpy(ramp((height, width)))[None, None]
    # Given in pixels of an image of three times the size.
    got = sample_features(maps, torch.from_numpy(points)[None] * 3, (3 * height, 3 * width))
    np.testing.assert_allclose(got[0, :, 0].numpy(), want, atol=1e-9)


@given(height=sides, width=sides, seed=st.integers(0, 999))
def test_both_samplers_agree_up_to_the_border(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(height, width, 2))
    points = rng.uniform((0, 0), (width, height), (20, 2))
    maps = torch.from_numpy(values).permute(2, 0, 1)[None]
    got = sample_features(maps, torch.from_numpy(points)[None], (height, width))[0]
    np.testing.assert_allclose(sample_map(values, points), got.numpy(), atol=1e-9)


def test_pixel_centre_next_to_a_hole_keeps_its_value() -> None:
    values = np.ones((3, 4))
    values[1, 1] = np.nan
    centres = np.array([[0.5, 1.5], [1.5, 1.5], [1.0, 1.5], [2.5, 0.5]])
    np.testing.assert_array_equal(sample_map(values, centres), [1.0, np.nan, np.nan, 1.0])


def test_outside_is_nan_not_the_border() -> None:
    values = np.arange(12.0).reshape(3, 4)
    points = np.array([[-0.1, 1.0], [4.1, 1.0], [1.0, 3.1], [np.nan, 1.0], [4.0, 3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(sample_map(values, points), [np.nan] * 4 + [11.0, 0.0])
    np.testing.assert_array_equal(sample_nearest(values, points), [np.nan] * 4 + [11.0, 0.0])


def test_nearest_is_the_pixel_the_point_falls_in() -> None:
    values = np.arange(12.0).reshape(3, 4)
    assert sample_nearest(values, np.array([[0.99, 0.5], [1.0, 0.5], [3.2, 2.9]])).tolist() == [
        0.0,
        1.0,
        11.0,
    ]
