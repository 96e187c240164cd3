"""Reciprocal nearest neighbours and sub-patch refinement against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.errors import TaskError
from dune_bench.geometry import matching

sets = st.tuples(st.integers(1, 30), st.integers(1, 30), st.integers(1, 6), st.integers(0, 10_000))


def brute_force(a: torch.Tensor, b: torch.Tensor) -> list[tuple[int, int]]:
    pairs = []
    similar = [[float(x @ y / (x.norm() * y.norm())) for y in b] for x in a]
    for i, row in enumerate(similar):
        j = row.index(max(row))
        column = [line[j] for line in similar]
        if column.index(max(column)) == i:
            pairs.append((i, j))
    return pairs


@given(shape=sets, rows=st.integers(1, 40))
@settings(deadline=None)
def test_blocks_give_exactly_the_mutual_neighbours(shape: tuple[int, int, int, int], rows: int) -> None:
    n1, n2, channels, seed = shape
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n1, channels + 1, generator=generator, dtype=torch.float64)
    b = torch.randn(n2, channels + 1, generator=generator, dtype=torch.float64)
    got = matching.reciprocal_matches(a, b, block_bytes=17 * n2 * rows)
    assert list(zip(got.index1.tolist(), got.index2.tolist(), strict=True)) == brute_force(a, b)
    cosine = torch.cosine_similarity(a[got.index1], b[got.index2])
    torch.testing.assert_close(got.similarity, cosine)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 9))
def test_ties_go_to_the_lowest_index_whatever_the_blocks(seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.eye(3, dtype=torch.float64)
    a = codes[torch.randint(0, 3, (8,), generator=generator)]
    b = codes[torch.randint(0, 3, (7,), generator=generator)]
    got = matching.reciprocal_matches(a, b, block_bytes=17 * 7 * rows)
    firsts_a = {code: min(i for i in range(8) if a[i, code] == 1) for code in range(3) if a[:, code].any()}
    firsts_b = {code: min(i for i in range(7) if b[i, code] == 1) for code in range(3) if b[:, code].any()}
    want = sorted((firsts_a[c], firsts_b[c]) for c in firsts_a if c in firsts_b)
    # A code that the other set lacks is orthogonal to all of it: its best is index 0, at similarity 0.
    found = [
        (i, j)
        for i, j, s in zip(got.index1.tolist(), got.index2.tolist(), got.similarity.tolist(), strict=True)
        if s > 0.5
    ]
    assert found == want


def test_permutation_is_found_and_scale_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(500, 64, generator=generator)
    order = torch.randperm(500, generator=generator)
    got = matching.reciprocal_matches(a, a[order] * 7.0)
    assert (order[got.index2] == got.index1).all()
    assert len(got.index1) == 500


def test_memory_is_one_block_not_n_squared() -> None:
    """2000 × 20 000 similarities are 160 MB; no block made here is above 1 MB."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 20_000, 4, generator=generator)
    largest = 0
    real = torch.Tensor.masked_fill_

    def watch(self: torch.Tensor, *args: object) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, self.numel() * self.element_size())
        return real(self, *args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "masked_fill_", watch)
        matching.reciprocal_matches(a[:2000], b, block_bytes=2**20)
    assert 0 < largest <= 2**20


def test_zero_descriptor_matches_nothing() -> None:
    a = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    got = matching.reciprocal_matches(a, a)
    assert got.index1.tolist() == [1, 2]
    assert len(matching.reciprocal_matches(torch.zeros(3, 2), a).index1) == 0


def test_empty_sets_give_no_match() -> None:
    a = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for got in (matching.reciprocal_matches(a[:0], a), matching.reciprocal_matches(a, a[:0])):
        assert got.index1.shape == got.index2.shape == got.similarity.shape == (0,)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_features_are_an_error_not_a_match(bad: float) -> None:
    a = torch.ones(4, 3)
    b = a.clone()
    b[1, 1] = bad
    with pytest.raises(TaskError, match="finite"):
        matching.reciprocal_matches(a, b)
    with pytest.raises(TaskError, match="channels"):
        matching.reciprocal_matches(a, torch.ones(4, 2))


def bump(centre: tuple[float, float], grid: tuple[int, int], width: float = 1.5) -> torch.Tensor:
    """Descriptors whose similarity to `code` falls off quadratically from `centre` (x, y) in cells."""
    y, x = torch.meshgrid(torch.arange(grid[0]) + 0.5, torch.arange(grid[1]) + 0.5, indexing="ij")
    angle = (((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / width**2).clamp(max=3).double() * 0.05
    cosine = 1 - angle
    return torch.stack([cosine, (1 - cosine**2).sqrt()], -1).reshape(-1, 2)


@given(dx=st.floats(-0.45, 0.45), dy=st.floats(-0.45, 0.45))
def test_quadratic_refinement_finds_the_peak(dx: float, dy: float) -> None:
    grid = (7, 9)
    second = bump((4.5 + dx, 3.5 + dy), grid)
    first = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = matching.reciprocal_matches(first, second)
    assert found.index2.tolist() == [3 * 9 + 4]
    offset = matching.refine(first, second, found, grid)
    torch.testing.assert_close(offset, torch.tensor([[dx, dy]], dtype=torch.float64), atol=1e-6, rtol=0)
    soft = matching.refine(first, second, found, grid, "softargmax", temperature=0.01)
    assert (soft.sign() == offset.sign()).all() or offset.abs().min() < 0.05


@pytest.mark.parametrize("method", ["quadratic", "softargmax"])
@pytest.mark.parametrize("cell", [0, 4, 15, 19])
def test_refinement_at_the_border_stays_in_the_image(method: str, cell: int) -> None:
    grid = (4, 5)
    second = torch.randn(20, 6, generator=torch.Generator().manual_seed(cell), dtype=torch.float64)
    first = second[cell : cell + 1]
    found = matching.Matches(torch.tensor([0]), torch.tensor([cell]), torch.ones(1))
    offset = matching.refine(first, second, found, grid, method)[0]  # type: ignore[arg-type]
    x, y = cell % 5 + 0.5 + offset[0], cell // 5 + 0.5 + offset[1]
    assert 0 <= x <= 5
    assert 0 <= y <= 4
    if method == "quadratic":
        assert offset.tolist() == [0.0, 0.0]


def test_flat_similarity_is_not_moved() -> None:
    flat = torch.ones(9, 2)
    found = matching.Matches(torch.tensor([0]), torch.tensor([4]), torch.ones(1))
    assert matching.refine(flat, flat, found, (3, 3)).tolist() == [[0.0, 0.0]]
    with pytest.raises(TaskError, match="grid"):
        matching.refine(flat, flat, found, (3, 4))


def test_cell_centres_are_half_patches_in() -> None:
    centres = matching.cell_centres((2, 3), (28, 42))
    assert centres.tolist() == [[7.0, 7.0], [21.0, 7.0], [35.0, 7.0], [7.0, 21.0], [21.0, 21.0], [35.0, 21.0]]
