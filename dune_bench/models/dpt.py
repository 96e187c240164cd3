"""The dense prediction head (DPT): maps from four stages of a transformer's tokens.

Parameter names are those of the released files.  Source: croco `models/dpt_block.py` and dust3r
`heads/dpt_head.py` as restated in PROTOCOLS §3.1, §3.2 and §12; Ranftl et al., "Vision Transformers for
Dense Prediction", 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = 4


class ResidualUnit(nn.Module):
    """x + conv2(relu(conv1(relu(x)))): the skip is not rectified."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))  # type: ignore[no-any-return]


class Fusion(nn.Module):
    """Joins the coarser path with one stage and doubles the resolution.

    The coarsest stage stands alone: its unit for the incoming stage exists in released files, but is
    never used, and is not built (`joins` False).
    """

    def __init__(self, width: int, joins: bool = True) -> None:
        super().__init__()
        if joins:
            self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, path: Tensor, stage: Tensor | None = None) -> Tensor:
        """path, stage: (B, C, h, w) -> (B, C, 2h, 2w)."""
        if stage is not None:
            path = path + self.resConfUnit1(stage)
        height, width = path.shape[-2:]
        return self.out_conv(_resize(self.resConfUnit2(path), 2 * height, 2 * width))  # type: ignore[no-any-return]


class Scratch(nn.Module):
    """Stages to one width, and their fusions; the grouping follows the released names."""

    def __init__(self, stage_widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.layer_rn = nn.ModuleList(nn.Conv2d(n, width, 3, padding=1, bias=False) for n in stage_widths)
        self.refinenet1 = Fusion(width)
        self.refinenet2 = Fusion(width)
        self.refinenet3 = Fusion(width)
        self.refinenet4 = Fusion(width, joins=False)


class DptHead(nn.Module):
    """Four token maps (B, Cⱼ, h, w) of one grid to a map (B, outputs, h·cells, w·cells).

    token_widths: Cⱼ.  stage_widths: channels of the stages at 4, 2, 1 and ½ times the grid.
    features: channels of the fusions.  last: channels of the output convolutions.
    """

    def __init__(
        self,
        token_widths: Sequence[int],
        outputs: int,
        cells: int,
        *,
        stage_widths: Sequence[int],
        features: int,
        last: int,
    ) -> None:
        super().__init__()
        self.cells = cells
        finest, fine, same, coarse = zip(token_widths, stage_widths, strict=True)
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(*finest, 1), nn.ConvTranspose2d(finest[1], finest[1], 4, 4)),
                nn.Sequential(nn.Conv2d(*fine, 1), nn.ConvTranspose2d(fine[1], fine[1], 2, 2)),
                nn.Sequential(nn.Conv2d(*same, 1)),
                nn.Sequential(nn.Conv2d(*coarse, 1), nn.Conv2d(coarse[1], coarse[1], 3, stride=2, padding=1)),
            ]
        )
        self.scratch = Scratch(stage_widths, features)
        # The numbers are those of the released files, where the resize and the ReLU count too.
        self.head = nn.ModuleDict(
            {
                "0": nn.Conv2d(features, last, 3, padding=1),
                "2": nn.Conv2d(last, last, 3, padding=1),
                "4": nn.Conv2d(last, outputs, 1),
            }
        )

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        stages = [self.scratch.layer_rn[i](self.act_postprocess[i](tokens[i])) for i in range(STAGES)]
        path = self.scratch.refinenet4(stages[3])
        # Stride 2 rounds an odd grid up: what stands over at bottom and right is cut off.
        path = path[..., : stages[2].shape[-2], : stages[2].shape[-1]]
        path = self.scratch.refinenet3(path, stages[2])
        path = self.scratch.refinenet2(path, stages[1])
        path = self.scratch.refinenet1(path, stages[0])
        # The original scales by 2 · patch / 16 the 8-fold map; both corners aligned, the size says it all.
        height, width = (self.cells * n for n in tokens[0].shape[-2:])
        path = _resize(self.head["0"](path), height, width)
        return self.head["4"](F.relu(self.head["2"](path)))  # type: ignore[no-any-return]


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)
