from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from dune_bench.models import rotations

finite = st.floats(-4, 4, width=64)
vectors = arrays(np.float64, (5, 3), elements=finite)
matrices = arrays(np.float64, (3, 3), elements=finite)


@given(vectors)
def test_rotvec_matches_scipy(v: np.ndarray) -> None:
    ours = rotations.rotvec_to_matrix(torch.from_numpy(v)).numpy()
    np.testing.assert_allclose(ours, Rotation.from_rotvec(v).as_matrix(), atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4, 9.99e-4, 1.01e-3, 1.0, math.pi])
def test_rotvec_gradient_is_exact_and_finite_at_every_angle(angle: float) -> None:
    v = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64) * angle
    v.requires_grad_(True)
    assert torch.autograd.gradcheck(rotations.rotvec_to_matrix, (v,))


@given(vectors)
def test_matrix_to_rotvec_is_the_same_rotation(v: np.ndarray) -> None:
    R = rotations.rotvec_to_matrix(torch.from_numpy(v))
    back = rotations.matrix_to_rotvec(R)
    assert (back.norm(dim=-1) <= math.pi + 1e-9).all()
    torch.testing.assert_close(rotations.rotvec_to_matrix(back), R, atol=1e-9, rtol=0)


def test_half_turns_are_not_lost_as_zero() -> None:
    axes = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, 0.8]], dtype=torch.float64)
    back = rotations.matrix_to_rotvec(rotations.rotvec_to_matrix(math.pi * axes))
    torch.testing.assert_close(back.norm(dim=-1), torch.full((4,), math.pi, dtype=torch.float64))
    torch.testing.assert_close((back / math.pi * axes).sum(-1).abs(), torch.ones(4, dtype=torch.float64))


@given(vectors)
def test_6d_form_returns_the_rotation(v: np.ndarray) -> None:
    R = rotations.rotvec_to_matrix(torch.from_numpy(v))
    six = rotations.rotation_to_6d(R)
    torch.testing.assert_close(rotations.rotation_from_6d(six * torch.tensor([2.0] * 3 + [0.5] * 3)), R)


def test_6d_form_is_columns_by_hand() -> None:
    six = torch.tensor([0.0, 2.0, 0.0, 0.0, 5.0, 3.0])
    expected = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(rotations.rotation_from_6d(six), expected)


@pytest.mark.parametrize("six", [[0, 0, 0, 1, 0, 0], [1, 2, 3, 2, 4, 6], [1, 0, 0, 0, 0, 0]])
def test_degenerate_6d_is_refused_not_a_silent_rotation(six: list[float]) -> None:
    R = rotations.rotation_from_6d(torch.tensor(six, dtype=torch.float64))
    assert rotations.rotation_defect(R).item() > 1e-3


def test_mirror_has_no_finite_defect() -> None:
    assert rotations.rotation_defect(torch.diag(torch.tensor([1.0, 1.0, -1.0]))).item() == torch.inf
    assert rotations.rotation_defect(torch.full((3, 3), torch.nan)).item() == torch.inf
    assert rotations.rotation_defect(torch.eye(3)).item() == 0


@settings(max_examples=40)
@given(matrices, st.integers(0, 2**31 - 1))
def test_nearest_rotation_beats_random_rotations(M: np.ndarray, seed: int) -> None:
    best = rotations.nearest_rotation(torch.from_numpy(M)).numpy()
    assert rotations.rotation_defect(torch.from_numpy(best)).item() < 1e-9
    others = Rotation.random(300, rng=np.random.default_rng(seed)).as_matrix()
    near = best @ Rotation.from_rotvec(0.01 * np.eye(3)).as_matrix()
    for R in (*others, *near):
        assert np.trace(R.T @ M) <= np.trace(best.T @ M) + 1e-9


def test_nearest_rotation_gradient_is_finite_where_singular_values_meet() -> None:
    generator = torch.Generator().manual_seed(0)
    R = rotations.rotvec_to_matrix(torch.randn((4, 3), generator=generator, dtype=torch.float64))
    scales = torch.tensor([[1, 1, 1], [2, 2, 1], [3, 2, 0.0], [3, 2, -1]], dtype=torch.float64)
    M = (R * scales[:, None]).requires_grad_(True)
    assert torch.autograd.gradcheck(rotations.nearest_rotation, (M,))
