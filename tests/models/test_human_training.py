"""Head, body and losses together: what they are for is learnable."""

from __future__ import annotations

import torch
from torch import Tensor

from dune_bench.models.body_models import BodyOutput
from dune_bench.models.human_bodies import PeopleMeshes, placed
from dune_bench.models.human_camera import project
from dune_bench.models.human_head import HumanHead, HumanHeadConfig, MeanPerson, new_head
from dune_bench.models.human_losses import LossWeights, PeopleTruth, head_cells, human_losses
from dune_bench.models.rotations import rotvec_to_matrix
from tests.models.toy_body import StickBody

SMALL = {"width": 32, "depth": 1, "heads": 2, "head_dim": 16, "mlp": 32}
K = torch.tensor([[[60.0, 0.0, 42.0], [0.0, 60.0, 42.0], [0.0, 0.0, 1.0]]]).repeat(4, 1, 1)
BODY = StickBody(torch.float32)


def stick_people(rotmat: Tensor, height: Tensor, head: Tensor) -> BodyOutput:
    """Stick figures in the camera frame whose heads are at `head` (P, 3)."""
    bodies = BODY({"height": 1.7 + height[:, 0], "pose": rotmat, "place": torch.zeros_like(head)})
    return placed(bodies, bodies.joints[:, BODY.head], head)


def scene(config: HumanHeadConfig) -> tuple[Tensor, PeopleTruth]:
    """Four images with one to three people, and random tokens: what can only be learned by heart."""
    generator = torch.Generator().manual_seed(2)
    cells, offsets, heads = [], [], []
    for image, count in enumerate((1, 2, 3, 2)):
        pixels = 84 * torch.rand(count, 2, generator=generator)
        depth = 2 + 6 * torch.rand(count, generator=generator)
        found = head_cells(pixels, depth, config)
        cells.append(torch.cat([torch.full((len(found.kept), 1), image), found.cells], 1))
        offsets.append(found.offset)
        rays = torch.cat([(pixels - 42) / 60, torch.ones(count, 1)], 1)
        heads.append((rays * depth[:, None])[found.kept])
    head = torch.cat(heads)
    rotmat = rotvec_to_matrix(0.6 * torch.randn(len(head), 3, 3, generator=generator))
    betas = 0.2 * torch.randn(len(head), 1, generator=generator)
    truth = PeopleTruth(
        cells=torch.cat(cells),
        offset=torch.cat(offsets),
        rotmat=rotmat,
        betas=betas,
        head=head,
        meshes=PeopleMeshes.of(BODY, stick_people(rotmat, betas, head)),
        ignored=torch.zeros(4, *config.grid, dtype=torch.bool),
    )
    return torch.randn(4, config.encoder_dim, *config.grid, generator=generator), truth


def fitted(config: HumanHeadConfig, tokens: Tensor, truth: PeopleTruth, steps: int) -> HumanHead:
    mean = MeanPerson(torch.eye(3).expand(3, 3, 3), torch.zeros(1), 0.0, torch.zeros(0))
    head = new_head(config, mean, torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    weights = LossWeights(joints3d=10, vertices3d=10, joints2d=0.1, vertices2d=0.1)
    for step in range(steps):
        logits, output = head(tokens, K, truth.cells)
        bodies = stick_people(output.rotmat, output.betas, output.translation)
        meshes = PeopleMeshes.of(BODY, bodies)
        terms = human_losses(logits, output, meshes, truth, K, config, weights, with_2d=step > steps // 2)
        loss = sum(t.weight * t.total / t.count.clamp_min(1) for t in terms.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head


def test_people_can_be_learned() -> None:
    config = HumanHeadConfig(
        encoder_dim=16, patch=14, grid=(6, 6), rotations=3, betas=1, expressions=0, **SMALL
    )
    tokens, truth = scene(config)
    head = fitted(config, tokens, truth, steps=100)
    with torch.no_grad():
        cells, _ = head.find(head.detect(tokens), 0.3)
        output = head.regress(tokens, K, truth.cells)
    assert sorted(cells.tolist()) == sorted(truth.cells.tolist())
    assert float((output.loc - project(truth.head, K[0])).abs().max()) < 1.5
    assert float((output.rotmat - truth.rotmat).abs().mean()) < 0.1
    # Of the farthest person it differs from processor to processor.
    assert float((output.dist / truth.head[:, 2] - 1).abs().median()) < 0.1
