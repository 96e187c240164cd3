from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dune_bench.errors import TaskError
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_heads import (
    Heads,
    Hits,
    best_threshold,
    detection_targets,
    find_heads,
    heads_of,
    network_pixels,
    peaks,
    token_coordinates,
)
from dune_bench.probes.hmr_people import people_of
from tests.probes.hmr_world import GRID, SIZE, person, sample, someone, upright


def heads(
    *at: tuple[float, float], counts: list[bool] | None = None, owns: list[bool] | None = None
) -> Heads:
    every = [True] * len(at)
    return Heads(np.array(at, float).reshape(-1, 2), np.array(counts or every), np.array(owns or every))


@given(
    st.tuples(*[st.integers(0, 13)] * 4),
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(-50, 500),
    st.floats(-50, 500),
)
def test_padding_is_not_forgotten(
    padding: tuple[int, int, int, int], h: int, w: int, x: float, y: float
) -> None:
    left, top, right, bottom = padding
    image = (14 * h + 14 - top - bottom, 14 * w + 14 - left - right)
    grid = TokenGrid((h + 1, w + 1), (max(image[0], 1), max(image[1], 1)), padding)
    pixels = np.array([[x, y]])
    assert np.allclose(network_pixels(token_coordinates(pixels, grid), grid), pixels)
    if min(image) > 0:
        assert np.allclose(token_coordinates(pixels, grid), (pixels + np.array([left, top])) / 14)


def test_two_heads_in_one_token_are_the_nearer_ones() -> None:
    near = person("near", upright(0.0, 3.0, 0.0), someone(np.random.default_rng(0)))
    # Farther along the same rays: the same pixels.
    far = replace(near, id="far", keypoints_3d=near.keypoints_3d * 1.04)
    found = heads_of(people_of(sample("i", [far, near]), 0.3), SIZE, GRID)
    assert found.tokens[0].tolist() == found.tokens[1].tolist()
    assert found.owns.tolist() == [True, False]
    assert found.counts.tolist() == [True, True]


def test_neighbours_of_a_head_are_not_called_background() -> None:
    grid = TokenGrid((5, 5), (70, 70))
    targets = detection_targets([heads((2.5, 1.5), (4.9, 4.9), counts=[True, False])], grid)
    assert targets.counts[1].reshape(5, 5).sum() == 1
    assert targets.counts[1].reshape(5, 5)[1, 2] == 1
    background = targets.counts[0].reshape(5, 5)
    assert background[0:3, 1:4].sum() == 0
    assert background[3:, 3:].sum() == 0
    assert background.sum() == 25 - 9 - 4
    assert np.allclose(targets.weights().sum(), 25 - 8 - 4)


def test_nobody_to_learn_from_is_one_clear_line() -> None:
    with pytest.raises(TaskError, match="no image shows a person who must be found"):
        detection_targets([heads((2.5, 1.5), counts=[False])], GRID)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(-2, 2)))
def test_plateau_is_not_two_people(score: np.ndarray) -> None:
    tokens, scores = peaks(score, -1.0)
    assert (scores >= -1.0).all()
    assert (np.diff(scores) <= 0).all()
    for i, a in enumerate(tokens):
        assert score[tuple(a)] == scores[i]
        low = np.maximum(a - 1, 0)
        assert score[low[0] : a[0] + 2, low[1] : a[1] + 2].max() == scores[i]
        for b in tokens[:i]:
            assert np.abs(a - b).max() > 1
    if score.max() >= -1.0:
        assert scores[0] == score.max()


def test_head_is_not_found_twice_and_ignored_one_is_no_error() -> None:
    truth = heads((2.5, 2.5), (7.5, 7.5), (3.2, 2.5), counts=[True, False, True])
    tokens = np.array([[2, 2], [2, 3], [7, 8], [2, 1], [9, 1]])
    found = find_heads(tokens, np.arange(5.0)[::-1], truth, 1.5)
    assert found.hit.tolist() == [0, 2, -1, -1, -1]
    assert found.spared.tolist() == [False, False, True, False, False]


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.booleans()), min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_threshold_is_the_best_of_all(rows: list[tuple[int, bool, bool]], missed: int) -> None:
    scores = np.array([float(r[0]) for r in rows])
    right = np.array([r[1] for r in rows])
    spared = np.array([r[2] for r in rows]) & ~right
    people = int(right.sum()) + missed + 1
    hits = [Hits(scores, np.where(right, 0, -1), spared)]
    if spared.all():
        with pytest.raises(TaskError, match="no peak"):
            best_threshold(hits, people)
        return
    threshold, f1 = best_threshold(hits, people)

    def f1_at(limit: float) -> float:
        kept = (scores >= limit) & ~spared
        return float(2 * (right & kept).sum() / (kept.sum() + people))

    assert f1 == pytest.approx(f1_at(threshold))
    assert f1 == pytest.approx(max(f1_at(limit) for limit in scores[~spared]))
