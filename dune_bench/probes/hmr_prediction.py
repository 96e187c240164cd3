"""Predicted people: posed bodies in the camera frame, and how they compare with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.samples import HumanSample
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import project
from dune_bench.metrics.human_errors import Body, body_errors
from dune_bench.metrics.human_matching import match_people
from dune_bench.metrics.human_statistics import failed_image, image_statistics
from dune_bench.models.body_models import BodyModel, BodyOutput
from dune_bench.probes.hmr_bodies import BodyRows, PosedRows, checked_bodies
from dune_bench.probes.hmr_people import Floats, People, head_points
from dune_bench.probes.hmr_protocol import HmrConstants

COMPAT = "multihmr."
"""Prefix of the statistics under the published matcher."""


@dataclass(frozen=True)
class PeoplePrediction:
    """The people found in one image, best first.

    parameters: of the body model, batch n.  T_cam_body: (n, 4, 4).  scores: (n,) log-odds of a head.
    bodies: posed, camera frame, metres, float32.  pelvis: (n, 3).  failed: why there is no prediction.
    """

    parameters: dict[str, Tensor]
    T_cam_body: Floats
    scores: Floats
    bodies: BodyOutput
    pelvis: Floats
    failed: str = ""

    def __len__(self) -> int:
        return len(self.scores)


def place(bodies: BodyRows, posed: PosedRows, scores: Floats) -> PeoplePrediction:
    """Puts each body's head where its ray and depth say.  Raises TaskError for parameters that are no
    body."""
    model = bodies.model
    parameters = {name: value.float() for name, value in posed.parameters.items()}
    with torch.no_grad():
        output = model(parameters)
    heads = head_points(output.keypoints.double().numpy(), model.keypoint_names)
    T = np.tile(np.eye(4), (len(scores), 1, 1))
    T[:, :3, :3] = posed.R_cam_body
    T[:, :3, 3] = posed.heads - np.einsum("nij,nj->ni", posed.R_cam_body, heads)
    moved = output.moved(torch.from_numpy(T).float())
    pelvis = moved.joints[:, model.root].double().numpy()
    return PeoplePrediction(posed.parameters, T, scores, moved, pelvis)


def nobody(model: BodyModel, failed: str = "") -> PeoplePrediction:
    """An image in which nobody was found, or that failed."""
    parameters = {name: value[:0] for name, value in model.neutral(1).items()}
    joints, points = len(model.joint_names), len(model.keypoint_names)
    empty = BodyOutput(*(torch.zeros(0, n, 3) for n in (model.vertex_count, joints, points)))
    zero = np.zeros((0, 3))
    return PeoplePrediction(parameters, np.zeros((0, 4, 4)), np.zeros(0), empty, zero, failed)


def image_stats(
    model: BodyModel,
    prediction: PeoplePrediction,
    sample: HumanSample,
    people: People,
    protocol: HmrConstants,
) -> dict[str, NDArray[Any]]:
    """Statistics of `image_statistics` under the strict matching and, with COMPAT before each name, under
    the published one among the people who count; and `failed`."""
    penalties, truths = protocol.penalties, np.flatnonzero(people.counts)
    if prediction.failed:
        strict = compat = failed_image(len(truths), penalties)
    else:
        points, _ = project(sample.K, prediction.bodies.keypoints.double().numpy())
        matching = match_people(points, people.keypoints, "strict", protocol.min_iou, ~people.counts)
        published = match_people(points, people.keypoints[truths], "multihmr-compat")
        pairs = [(p, int(truths[t])) for p, t in published.matches]
        errors = _errors(model, prediction, sample, people, sorted({*matching.matches, *pairs}))
        strict = image_statistics(matching, [errors[pair] for pair in matching.matches], penalties)
        compat = image_statistics(published, [errors[pair] for pair in pairs], penalties)
    stats = {**strict, **{COMPAT + name: value for name, value in compat.items()}}
    return {**stats, "failed": np.array(bool(prediction.failed))}


def _errors(
    model: BodyModel,
    prediction: PeoplePrediction,
    sample: HumanSample,
    people: People,
    pairs: Sequence[tuple[int, int]],
) -> dict[tuple[int, int], dict[str, float]]:
    """Errors of (prediction, truth) pairs."""
    wanted = sorted({t for _, t in pairs})
    if not wanted:
        return {}
    persons = [people.people[t] for t in wanted]
    values = checked_bodies(model, persons, f"sample {sample.id}")
    T = torch.from_numpy(np.stack([p.T_cam_body for p in persons])).float()
    with torch.no_grad():
        truth = model({name: value.float() for name, value in values.items()}).moved(T)
    of_truth = {t: _body(model, truth, i) for i, t in enumerate(wanted)}
    try:
        return {(p, t): body_errors(_body(model, prediction.bodies, p), of_truth[t]) for p, t in pairs}
    except TaskError as error:
        raise TaskError(f"sample {sample.id}: {error}") from error


def _body(model: BodyModel, output: BodyOutput, index: int) -> Body:
    vertices, joints, keypoints = (
        x[index].double().numpy() for x in (output.vertices, output.joints, output.keypoints)
    )
    return Body(vertices, keypoints, joints[model.root])
