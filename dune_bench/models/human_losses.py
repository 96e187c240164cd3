"""What the human head is trained on, with Multi-HMR's published weights (PROTOCOLS §4.3).

Every term is a sum with its count, never a mean: a mean over one process's people cannot be averaged over
processes.  L1 terms average over all numbers of all people, but for the rotations, which are summed over
a person's matrices (as published; how the others are averaged is not, the mean is our reading).  Without
`compat` the depth of the head is supervised, which is what places the body; the published code takes the
pelvis's (PROTOCOLS §9 row 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dune_bench.models.human_bodies import PeopleMeshes
from dune_bench.models.human_camera import focal_ratio, project, raw_of
from dune_bench.models.human_head import HumanHeadConfig, HumanOutput, scores

NEAREST_M = 0.01
"""Points of the prediction at less depth have no usable projection and are left out of the 2-D terms."""


class LossWeights(BaseModel):
    """Factors of the terms; 0 leaves a term out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detection: float = Field(default=10.0, ge=0)
    offset: float = Field(default=1.0, ge=0)
    rotmat: float = Field(default=0.1, ge=0)
    betas: float = Field(default=1.0, ge=0)
    distance: float = Field(default=1.0, ge=0)
    translation: float = Field(default=1.0, ge=0)
    joints3d: float = Field(default=100.0, ge=0)
    vertices3d: float = Field(default=100.0, ge=0)
    joints2d: float = Field(default=1.0, ge=0)
    vertices2d: float = Field(default=1.0, ge=0)


@dataclass(frozen=True)
class WeightedSum:
    """One term of the loss on a batch: its value is weight · total / count (scalars).

    count: numbers, people or heads that `total` sums over.  Both are 0 where there is nothing to compare;
    only `detection` has a total without a count, in a batch without heads: it needs another process's.
    """

    total: Tensor
    count: Tensor
    weight: float


@dataclass(frozen=True)
class PeopleTruth:
    """The P people of a batch to learn from, at most one per token.

    cells: int64 (P, 3), (image, row, column) of the token that the person is regressed from.  offset:
    (P, 2) of the head from its centre, (dx, dy) in tokens.  rotmat: (P, rotations, 3, 3).  betas: (P, betas).
    head: (P, 3) camera frame, metres.  meshes: in the camera frame; its joints and vertices are those of
    the prediction's.  ignored: bool (B, rows, columns), tokens in which a head is neither right nor
    wrong; the heads' own tokens are not among them.  heads: int64 (P, 3), the tokens that hold the heads;
    None: these are `cells`.
    """

    cells: Tensor
    offset: Tensor
    rotmat: Tensor
    betas: Tensor
    head: Tensor
    meshes: PeopleMeshes
    ignored: Tensor
    heads: Tensor | None = None


class HeadCells(NamedTuple):
    """Heads of one image that have a token of their own.

    kept: int64 (k,) which of the heads.  cells: int64 (k, 2) row and column.  offset: (k, 2) from the
    token's centre, (dx, dy) in tokens, in [−½, ½).
    """

    kept: Tensor
    cells: Tensor
    offset: Tensor


def head_cells(pixels: Tensor, depth: Tensor, config: HumanHeadConfig) -> HeadCells:
    """Tokens of heads at network pixels (n, 2), (x, y), and depth (n,).

    Heads outside the image, behind the camera or not finite have none.  Of several heads in one token
    the nearest keeps it; compat: the first in the list.
    """
    at = pixels / config.patch
    limits = at.new_tensor([config.grid[1], config.grid[0]])
    inside = ((at >= 0) & (at < limits)).all(-1) & (depth > 0) & at.isfinite().all(-1)
    order = torch.arange(len(at)) if config.compat else depth.argsort(stable=True).cpu()
    taken: set[tuple[int, int]] = set()
    kept = []
    for i in order.tolist():
        if not inside[i]:
            continue
        cell = (int(at[i, 1]), int(at[i, 0]))
        if cell not in taken:
            taken.add(cell)
            kept.append(i)
    chosen = torch.tensor(sorted(kept), dtype=torch.int64, device=at.device)
    corner = at[chosen].floor()
    return HeadCells(chosen, corner.flip(-1).long(), at[chosen] - corner - 0.5)


def human_losses(
    logits: Tensor,
    output: HumanOutput,
    meshes: PeopleMeshes | None,
    truth: PeopleTruth,
    K: Tensor,
    config: HumanHeadConfig,
    weights: LossWeights,
    with_2d: bool = True,
) -> dict[str, WeightedSum]:
    """The terms by the names of `LossWeights`, whose weight is above 0: the same ones at every step.

    logits: (B, rows, columns), `detect`'s.  output: at `truth.cells`.  meshes: the predicted bodies in
    the camera frame; without them, or without vertices, their terms count nothing.  K: (B, 3, 3) in pixels
    of the network's image.  with_2d: False while the 2-D terms wait; the published recipe begins them with
    its eleventh epoch.
    """
    wanted = {name: weight for name in LossWeights.model_fields if (weight := getattr(weights, name)) > 0}
    terms = {"detection": _detection(logits, truth, config.compat), **_of_people(output, truth, K, config)}
    if meshes is not None:
        skipped = set() if with_2d else {"joints2d", "vertices2d"}
        terms |= dict(_of_meshes(meshes, truth, K, config, wanted.keys() - skipped))
    nothing = (logits.new_zeros(()), torch.zeros((), dtype=torch.int64, device=logits.device))
    return {name: WeightedSum(*terms.get(name, nothing), weight) for name, weight in wanted.items()}


Sum = tuple[Tensor, Tensor]


def _detection(logits: Tensor, truth: PeopleTruth, compat: bool) -> Sum:
    """CornerNet's focal loss on a map that is 1 at the heads' tokens and 0 elsewhere, per head.

    compat takes the clamped scores: a token that is confidently wrong teaches nothing there.
    """
    heads = torch.zeros_like(logits, dtype=torch.bool)
    heads[(truth.cells if truth.heads is None else truth.heads).unbind(-1)] = True
    score = scores(logits) if compat else logits.sigmoid()
    log_yes = score.log() if compat else F.logsigmoid(logits)
    log_no = (1 - score).log() if compat else F.logsigmoid(-logits)
    loss = -torch.where(heads, (1 - score) ** 2 * log_yes, score**2 * log_no)
    return loss[~truth.ignored].sum(), heads.sum()


def _of_people(output: HumanOutput, truth: PeopleTruth, K: Tensor, config: HumanHeadConfig) -> dict[str, Sum]:
    image = truth.cells[:, 0]
    ratio = focal_ratio(K, config.grid, config.patch, config.compat)[image]
    supervised = truth.meshes.pelvis if config.compat else truth.head
    rotation, _ = _l1(output.rotmat, truth.rotmat)
    return {
        "offset": _l1(output.offset, truth.offset),
        "rotmat": (rotation, torch.tensor(len(truth.cells), device=K.device)),
        "betas": _l1(output.betas, truth.betas),
        "distance": _l1(output.dist_raw, raw_of(supervised[:, 2], ratio, config.compat)),
        "translation": _l1(output.translation, truth.head),
    }


def _of_meshes(
    meshes: PeopleMeshes, truth: PeopleTruth, K: Tensor, config: HumanHeadConfig, wanted: set[str]
) -> Iterator[tuple[str, Sum]]:
    """Terms of those points that both sides have."""
    K = K[truth.cells[:, 0]][:, None]
    for name in (field.name for field in fields(PeopleMeshes) if field.name != "pelvis"):
        own, true = getattr(meshes, name), getattr(truth.meshes, name)
        if own is None or true is None:
            continue
        if f"{name}3d" in wanted:
            centred = own - meshes.pelvis[:, None], true - truth.meshes.pelvis[:, None]
            yield f"{name}3d", _l1(*centred)
        if f"{name}2d" in wanted:
            yield f"{name}2d", _projected(own, true, K, config)


def _projected(own: Tensor, true: Tensor, K: Tensor, config: HumanHeadConfig) -> Sum:
    """L1 in pixels of points (P, n, 3) whose truth is in the image."""
    usable = (own[..., 2] > NEAREST_M) & (true[..., 2] > 0)
    K = K.expand(*true.shape[:2], 3, 3)[usable]
    own_pixels, true_pixels = project(own[usable], K), project(true[usable], K)
    limits = true.new_tensor([config.grid[1], config.grid[0]]) * config.patch
    inside = ((true_pixels >= 0) & (true_pixels < limits)).all(-1)
    return _l1(own_pixels[inside], true_pixels[inside])


def _l1(own: Tensor, true: Tensor) -> Sum:
    return (own - true).abs().sum(), torch.tensor(own.numel(), device=own.device)
