"""Forward kinematics and linear blend skinning, shared by the body models (batched, differentiable)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor


class KinematicTree:
    """A skeleton's parents (root first, parent −1), walked one depth at a time.

    Raises ValueError if joint 0 is not the only root or a parent does not come before its child.
    """

    def __init__(self, parents: Sequence[int]) -> None:
        if not parents or parents[0] != -1 or any(not 0 <= p < i for i, p in enumerate(parents) if i):
            raise ValueError("joint 0 must be the only root, and each parent must come before its children")
        self.parents = tuple(int(p) for p in parents)
        depth = [0]
        for parent in self.parents[1:]:
            depth.append(depth[parent] + 1)
        levels = [[i for i, d in enumerate(depth) if d == k] for k in range(max(depth) + 1)]
        self._levels: list[tuple[list[int], list[int]]] = [
            (level, [above.index(self.parents[i]) for i in level]) for above, level in pairwise(levels)
        ]
        order = [i for level in levels for i in level]
        self._places = [order.index(i) for i in range(len(order))]

    def pose(self, rotations: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Accumulates rotations and positions down the tree.

        rotations: (B, J, 3, 3), each relative to its parent.  offsets: (B, J, 3) metres, from the parent
        to the joint in the parent's axes; the root's own is its position.
        Returns G (B, J, 3, 3), p (B, J, 3): G_c = G_parent R_c, p_c = p_parent + G_parent o_c.
        """
        G, p = [rotations[:, :1]], [offsets[:, :1]]
        for joints, above in self._levels:
            parent_G, parent_p = G[-1][:, above], p[-1][:, above]
            p.append(parent_p + apply(parent_G, offsets[:, joints]))
            G.append(parent_G @ rotations[:, joints])
        return torch.cat(G, 1)[:, self._places], torch.cat(p, 1)[:, self._places]


def apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """(…, 3, 3) times (…, 3)."""
    return (matrix @ vectors[..., None]).squeeze(-1)


def skin(vertices: Tensor, weights: Tensor, linear: Tensor, heads: Tensor, positions: Tensor) -> Tensor:
    """Σ_j w_vj (S_j (v − h_j) + p_j): moves each vertex with its joints.

    vertices: (B, V, 3).  weights: (V, J), rows sum to 1.  linear: (B, J, 3, 3) S.  heads: (B, J, 3) h,
    joints before; positions: (B, J, 3) p, joints after.  Returns (B, V, 3).
    """
    shift = positions - apply(linear, heads)
    affine = torch.cat([linear, shift[..., None]], -1).flatten(2)
    blend = (weights @ affine).reshape(*vertices.shape, 4)
    return (blend[..., :3] * vertices[..., None, :]).sum(-1) + blend[..., 3]
