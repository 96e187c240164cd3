"""Rotary positions against rotations of complex numbers, one at a time."""

from __future__ import annotations

import cmath

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.models.rope import BASE, rotary_table

CPU = torch.device("cpu")


def by_hand(x: list[list[float]], grid: tuple[int, int]) -> list[list[float]]:
    """(T, D): row in the first half of the channels, column in the second; pairs D/4 apart."""
    channels = len(x[0])
    planes = channels // 4
    turned = [[0.0] * channels for _ in x]
    for token in range(len(x)):
        for half, position in enumerate(divmod(token, grid[1])):
            for plane in range(planes):
                real, imaginary = (half * channels // 2 + plane + shift for shift in (0, planes))
                angle = position / BASE ** (2 * plane / (channels / 2))
                z = complex(x[token][real], x[token][imaginary]) * cmath.exp(1j * angle)
                turned[token][real], turned[token][imaginary] = z.real, z.imag
    return turned


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 5), width=st.integers(1, 5), planes=st.integers(1, 5), seed=st.integers(0, 99))
def test_rotation_is_that_of_complex_numbers(height: int, width: int, planes: int, seed: int) -> None:
    x = torch.randn((height * width, 4 * planes), generator=torch.Generator().manual_seed(seed))
    expected = torch.tensor(by_hand(x.tolist(), (height, width)))
    rotated = rotary_table((height, width), 4 * planes, CPU).rotate(x)
    torch.testing.assert_close(rotated, expected, atol=1e-5, rtol=0)


def test_similarity_depends_on_the_offset_alone() -> None:
    q, k = torch.randn((2, 1, 32), generator=torch.Generator().manual_seed(0))
    table = rotary_table((9, 11), 32, CPU)
    every = table.rotate(q.expand(99, -1)) @ table.rotate(k.expand(99, -1)).T
    places = every.reshape(9, 11, 9, 11)
    for row, column in ((1, 4), (3, 0), (6, 7)):
        shifted = places[row, column, row + 2, column + 3]
        torch.testing.assert_close(shifted, places[0, 0, 2, 3], atol=1e-4, rtol=0)


def test_half_precision_tokens_keep_their_type_and_their_length() -> None:
    x = torch.randn((2, 3, 600, 64), generator=torch.Generator().manual_seed(0))
    table = rotary_table((20, 30), 64, CPU)
    assert table.rotate(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(table.rotate(x).norm(dim=-1), x.norm(dim=-1))


def test_autocast_does_not_round_positions() -> None:
    exact = rotary_table((40, 40), 64, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        cast = rotary_table((40, 40), 64, CPU)
    assert torch.equal(cast.cos, exact.cos)
    assert torch.equal(cast.sin, exact.sin)
