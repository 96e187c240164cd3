"""The slim model's maker, without anny: the reduction itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dune_bench.models.body_anny import corner_weights
from tools.minirooms import slim_body


def test_corners_are_in_the_order_the_model_weighs_them() -> None:
    grid = slim_body.corner_grid()
    weights = corner_weights(torch.from_numpy(grid), slim_body.ANCHORS).numpy()
    np.testing.assert_allclose(weights, np.eye(len(grid)), atol=1e-12)


def test_reduction_loses_nothing_of_low_rank_shapes() -> None:
    rng = np.random.default_rng(0)
    shapes = (rng.normal(size=(40, 5)) @ rng.normal(size=(5, 60))).reshape(40, 20, 3)
    mean, basis, mix = slim_body.low_rank(shapes)
    assert len(basis) == 5
    assert np.abs(mix).max() == pytest.approx(1)
    np.testing.assert_allclose(mean + np.einsum("nr,rvd->nvd", mix, basis), shapes, atol=1e-9)


def test_quantisation_stays_within_half_a_step() -> None:
    basis = np.random.default_rng(1).normal(size=(3, 50, 3)) * np.array([1.0, 1e-3, 1e-6])[:, None, None]
    whole, step = slim_body.quantised(basis)
    assert whole.dtype == np.int16
    assert (np.abs(whole * step[:, None, None] - basis) <= 0.5000001 * step[:, None, None]).all()
    assert (np.abs(whole).max((1, 2)) == 32767).all()


def test_reduction_is_deterministic() -> None:
    shapes = np.random.default_rng(2).normal(size=(12, 9, 3))
    for first, second in zip(slim_body.low_rank(shapes), slim_body.low_rank(shapes.copy()), strict=True):
        assert first.tobytes() == second.tobytes()
