"""What the heads' channels mean, against loops and hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dune_bench.models.dpt import DptHead
from dune_bench.models.two_view_heads import LinearViewHead, view_output

GRID = (2, 3)


def stages(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn((1, 6, channels), generator=generator) for channels in (5, 8, 8, 8)]


@torch.no_grad()
def test_each_cell_is_read_from_its_tokens_channel() -> None:
    cells, dim = 3, 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = LinearViewHead([5, 8, 8, 8], cells, dim, hidden=7)
    inputs = stages()
    output = head(inputs, GRID)
    points = head.proj(inputs[3])[0]
    local = head.head_local_features(torch.cat([inputs[0], inputs[3]], -1))[0]
    for y in range(GRID[0] * cells):
        for x in range(GRID[1] * cells):
            token = (y // cells) * GRID[1] + x // cells
            cell = (y % cells) * cells + x % cells
            xyz, confidence = [points[token, c * cells**2 + cell] for c in range(3)], points[token, 27 + cell]
            distance = math.hypot(*map(float, xyz))
            expected = torch.stack(xyz) / distance * math.expm1(distance)
            torch.testing.assert_close(output.points[0, y, x], expected)
            assert float(output.confidence[0, y, x]) == pytest.approx(1 + math.exp(confidence), rel=1e-5)
            descriptor = torch.stack([local[token, c * cells**2 + cell] for c in range(dim)])
            torch.testing.assert_close(output.descriptors[0, y, x], descriptor / descriptor.norm())
            weight = math.exp(local[token, dim * cells**2 + cell])
            assert float(output.descriptor_confidence[0, y, x]) == pytest.approx(weight, rel=1e-5)


def test_activations_by_hand() -> None:
    points = torch.tensor([0.0, 3.0, 4.0, 0.0]).reshape(1, 4, 1, 1)
    output = view_output(points, torch.tensor([3.0, -4.0, 1.0]).reshape(1, 3, 1, 1))
    scale = (math.exp(5) - 1) / 5
    torch.testing.assert_close(output.points.flatten(), torch.tensor([0.0, 3 * scale, 4 * scale]))
    assert float(output.confidence) == 2.0
    torch.testing.assert_close(output.descriptors.flatten(), torch.tensor([0.6, -0.8]))
    assert float(output.descriptor_confidence) == pytest.approx(math.e)
    raised = view_output(points, torch.zeros(1, 3, 1, 1), descriptor_floor=1)
    assert float(raised.descriptor_confidence) == 2.0


def test_point_at_the_camera_is_no_nan_and_neither_is_its_gradient() -> None:
    points = torch.zeros((1, 4, 1, 1), requires_grad=True)
    local = torch.zeros((1, 3, 1, 1), requires_grad=True)
    output = view_output(points, local)
    assert not output.points.any()
    (output.points.sum() + output.descriptors.sum()).backward()  # type: ignore[no-untyped-call]
    for gradient in (points.grad, local.grad):
        assert gradient is not None
        assert bool(torch.isfinite(gradient).all())


def test_small_distances_keep_their_digits() -> None:
    points = torch.tensor([1e-6, 0.0, 0.0, 0.0]).reshape(1, 4, 1, 1)
    assert float(view_output(points, torch.ones(1, 3, 1, 1)).points[..., 0]) == pytest.approx(1e-6, rel=1e-4)


@pytest.mark.parametrize("grid", [(1, 1), (4, 6), (5, 7), (3, 8)])
@pytest.mark.parametrize("cells", [1, 4, 14, 16])
def test_dense_head_covers_odd_grids(grid: tuple[int, int], cells: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = DptHead([5, 6, 6, 6], 4, cells, stage_widths=(4, 4, 4, 4), features=4, last=4)
    maps = [torch.ones((1, channels, *grid)) for channels in (5, 6, 6, 6)]
    output = head(maps)
    assert output.shape == (1, 4, grid[0] * cells, grid[1] * cells)
    assert bool(torch.isfinite(output).all())
