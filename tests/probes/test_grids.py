from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.stream import room_folds
from dune_bench.probes.targets import class_counts, log_depths, proportions
from tests.probes.fake_features import depth_sample, lazy, seg_sample

sides = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), sides, sides)
def test_upsampling_without_padding_is_not_off_torch(h: int, w: int, height: int, width: int) -> None:
    values = np.random.default_rng(h * w).normal(size=(2, h, w))
    ours = TokenGrid((h, w), (14 * h, 14 * w)).upsample(values, (height, width))
    theirs = F.interpolate(
        torch.from_numpy(values)[None], size=(height, width), mode="bilinear", align_corners=False
    )[0]
    assert np.allclose(ours, theirs.numpy(), atol=1e-12)


def test_upsampling_with_padding_crops_what_the_padding_covers() -> None:
    """448 px image at patch 14 needs none; 40 × 50 at patch 14 pads to 42 × 56: left 3, top 1."""
    grid = TokenGrid((3, 4), (40, 50), (3, 1, 3, 1))
    values = np.random.default_rng(0).normal(size=(3, 4))
    padded = F.interpolate(torch.from_numpy(values)[None, None], size=(42, 56), mode="bilinear")[0, 0]
    assert np.allclose(grid.upsample(values, (40, 50)), padded[1:41, 3:53].numpy(), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), sides, sides, st.integers(0, 13), st.integers(0, 13))
def test_every_pixel_lies_in_the_cell_that_brute_force_finds(
    h: int, w: int, height: int, width: int, left: int, top: int
) -> None:
    left, top = left % 13, top % 13
    size = (14 * h - top, 14 * w - left)
    grid = TokenGrid((h, w), size, (left, top, 0, 0))
    cells = grid.cells((height, width)).reshape(height, width)
    for r in range(height):
        for c in range(width):
            row = ((2 * r + 1) * size[0] + 2 * height * top) // (2 * height * 14)
            column = ((2 * c + 1) * size[1] + 2 * width * left) // (2 * width * 14)
            assert cells[r, c] == row * w + column


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.integers(0, 2**31))
def test_counts_are_not_other_than_brute_force(height: int, width: int, seed: int) -> None:
    labels = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
    grid = TokenGrid((3, 2), (42, 28))
    counts, pixels = class_counts(labels, grid, 3, "x")
    cells = grid.cells((height, width)).reshape(height, width)
    for token in range(6):
        inside = labels[cells == token]
        assert pixels[token] == inside.size
        assert [int((inside == k).sum()) for k in range(3)] == counts[:, token].tolist()


def test_weight_of_a_patch_is_its_labelled_share() -> None:
    labels = np.zeros((8, 8), np.uint8)
    labels[:4, :4] = 255
    labels[:4, 4:6] = 255
    targets = proportions(lazy([seg_sample("a", labels)]), TokenGrid((2, 2), (28, 28)), 2)
    assert targets.weights().tolist() == [0.0, 0.5, 1.0, 1.0]


def test_log_depth_is_the_mean_of_logs_over_valid_pixels_only() -> None:
    depth = np.ones((4, 4), np.float32)
    depth[0, 0], depth[0, 1], depth[1, 0], depth[1, 1] = 2.0, 8.0, 0.0, np.nan
    mean, weight = log_depths(lazy([depth_sample("a", depth)]), TokenGrid((2, 2), (28, 28)), 0.05, 50.0)
    assert mean[0].item() == pytest.approx(np.log(4.0))
    assert weight.tolist() == [0.5, 1.0, 1.0, 1.0]


def test_cells_too_large_to_count_are_refused() -> None:
    with pytest.raises(TaskError, match="65535"):
        class_counts(np.zeros((300, 300), np.uint8), TokenGrid((1, 1), (14, 14)), 2, "x")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.integers(2, 6))
def test_folds_never_split_a_room(groups: list[str], folds: int) -> None:
    if len(set(groups)) < 2:
        with pytest.raises(TaskError, match="at least 2 groups"):
            room_folds(groups, folds)
        return
    found = room_folds(groups, folds)
    assert len({(g, f) for g, f in zip(groups, found.tolist(), strict=True)}) == len(set(groups))
    assert set(found.tolist()) == set(range(min(folds, len(set(groups)))))
