"""The human head of Multi-HMR's Anny release: another network than that of the SMPL-X releases.

It sees a frozen encoder's patch map (B, C, rows, columns), row-major; a person is a *cell*: (image, row,
column) of the token that holds the head.  No camera enters the network: what it says of the distance is
the image's scale at the head, in pixels per metre.  For inference; `anny_head_files` reads the released file.
Source: Multi-HMR Anny release, tensor names and formulas as observed (PROTOCOLS §4.5; the width of 512
stated there is the default of the constructor, the file's is probably 1024: here tensor shapes decide).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dune_bench.models.anny_release_rig import BONES, KEPT
from dune_bench.models.body_anny import PHENOTYPES
from dune_bench.models.human_attention import Layer
from dune_bench.models.human_camera import back_project
from dune_bench.models.human_head import check_people, local_maxima, require_tokens
from dune_bench.models.human_slots import in_slots, slots_of
from dune_bench.models.rotations import rotation_from_6d

POSE_NUMBERS = 6 * BONES
PHENOTYPE_NUMBERS = 11
"""Those of PHENOTYPES, then cupsize, firmness, african, asian, caucasian, which the release's body does not
get."""
LOWEST_SCALE = 1e-5
"""Pixels per metre at the head: a person is never further away than the focal length over this."""
WAVELENGTHS = 10000.0


class AnnyHeadConfig(BaseModel):
    """Shape of a head; all of it is in the shapes of the released tensors but `heads`.

    encoder_dim: channels of the tokens.  patch: pixels of a token's side at network size.  grid: (rows,
    columns) of tokens, a square.  width: of the decoder.  mlp: hidden units of its layers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder_dim: int = Field(ge=1)
    patch: int = Field(default=14, ge=1)
    grid: tuple[int, int]
    width: int = Field(ge=4, multiple_of=4)
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    mlp: int = Field(ge=1)

    @model_validator(mode="after")
    def _square(self) -> Self:
        if self.grid[0] != self.grid[1] or self.grid[0] < 1:
            raise ValueError("grid: the release sees square images only")
        return self


@dataclass(frozen=True)
class AnnyOutput:
    """P people in the order of `cells`.

    cells: int64 (P, 3).  offset: (P, 2) of the head from the token's centre, (dx, dy) in tokens.
    loc: (P, 2) the head in network pixels (x, y).  rotmat: (P, 163, 3, 3) of the bones of the release's
    rig: the root's from the body's axes to the camera's, the others in their own rest axes; identity where
    `kept` is 0.  phenotypes: (P, 11) within [0, 1].  dist_raw: (P,) log of pixels per metre; dist: (P,) depth
    of the head along z, metres.  translation: (P, 3) the head bone's head in the camera frame, metres.
    """

    cells: Tensor
    offset: Tensor
    loc: Tensor
    rotmat: Tensor
    phenotypes: Tensor
    dist_raw: Tensor
    dist: Tensor
    translation: Tensor

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def phenotype(self) -> Tensor:
        """(P, 6) of PHENOTYPES: what the body gets."""
        return self.phenotypes[:, : len(PHENOTYPES)]


class AnnyHead(nn.Module):
    """Detection and regression."""

    mean_pose: Tensor
    kept: Tensor
    position: Tensor
    widest: Tensor

    def __init__(self, config: AnnyHeadConfig) -> None:
        """Weights are torch's defaults; buffers follow the release's formulas, and files may bring others."""
        super().__init__()
        self.config = config
        dim, width = config.encoder_dim, config.width
        self.detection = _mlp(dim, dim, 1)
        self.view = _mlp(dim, dim, 1)
        self.embed = nn.Linear(dim, width)
        self.layers = nn.ModuleList(
            Layer(width, width, config.heads, config.head_dim, config.mlp, dropout=0.0)
            for _ in range(config.depth)
        )
        self.offset = _mlp(width, width, 2)
        self.pose = _mlp(width + POSE_NUMBERS, width, POSE_NUMBERS)
        self.shape = _mlp(width, width, PHENOTYPE_NUMBERS)
        self.distance = _mlp(width, width, 1)
        for name, value in formulas(config).items():
            self.register_buffer(name, value)

    def field_of_view(self, summary: Tensor) -> Tensor:
        """(B,) radians, the same horizontally and vertically, of class tokens (B, C).

        Beside the rest: `regress` is given the camera.
        """
        logit: Tensor = self.view(summary.to(self.position.dtype))
        return self.widest * logit.sigmoid()[:, 0]

    def detect(self, tokens: Tensor) -> Tensor:
        """(B, rows, columns) log-odds that a token holds a head.  Raises TaskError for tokens of another
        width or grid."""
        logits: Tensor = self.detection(self._rows_first(tokens))
        return logits.squeeze(-1)

    def find(self, logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Cells (P, 3) and scores (P,) of the maxima of 3 × 3 tokens whose score reaches the threshold.

        In reading order.  Scores decide, not logits: neighbours with equal scores all stay.
        """
        score = logits.sigmoid()
        found = local_maxima(score) & (score >= threshold)
        return found.nonzero(), score[found]

    def regress(self, tokens: Tensor, K: Tensor, cells: Tensor) -> AnnyOutput:
        """The people at `cells`, int64 (P, 3), in any order; those of one image see each other.

        K: (B, 3, 3) in pixels of the network's image.  Raises TaskError for tokens of another width or
        grid, cells outside it, or K of another batch.
        """
        config = self.config
        tokens = self._rows_first(tokens)
        check_people(tokens, K, cells)
        K = K.to(tokens.dtype)
        image, row, column = cells.unbind(-1)
        features = self._people(tokens, cells)
        mean = self.mean_pose.expand(len(cells), -1)
        pose = self.pose(torch.cat([features, mean], -1)) + mean
        offset = self.offset(features)
        raw = self.distance(features)[:, 0]
        loc = (torch.stack([column, row], -1) + 0.5 + offset) * config.patch
        depth = K[image, 0, 0] / raw.exp().clamp_min(LOWEST_SCALE)
        return AnnyOutput(
            cells=cells,
            offset=offset,
            loc=loc,
            rotmat=self._rotations(pose),
            phenotypes=self.shape(features).sigmoid(),
            dist_raw=raw,
            dist=depth,
            translation=back_project(loc, K[image]) * depth[:, None],
        )

    def _people(self, tokens: Tensor, cells: Tensor) -> Tensor:
        """(P, width) features of the people.  tokens: (B, rows, columns, C)."""
        config = self.config
        image, row, column = cells.unbind(-1)
        images, group, slot = slots_of(image, len(tokens))
        # The same tokens are asked and looked at, the people's own among them.
        seen = self.embed(tokens[images]) + self.position.view(*config.grid, -1)
        queries, real = in_slots(seen[group, row, column], len(images), group, slot)
        context = seen.flatten(1, 2)
        for layer in self.layers:
            queries = layer(queries, real, context)
        return queries[group, slot]

    def _rotations(self, pose: Tensor) -> Tensor:
        """(P, 163, 3, 3) of (P, 978) numbers."""
        rotmat = rotation_from_6d(sixes(pose))
        straight = torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)
        return torch.where(self.kept[0, :, None, None] != 0, rotmat, straight)

    def _rows_first(self, tokens: Tensor) -> Tensor:
        """(B, rows, columns, C) in the head's dtype."""
        config = self.config
        require_tokens(tokens, config.encoder_dim, config.grid)
        return tokens.permute(0, 2, 3, 1).to(self.position.dtype)


def camera_of(fov: Tensor, side: int) -> Tensor:
    """K (B, 3, 3) in pixels of a square image of `side` pixels, its centre the principal point, for fields
    of view (B,), radians."""
    K = torch.zeros(len(fov), 3, 3, dtype=fov.dtype, device=fov.device)
    K[:, 0, 0] = K[:, 1, 1] = side / 2 / (fov / 2).tan()
    K[:, :2, 2], K[:, 2, 2] = side / 2, 1.0
    return K


def sixes(numbers: Tensor) -> Tensor:
    """(..., 6 J) -> (..., J, 6) as `rotation_from_6d` takes them: the release stores the 3 × 2 matrix of a
    rotation's first two columns row by row, so that they take turns."""
    bones = numbers.shape[-1] // 6
    return numbers.reshape(*numbers.shape[:-1], bones, 3, 2).transpose(-1, -2).flatten(-2)


def sine_table(grid: tuple[int, int], width: int) -> Tensor:
    """float32 (rows · columns, width), row-major: sines, then cosines of the column q · ω_k, then those of
    the row, a quarter of the channels each; ω_k = 10000^(−k / (width / 4))."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in grid)
    quarter = width // 4
    omega = WAVELENGTHS ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    phases = [place.flatten()[:, None] * omega for place in (column, row)]
    return torch.cat([wave for phase in phases for wave in (phase.sin(), phase.cos())], -1).float()


def formulas(config: AnnyHeadConfig) -> dict[str, Tensor]:
    """What the head's buffers are if a file says nothing else.

    position: (N, width).  mean_pose: (1, 978), what the pose is added to: a body upright and facing the
    camera, all other bones at rest.  kept: (1, 163), 1 for bones that turn.  widest: (1,) radians.
    """
    pose = torch.tensor([1.0, 0, 0, 1, 0, 0]).repeat(BONES, 1)
    pose[0] = torch.tensor([1.0, 0, 0, 0, 0, 1])
    kept = torch.zeros(1, BONES)
    kept[0, list(KEPT)] = 1.0
    position = sine_table(config.grid, config.width)
    return {
        "position": position,
        "mean_pose": pose.reshape(1, -1),
        "kept": kept,
        "widest": torch.tensor([math.pi]),
    }


def _mlp(dim: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out))
