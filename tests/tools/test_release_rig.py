from __future__ import annotations

import numpy as np

from dune_bench.models.anny_release_rig import BONES, JAW, KEPT
from tools.minirooms import release_rig


def test_random_bodies_turn_the_bones_that_the_release_turns() -> None:
    for jaw in (False, True):
        rotmat, phenotype = release_rig.random_bodies(3, seed=0, jaw=jaw)
        assert rotmat.shape == (3, BONES, 3, 3)
        np.testing.assert_allclose(
            rotmat @ rotmat.transpose(0, 1, 3, 2), np.tile(np.eye(3), (3, BONES, 1, 1)), atol=1e-12
        )
        moved = np.abs(rotmat - np.eye(3)).max((0, 2, 3)) > 1e-6
        assert set(np.flatnonzero(moved)) == set(KEPT) - (set() if jaw else {JAW})
        assert 0 <= phenotype.min() < phenotype.max() <= 1


def test_random_bodies_repeat() -> None:
    for one, two in zip(
        release_rig.random_bodies(2, seed=1), release_rig.random_bodies(2, seed=1), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_start_of_the_pose_is_upright() -> None:
    """From z up to a camera's y down."""
    np.testing.assert_allclose(
        release_rig.UPRIGHT.apply([[0, 0, 1], [0, -1, 0]]), [[0, -1, 0], [0, 0, -1]], atol=1e-12
    )
