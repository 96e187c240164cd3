"""Heads of a two-view decoder: points, descriptors and their confidences from one view's tokens.

Parameter names of the DPT form are those of the released files.  Source: mast3r
`mast3r/catmlp_dpt_head.py`, dust3r `heads/{postprocess,linear_head}.py` as restated in PROTOCOLS §3.1
and §12.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dune_bench.models.dpt import DptHead
from dune_bench.models.rope_blocks import Mlp
from dune_bench.models.two_view_output import ViewOutput

POINT_CHANNELS = 4
"""x, y, z and the confidence."""


class ViewHead(nn.Module):
    """What both forms share: the local features, and what the channels mean.

    widths: channels of the four stages.  cells: predictions along a token's side.  hidden: units of the
    local-feature MLP, which reads the first and the last stage.  descriptor_floor: see `view_output`.
    """

    descriptor_floor = 0

    def __init__(self, widths: Sequence[int], cells: int, descriptor_dim: int, hidden: int) -> None:
        super().__init__()
        self.cells = cells
        self.head_local_features = Mlp(widths[0] + widths[-1], hidden, (descriptor_dim + 1) * cells**2)

    def forward(
        self, stages: Sequence[Tensor], grid: tuple[int, int], base: Tensor | None = None
    ) -> ViewOutput:
        """Stages: four times (B, h·w, Cⱼ) in row-major order, grid: (h, w); maps of h·cells × w·cells.
        base: (B, 4 + D + 1, h·cells, w·cells), what is added to points and local features before the
        activations."""
        local = self.head_local_features(torch.cat([stages[0], stages[-1]], -1))
        local = F.pixel_shuffle(token_map(local, grid), self.cells)
        points = self._points(stages, grid)
        if base is not None:
            points, local = points + base[:, :POINT_CHANNELS], local + base[:, POINT_CHANNELS:]
        return view_output(points, local, self.descriptor_floor)

    @abstractmethod
    def _points(self, stages: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """(B, 4, h·cells, w·cells), before the activations."""


class DptViewHead(ViewHead):
    """Points by a DPT head from all four stages.

    stage_widths, features, last: see `DptHead`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        cells: int,
        descriptor_dim: int,
        hidden: int,
        *,
        stage_widths: Sequence[int],
        features: int,
        last: int,
    ) -> None:
        super().__init__(widths, cells, descriptor_dim, hidden)
        self.dpt = DptHead(
            widths, POINT_CHANNELS, cells, stage_widths=stage_widths, features=features, last=last
        )

    def _points(self, stages: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        return self.dpt([token_map(stage, grid) for stage in stages])  # type: ignore[no-any-return]


class LinearViewHead(ViewHead):
    """Points by one linear layer from the last stage: cheap, for small decoders."""

    def __init__(self, widths: Sequence[int], cells: int, descriptor_dim: int, hidden: int) -> None:
        super().__init__(widths, cells, descriptor_dim, hidden)
        self.proj = nn.Linear(widths[-1], POINT_CHANNELS * cells**2)

    def _points(self, stages: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        return F.pixel_shuffle(token_map(self.proj(stages[-1]), grid), self.cells)


def token_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h·w, C) to (B, C, h, w)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def view_output(points: Tensor, local: Tensor, descriptor_floor: int = 0) -> ViewOutput:
    """The activations, in float32: points (B, 4, H, W) and local features (B, D + 1, H, W) as linear
    layers left them.

    Points: direction kept, distance d becomes exp(d) - 1.  Confidence: 1 + exp(c).  Descriptors: unit
    length.  Their confidence: descriptor_floor + exp(c).
    """
    points, local = (x.float().permute(0, 2, 3, 1) for x in (points, local))
    xyz, confidence = points[..., :3], points[..., 3]
    distance = xyz.norm(dim=-1, keepdim=True)
    return ViewOutput(
        points=xyz / distance.clamp_min(1e-8) * torch.expm1(distance),
        confidence=1 + confidence.exp(),
        descriptors=F.normalize(local[..., :-1], dim=-1),
        descriptor_confidence=descriptor_floor + local[..., -1].exp(),
    )
