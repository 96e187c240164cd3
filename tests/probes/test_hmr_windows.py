from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_windows import SLIVER, Summed, descriptors, window_boxes

PATCH = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 5, 7)))
corner = st.floats(-3, 9)


@given(st.tuples(corner, corner, corner, corner))
@settings(max_examples=60, deadline=None)
def test_cut_tokens_do_not_count_whole(box: tuple[float, float, float, float]) -> None:
    (left, right), (top, bottom) = sorted(box[:2]), sorted(box[2:])
    found = Summed(PATCH).means(np.array([[left, top, right, bottom]]))[0].numpy()
    share_x = np.clip(np.minimum(right, np.arange(7) + 1) - np.maximum(left, np.arange(7)), 0, None)
    share_y = np.clip(np.minimum(bottom, np.arange(5) + 1) - np.maximum(top, np.arange(5)), 0, None)
    share = share_y[:, None] * share_x
    if min(share_x.sum(), share_y.sum()) > 1.001 * SLIVER:
        assert np.allclose(found, (PATCH.numpy() * share).sum((1, 2)) / share.sum(), atol=1e-6)
    elif min(share_x.sum(), share_y.sum()) < 0.999 * SLIVER:
        assert np.allclose(found, PATCH.numpy().mean((1, 2)))


def test_neighbour_beyond_the_border_is_not_a_rounding_error() -> None:
    grid = TokenGrid((5, 7), (70, 98))
    third = 1 / 7 * 0.333333  # a window that ends almost, not quite, at the token's own border
    x = descriptors(PATCH, np.array([[2, 0]]), grid, [(-3 * third, -0.1, -1.5 * third, 0.1)])
    assert torch.allclose(x[0, 3:], PATCH.mean((1, 2)))


def test_head_token_comes_first_and_unblurred() -> None:
    grid = TokenGrid((5, 7), (70, 98))
    x = descriptors(PATCH, np.array([[1, 2], [4, 6]]), grid, [(-0.1, -0.1, 0.1, 0.1)])
    assert x.shape == (2, 6)
    assert torch.equal(x[0, :3], PATCH[:, 1, 2])
    assert torch.equal(x[1, :3], PATCH[:, 4, 6])


def test_strides_do_not_change_what_a_window_covers() -> None:
    window = [(-0.1, 0.0, 0.1, 0.2)]
    fine = window_boxes(np.array([[5, 5]]), TokenGrid((24, 24), (336, 336)), window)[0, 0] / 24
    coarse = window_boxes(np.array([[5, 5]]), TokenGrid((12, 12), (336, 336)), window)[0, 0] / 12
    size_fine, size_coarse = fine[2:] - fine[:2], coarse[2:] - coarse[:2]
    assert np.allclose(size_fine, size_coarse)
    assert np.allclose(size_fine, 0.2)


def test_padding_does_not_stretch_windows() -> None:
    padded = TokenGrid((25, 25), (336, 336), (7, 7, 7, 7))
    box = window_boxes(np.array([[5, 5]]), padded, [(-0.25, -0.25, 0.25, 0.25)])[0, 0]
    assert np.allclose(box[2:] - box[:2], 12.0)
