"""Window means against the exact ones of the linear protocol, which sum areas."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dune_bench.models.human_windows import window_means
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_windows import descriptors

EDGE = st.floats(-0.6, 0.6, allow_nan=False)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), left=EDGE, top=EDGE, width=st.floats(0.01, 0.8), height=st.floats(0.01, 0.8))
def test_means_are_not_others_than_those_of_the_linear_protocol(
    seed: int, left: float, top: float, width: float, height: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(3, 5, 7, 3, generator=generator, dtype=torch.float64)
    windows = [(left, top, left + width, top + height), (-0.1, -0.1, 0.1, 0.1)]
    # Two of the second image, one of the first, none of the third; not in the images' order.
    cells = torch.tensor([[1, 4, 6], [0, 0, 0], [1, 2, 3]])
    found = window_means(tokens, cells, windows)
    grid = TokenGrid((5, 7), (70, 98))
    for person, (image, row, column) in enumerate(cells.tolist()):
        patch = tokens[image].permute(2, 0, 1)
        expected = descriptors(patch, np.array([[row, column]]), grid, windows)[0, 3:].reshape(2, 3)
        assert torch.allclose(found[person], expected, atol=1e-9)


def test_a_window_beyond_the_grid_is_the_mean_and_not_nothing() -> None:
    tokens = torch.arange(12.0).reshape(1, 3, 4, 1)
    found = window_means(tokens, torch.tensor([[0, 0, 0]]), [(-0.9, -0.9, -0.5, -0.5)])
    assert found.flatten().tolist() == [5.5]
