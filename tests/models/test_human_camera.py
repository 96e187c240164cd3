"""Rays, projection and the two depth rules of the human head."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.geometry import cameras
from dune_bench.models.human_camera import (
    RAY_CHANNELS,
    back_project,
    depth_of,
    embed_rays,
    focal_ratio,
    project,
    raw_of,
    token_rays,
)

K = torch.tensor([[300.0, 2.0, 120.0], [0.0, 280.0, 90.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
metres = st.floats(0.05, 49.0)


@settings(deadline=None, max_examples=50)
@given(st.floats(-3, 3), st.floats(-3, 3), metres)
def test_projection_is_not_another_than_the_evaluators(x: float, y: float, z: float) -> None:
    point = torch.tensor([[x, y, z]], dtype=torch.float64)
    pixels, _ = cameras.project(K.numpy(), point.numpy())
    assert project(point, K).numpy() == pytest.approx(pixels, rel=1e-9, abs=1e-9)
    assert (back_project(project(point, K), K) * z).numpy() == pytest.approx(point.numpy(), abs=1e-9)


def test_rays_are_not_transposed() -> None:
    """Column first: to the right of the image, x grows."""
    rays = token_rays(K[None], (3, 5), 14, compat=False)
    assert rays.shape == (1, 3, 5, 3)
    expected = back_project(torch.tensor([4.5 * 14, 1.5 * 14], dtype=torch.float64), K)
    assert torch.allclose(rays[0, 1, 4], expected)
    released = token_rays(K[None], (5, 5), 14, compat=True)
    assert torch.allclose(released[0, 1, 4], back_project(torch.tensor([21.0, 63.0]).double(), K))


def test_ray_channels_are_ray_then_sines_then_cosines() -> None:
    ray = torch.tensor([0.1, -0.2, 1.0], dtype=torch.float64)
    embedded = embed_rays(ray)
    assert embedded.shape == (RAY_CHANNELS,) == (99,)
    omega = [1 + 31 * i / 15 for i in range(16)]
    assert embedded[3 + 16 + 2] == pytest.approx(math.sin(math.pi * -0.2 * omega[2]), abs=1e-9)
    assert embedded[3 + 48 + 15] == pytest.approx(math.cos(math.pi * 0.1 * omega[15]), abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(metres, st.floats(0.2, 5.0), st.booleans())
def test_what_should_be_predicted_gives_the_depth_back(depth: float, ratio: float, compat: bool) -> None:
    raw = raw_of(torch.tensor(depth, dtype=torch.float64), torch.tensor(ratio), compat)
    assert float(depth_of(raw, torch.tensor(ratio), compat)) == pytest.approx(depth, rel=1e-6)


def test_released_depth_is_not_proportional_to_the_focal_length() -> None:
    """The quirk: the factor is on the logarithm.  The clean rule doubles."""
    raw, ratio = torch.tensor(1.0, dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert depth_of(raw, ratio, compat=False).tolist() == pytest.approx([math.e, 2 * math.e])
    assert depth_of(raw, ratio, compat=True).tolist() == pytest.approx([math.e, math.e**2])
    assert float(depth_of(torch.tensor(9.0), torch.tensor(1.0), compat=True)) == 50.0


def test_reference_camera_sees_sixty_degrees_across_the_longer_side() -> None:
    focal = 6 * 14 / (2 * math.tan(math.radians(30)))
    reference = torch.diag(torch.tensor([focal, focal, 1.0], dtype=torch.float64))[None]
    assert float(focal_ratio(reference, (3, 6), 14, compat=False)) == pytest.approx(1.0)
    wide = reference * torch.tensor([1.0, 4.0, 1.0])[:, None]
    assert float(focal_ratio(wide, (3, 6), 14, compat=False)) == pytest.approx(2.0)
    assert float(focal_ratio(wide, (6, 6), 14, compat=True)) == pytest.approx(1.0)
