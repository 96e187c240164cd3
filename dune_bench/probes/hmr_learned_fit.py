"""The human head as a head of the probe: trained on frozen tokens, stored, and asked about images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dune_bench.data.base import Lazy
from dune_bench.data.samples import HumanSample
from dune_bench.engine.terms import LossTerm
from dune_bench.errors import TaskError
from dune_bench.models.anny_head import AnnyHead, AnnyHeadConfig, AnnyOutput
from dune_bench.models.body_models import BodyModel, BodyOutput
from dune_bench.models.human_bodies import PeopleMeshes
from dune_bench.models.human_camera import focal_ratio, raw_of, viewing_frames
from dune_bench.models.human_head import HumanHead, HumanHeadConfig, HumanOutput, MeanPerson, new_head
from dune_bench.models.human_losses import LossWeights, PeopleTruth, human_losses
from dune_bench.models.rotations import nearest_rotation
from dune_bench.probes.base import FeatureSource, Head, ProbeContext
from dune_bench.probes.hmr_layout import (
    Anchor,
    AnnyReleaseLayout,
    BodyLayout,
    BodyNumbers,
    PosingLayout,
    layout_facts,
    new_layout,
    stored_layout,
)
from dune_bench.probes.hmr_learned_data import PeopleBatch, PeopleImages, grid_camera
from dune_bench.probes.hmr_learned_protocol import HmrLearned, HmrTrained
from dune_bench.probes.hmr_people import people_of
from dune_bench.probes.hmr_prediction import PeoplePrediction, nobody
from dune_bench.probes.stream import grid_of, image_ids
from dune_bench.probes.tokens import token_pixels, token_statistics

if TYPE_CHECKING:  # the engine is slow to import, and only a fit needs it
    from dune_bench.engine.step import StepContext

CONFIG, LAYOUT = "human_head", "layout"
"""Where a head's choices say what it looks like, and which number is which parameter of the body."""
ANNY_CONFIG = "anny_head"
"""In place of both: what the head of Multi-HMR's Anny release looks like."""

SURE = 1e-6
"""Scores are kept this far from 0 and 1 in the log-odds that are reported: not all heads do that."""


def fit_human_head(
    features: FeatureSource,
    samples: Lazy[HumanSample],
    model: BodyModel,
    protocol: HmrTrained,
    ctx: ProbeContext,
) -> Head:
    """Trains a fresh head on the people of the samples.  Goes on where `ctx.training` stopped.

    Head tensors: the head's state, and what its layout keeps.  Raises TaskError naming a sample that
    cannot be used, if nobody is to be learned from, or for a loss that is not finite (naming the term and
    the samples).
    """
    from dune_bench.engine.train import train

    training = protocol.training
    ctx.progress.update(0.0, 1.0, "reading people")
    people = _everyone(samples, protocol.min_visible)
    layout = new_layout(model, [person for one in people for person in one.persons], "the training split")
    config = training.shape.of(features.dim, token_pixels(features), grid_of(features).grid, layout)
    seed = int(ctx.rng.integers(2**31))
    mean = mean_person(people, layout, config, features)
    head = new_head(config, mean, torch.Generator().manual_seed(seed))
    if config.standardised:
        for buffer, value in zip(
            (head.token_mean, head.token_std), token_statistics(features, samples, ctx), strict=True
        ):
            buffer.copy_(value)
    seen = layout.thinned(training.learning.vertex_step)
    data = PeopleImages(
        features, samples, seen, config, training.learning, protocol.min_visible, protocol.head
    )
    data.read_ahead()
    posing = seen.on(ctx.device)

    def loss(module: nn.Module, batch: PeopleBatch, context: StepContext) -> Mapping[str, LossTerm]:
        with_2d = context.progress >= training.learning.points2d_after
        return human_terms(module, batch, posing, config, training.loss, protocol.head, with_2d)

    record = train(
        head.train(),
        loss,
        data,
        training.recipe,
        folder=ctx.training,
        seed=seed,
        device=ctx.device,
        progress=ctx.progress,
        identity={CONFIG: config.model_dump(mode="json"), "images": len(data)},
        # A batch without people reaches the detector alone.
        find_unused_parameters=True,
    )
    last = record.lines[-1]
    tensors, facts = layout_facts(layout)
    choices = {
        CONFIG: config.model_dump(mode="json"),
        LAYOUT: facts,
        "parameters": sum(parameter.numel() for parameter in head.parameters()),
        "people": sum(len(one.persons) for one in people),
        "steps": record.steps,
        "loss": {"all": last.loss, **last.terms},
    }
    return Head({**head.cpu().state_dict(), **tensors}, choices)


def human_terms(
    head: nn.Module,
    batch: PeopleBatch,
    layout: BodyLayout,
    config: HumanHeadConfig,
    weights: LossWeights,
    anchor: Anchor,
    with_2d: bool,
) -> dict[str, LossTerm]:
    """The published loss (PROTOCOLS §4.3) of a batch, by the names of `LossWeights`.  Bodies are posed in
    float32 whatever the precision of the head."""
    logits, output = head(batch.tokens, batch.K, batch.cells)
    with torch.autocast(batch.tokens.device.type, enabled=False):
        with torch.no_grad():
            true = _meshes(layout, layout.posed(batch.people, batch.at, anchor).bodies)
        truth = PeopleTruth(
            cells=batch.cells,
            offset=batch.offset,
            rotmat=batch.people.rotmat,
            betas=batch.people.betas,
            head=batch.at,
            meshes=true,
            ignored=batch.ignored,
            heads=batch.heads,
        )
        numbers = numbers_of(output)
        # What is no body poses nothing; the terms on the numbers themselves are not finite then.
        finite = bool((numbers.rotmat.isfinite().all() & numbers.betas.isfinite().all()).item())
        meshes = None
        if finite and len(output):
            meshes = _meshes(layout, layout.posed(numbers, output.translation, anchor).bodies)
        terms = human_losses(logits, output, meshes, truth, batch.K, config, weights, with_2d)
    return {name: LossTerm(term.total, term.count, term.weight) for name, term in terms.items()}


def numbers_of(output: HumanOutput | AnnyOutput) -> BodyNumbers:
    """A head's answer as what its layout poses."""
    if isinstance(output, AnnyOutput):
        return BodyNumbers(output.rotmat, output.phenotype, output.rotmat.new_zeros(len(output), 0))
    return BodyNumbers(output.rotmat, output.betas, output.expression)


def _meshes(layout: BodyLayout, bodies: BodyOutput) -> PeopleMeshes:
    """Joints that move: of anny's bones some never do."""
    return PeopleMeshes(bodies.joints[:, layout.model.root], bodies.joints[:, layout.joints], bodies.vertices)


class _Everyone:
    """The people of one image who count: persons, and heads (n, 3) in the camera frame."""

    def __init__(self, sample: HumanSample, min_visible: float) -> None:
        people = people_of(sample, min_visible)
        chosen = people.counts.nonzero()[0]
        self.sample = sample.id
        self.K, self.size = sample.K, sample.image.size
        self.persons = [people.people[i] for i in chosen]
        self.heads = torch.from_numpy(people.heads[chosen]).float()


def _everyone(samples: Lazy[HumanSample], min_visible: float) -> list[_Everyone]:
    found = [_Everyone(sample, min_visible) for sample in samples]
    if not any(one.persons for one in found):
        raise TaskError("nothing to fit on: no image shows a person who must be found")
    return found


def mean_person(
    people: list[_Everyone], layout: BodyLayout, config: HumanHeadConfig, features: FeatureSource
) -> MeanPerson:
    """The average of the people who count, as the head's numbers."""
    rotmat, betas, expression, raw = [], [], [], []
    for one in people:
        numbers = layout.numbers(one.persons, f"sample {one.sample}")
        turned = numbers.rotmat.clone()
        if config.viewing_frame:
            turned[:, 0] = viewing_frames(one.heads).mT @ turned[:, 0]
        K = torch.from_numpy(grid_camera(one.K, one.size, grid_of(features))).float()
        ratio = focal_ratio(K[None], config.grid, config.patch, config.compat)
        rotmat.append(turned)
        betas.append(numbers.betas)
        expression.append(numbers.expression)
        raw.append(raw_of(one.heads[:, 2], ratio.expand(len(one.heads)), config.compat))
    return MeanPerson(
        rotmat=nearest_rotation(torch.cat(rotmat).mean(0)),
        betas=torch.cat(betas).mean(0),
        dist_raw=float(torch.cat(raw).mean()),
        expression=torch.cat(expression).mean(0),
    )


def stored_human_head(head: Head, model: BodyModel) -> tuple[HumanHead | AnnyHead, PosingLayout]:
    """The head for inference, and its layout.  Raises TaskError if tensors and choices disagree."""
    network: HumanHead | AnnyHead
    layout: PosingLayout
    if ANNY_CONFIG in head.choices:
        layout = AnnyReleaseLayout(model)
        with torch.device("meta"):
            network = AnnyHead(AnnyHeadConfig.model_validate(head.choices[ANNY_CONFIG]))
    else:
        layout = stored_layout(model, head.tensors, head.choices[LAYOUT])
        with torch.device("meta"):
            network = HumanHead(HumanHeadConfig.model_validate(head.choices[CONFIG]))
    network.to_empty(device="cpu")
    state = {name: value for name, value in head.tensors.items() if not name.startswith("layout.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise TaskError(f"the stored human head is damaged: {' '.join(str(error).split())}") from error
    return network.eval().requires_grad_(False), layout


def predict_people(
    features: FeatureSource,
    samples: Lazy[HumanSample],
    head: Head,
    model: BodyModel,
    protocol: HmrLearned,
    ctx: ProbeContext,
) -> Iterator[PeoplePrediction]:
    """People of each image, best first.  An image whose features are not finite, or that shows what is no
    body, is a failed one.  Raises TaskError if the head is of other features."""
    network, layout = stored_human_head(head, model)
    network.to(ctx.device)
    grid = grid_of(features)
    for images, batch in features.batches(image_ids(samples), ctx.chunk_bytes):
        for index, patch in zip(range(images.start, images.stop), batch.patch, strict=True):
            sample = samples[index]
            K = torch.from_numpy(grid_camera(sample.K, sample.image.size, grid)).float()
            # Not around the yield: the caller would compute in this mode, too.
            with torch.inference_mode():
                found = _people(network, layout, patch[None].to(ctx.device), K[None].to(ctx.device), protocol)
            yield found


def _people(
    network: HumanHead | AnnyHead, layout: PosingLayout, tokens: Tensor, K: Tensor, protocol: HmrLearned
) -> PeoplePrediction:
    if not bool(tokens.isfinite().all()):
        return nobody(layout.model, "its features are not finite")
    cells, found = network.find(network.detect(tokens), protocol.threshold)
    order = found.argsort(descending=True, stable=True)
    if not len(order):
        return nobody(layout.model)
    output = network.regress(tokens, K, cells[order])
    depth = output.dist.clamp(protocol.min_depth_m, protocol.max_depth_m)
    at = output.translation / output.dist[:, None] * depth[:, None]
    said = numbers_of(output)
    numbers = BodyNumbers(*(x.cpu() for x in (said.rotmat, said.betas, said.expression)))
    try:
        posed = layout.posed(numbers, at.cpu(), protocol.head)
    except TaskError as error:
        return nobody(layout.model, str(error))
    T = torch.eye(4, dtype=torch.float64).repeat(len(order), 1, 1)
    T[:, :3, :3], T[:, :3, 3] = posed.R_cam_body, posed.t_cam_body
    return PeoplePrediction(
        parameters={name: value.double() for name, value in posed.parameters.items()},
        T_cam_body=T.numpy(),
        scores=found[order].logit(SURE).double().cpu().numpy(),
        bodies=posed.bodies,
        pelvis=posed.bodies.joints[:, layout.model.root].double().numpy(),
    )
