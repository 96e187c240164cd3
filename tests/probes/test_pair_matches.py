from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dune_bench.encoders.base import Features
from dune_bench.errors import TaskError
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.pair_matches import (
    MatchConstants,
    UnmatchableError,
    _nearest,
    match_pair,
    match_points,
    token_centres,
)

PLAIN = MatchConstants(centre="none", refine="none", temperature=0.1)
GRID = TokenGrid((6, 8), (84, 112))
CENTRED = MatchConstants(centre="pair", refine="none", temperature=0.1)
SIZE = (300, 640)


def noise(seed: int, grid: TokenGrid = GRID, channels: int = 16) -> Features:
    rng = np.random.default_rng(seed)
    return Features(torch.from_numpy(rng.normal(size=(1, channels, *grid.grid))).float(), None, grid.padding)


def waves(grid: TokenGrid, shift: tuple[float, float] = (0.0, 0.0)) -> Features:
    """Smooth features of the place (in tokens); `shift` (x, y) is how far the content moved."""
    rng = np.random.default_rng(3)
    frequency, phase = rng.normal(size=(2, 128)) * 0.6, rng.uniform(0, 6.28, 128)
    y, x = np.mgrid[: grid.grid[0], : grid.grid[1]]
    cells = np.stack([x - shift[0], y - shift[1]], -1)
    code = np.cos(cells @ frequency + phase).transpose(2, 0, 1)
    return Features(torch.from_numpy(code)[None].float(), None, grid.padding)


def brute_force(desc1: Tensor, desc2: Tensor) -> list[tuple[int, int]]:
    """Mutual nearest neighbours by cosine, one pair after the other; ties to the lowest index."""

    def best(row: Tensor, others: Tensor) -> int:
        values = [float(row @ o / (row.norm() * o.norm())) for o in others]
        return values.index(max(values))

    there = [best(row, desc2) for row in desc1]
    back = [best(row, desc1) for row in desc2]
    return [(i, j) for i, j in enumerate(there) if back[j] == i]


def test_points_are_not_left_at_network_size() -> None:
    same = noise(0)
    found = match_pair(same, same, GRID, GRID, SIZE, (150, 160), PLAIN)
    assert len(found) == 48
    assert np.allclose(found.points1[:2], [(40, 25), (120, 25)])
    assert np.allclose(found.points1[-1], (600, 275))
    assert np.allclose(found.points2, found.points1 * (160 / 640, 150 / 300))
    assert np.allclose(found.similarity, 1.0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_matches_are_not_other_than_brute_force(seed: int) -> None:
    first, second = noise(seed), noise(seed + 100)
    found = match_pair(first, second, GRID, GRID, SIZE, SIZE, PLAIN)
    expected = brute_force(first.patch[0].flatten(1).T.double(), second.patch[0].flatten(1).T.double())
    centres = token_centres(GRID, SIZE)
    assert np.allclose(found.points1, centres[[i for i, _ in expected]])
    assert np.allclose(found.points2, centres[[j for _, j in expected]])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 200))
def test_blocks_do_not_change_the_nearest_neighbour(seed: int, block_bytes: int) -> None:
    rng = np.random.default_rng(seed)
    # Few values and powers of two, so that cosines are exact and ties are common.
    first, second = (torch.from_numpy(rng.choice([-1.0, 1.0], (12, 4))) for _ in range(2))
    inside = torch.from_numpy(rng.random(12) < 0.8)
    if not inside.any():
        inside[3] = True
    found = _nearest(first, second, inside, block_bytes)
    allowed = [j for j in range(12) if inside[j]]
    expected = [max(allowed, key=lambda j: (float(first[i] @ second[j]), -j)) for i in range(12)]
    assert found.index2.tolist() == expected
    assert found.index1.tolist() == list(range(12))


def test_padding_does_not_shift_points() -> None:
    # 336 pixels in tokens of 32: the grid covers 352, 8 pixels beyond each edge.
    grid = TokenGrid((11, 11), (336, 336), (8, 8, 8, 8))
    centres = token_centres(grid, (448, 448))
    assert np.allclose(centres[0], 8 * 448 / 336)
    assert np.allclose(centres[60], 224)
    same = noise(1, grid)
    found = match_pair(same, same, grid, grid, (448, 448), (448, 448), PLAIN)
    assert np.allclose(found.points1, found.points2)
    asked, _ = match_points(same, same, grid, grid, (448, 448), (448, 448), centres, PLAIN)
    assert np.allclose(asked, centres)


def test_tokens_centred_in_the_padding_have_no_match() -> None:
    grid = TokenGrid((4, 4), (56, 28), (14, 0, 14, 0))
    same = noise(2, grid)
    found = match_pair(same, same, grid, grid, (56, 28), (56, 28), PLAIN)
    assert len(found) == 8
    assert set(found.points1[:, 0]) == {7.0, 21.0}
    points, _ = match_points(same, same, grid, grid, (56, 28), (56, 28), found.points1, PLAIN)
    assert np.allclose(points, found.points1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused_and_not_matched(bad: float) -> None:
    broken = noise(0)
    broken.patch[0, 3, 2, 2] = bad
    for first, second in ((broken, noise(1)), (noise(1), broken)):
        with pytest.raises(UnmatchableError, match="not finite"):
            match_pair(first, second, GRID, GRID, SIZE, SIZE, PLAIN)
        with pytest.raises(UnmatchableError, match="not finite"):
            match_points(first, second, GRID, GRID, SIZE, SIZE, np.ones((2, 2)), PLAIN)


def test_a_point_without_direction_has_no_answer_and_no_place() -> None:
    first, second = noise(0), noise(1)
    first.patch[:, :, 2, 2] = 0.0
    centres = token_centres(GRID, SIZE)
    points, similarity = match_points(first, second, GRID, GRID, SIZE, SIZE, centres, PLAIN)
    row = 2 * 8 + 2
    assert np.isnan(points[row]).all()
    assert np.isnan(similarity[row])
    assert np.isfinite(np.delete(points, row, 0)).all()


def test_features_without_any_direction_give_no_match_and_no_crash() -> None:
    flat = Features(torch.ones(1, 4, 6, 8), None)
    found = match_pair(flat, flat, GRID, GRID, SIZE, SIZE, CENTRED)
    assert len(found) == 0
    assert found.points2.shape == (0, 2)
    points, similarity = match_points(flat, flat, GRID, GRID, SIZE, SIZE, np.full((3, 2), 50.0), CENTRED)
    assert np.isnan(points).all()
    assert np.isnan(similarity).all()


def test_what_all_tokens_share_does_not_move_centred_matches() -> None:
    first, second = noise(0), noise(1)
    moved = [replace(f, patch=f.patch + 3.0) for f in (first, second)]
    plain = match_pair(first, second, GRID, GRID, SIZE, SIZE, CENTRED)
    shifted = match_pair(moved[0], moved[1], GRID, GRID, SIZE, SIZE, CENTRED)
    assert np.array_equal(plain.points2, shifted.points2)
    assert np.allclose(plain.similarity, shifted.similarity, atol=1e-4)


@pytest.mark.parametrize(("method", "temperature"), [("quadratic", 1.0), ("softargmax", 0.1)])
def test_refinement_is_not_worse_than_token_centres(method: str, temperature: float) -> None:
    grid = TokenGrid((12, 12), (168, 168))
    rng = np.random.default_rng(0)
    refined = MatchConstants.model_validate({"centre": "none", "refine": method, "temperature": temperature})
    errors: dict[str, list[float]] = {"none": [], method: []}
    for shift in rng.uniform(-2, 2, (20, 2)):
        inner = token_centres(grid, (168, 168)).reshape(12, 12, 2)[4:8, 4:8].reshape(-1, 2)
        for constants in (PLAIN, refined):
            found, _ = match_points(
                waves(grid),
                waves(grid, tuple(shift)),
                grid,
                grid,
                (168, 168),
                (168, 168),
                inner,
                constants,
            )
            off = np.linalg.norm(found - (inner + shift * 14), axis=1)
            errors[constants.refine].append(float(off.mean()))
    assert np.mean(errors[method]) < 0.5 * np.mean(errors["none"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["quadratic", "softargmax"]))
def test_refined_points_never_leave_the_image(seed: int, method: str) -> None:
    constants = MatchConstants.model_validate({"centre": "pair", "refine": method, "temperature": 0.1})
    grid = TokenGrid((5, 5), (60, 60), (5, 5, 5, 5))
    found = match_pair(noise(seed, grid), noise(seed + 1, grid), grid, grid, (60, 60), (90, 30), constants)
    assert ((found.points2 >= 0) & (found.points2 <= (30, 90))).all()


def test_features_of_another_grid_or_width_are_refused() -> None:
    with pytest.raises(TaskError, match="one image of"):
        match_pair(noise(0), noise(1), TokenGrid((6, 7), (84, 98)), GRID, SIZE, SIZE, PLAIN)
    with pytest.raises(TaskError, match="16 and 8 channels"):
        match_pair(noise(0), noise(1, channels=8), GRID, GRID, SIZE, SIZE, PLAIN)


def test_an_unknown_constant_of_matching_is_an_error() -> None:
    with pytest.raises(ValueError, match="extra"):
        MatchConstants.model_validate({**PLAIN.model_dump(), "ratio": 0.8})
