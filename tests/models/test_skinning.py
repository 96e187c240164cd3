from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dune_bench.models.skinning import KinematicTree, skin

PARENTS = (-1, 0, 0, 2, 1, 3, 2)


def test_tree_equals_a_walk_joint_by_joint() -> None:
    rng = np.random.default_rng(1)
    R = Rotation.random(2 * 7, rng=rng).as_matrix().reshape(2, 7, 3, 3)
    o = rng.normal(size=(2, 7, 3))
    G, p = KinematicTree(PARENTS).pose(torch.from_numpy(R), torch.from_numpy(o))
    for b in range(2):
        rotation: dict[int, np.ndarray] = {-1: np.eye(3)}
        place: dict[int, np.ndarray] = {-1: np.zeros(3)}
        for joint, parent in enumerate(PARENTS):
            place[joint] = place[parent] + rotation[parent] @ o[b, joint]
            rotation[joint] = rotation[parent] @ R[b, joint]
            np.testing.assert_allclose(G[b, joint], rotation[joint], atol=1e-12)
            np.testing.assert_allclose(p[b, joint], place[joint], atol=1e-12)


def test_skinning_equals_a_loop_over_vertices() -> None:
    rng = np.random.default_rng(2)
    v, S = rng.normal(size=(2, 9, 3)), rng.normal(size=(2, 4, 3, 3))
    h, p = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 3))
    w = rng.dirichlet(np.ones(4), size=9)
    ours = skin(*(torch.from_numpy(x) for x in (v, w, S, h, p))).numpy()
    for b in range(2):
        for i in range(9):
            by_hand = sum(w[i, j] * (S[b, j] @ (v[b, i] - h[b, j]) + p[b, j]) for j in range(4))
            np.testing.assert_allclose(ours[b, i], by_hand, atol=1e-12)


@pytest.mark.parametrize("parents", [(), (0,), (-1, -1), (-1, 2, 0), (-1, 1), (-1, 0, 7)])
def test_what_is_no_tree_is_refused(parents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="only root"):
        KinematicTree(parents)
