"""Answers that look at no image, and answers that know a part of the truth, scored by the task's own
probe.

An encoder that is no better than the first has learnt nothing that the task asks for (how far the
mere place of a patch gets is measured by running the encoder `position`); the second say which part of
a task is hard.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dune_bench.data.base import Lazy
from dune_bench.data.samples import HumanSample
from dune_bench.data.samples import View as PosedView
from dune_bench.metrics.depth import valid_depth
from dune_bench.probes.base import SilentProgress
from dune_bench.probes.correspondence import Correspondences
from dune_bench.probes.correspondence_truth import same_places
from dune_bench.probes.depth import DepthPrediction
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.hmr_bodies import View
from dune_bench.probes.hmr_people import people_of
from dune_bench.probes.hmr_prediction import PeoplePrediction, nobody, place
from dune_bench.probes.pair_poses import PairPose
from dune_bench.probes.recon3d_match_depth import DEPTH_HEAD, PairPrediction
from dune_bench.probes.reloc import ScenePrediction, fixed_pose, most_queries
from dune_bench.probes.reloc_answers import Outcome, QueryPose
from dune_bench.probes.semseg import SegPrediction
from dune_bench.registry.cards import TaskCard
from dune_bench.registry.lookup import Registry
from dune_bench.run.probing import Arrays, make_probe, score_all

Predictions = Iterator[Any]
ONE_TOKEN = TokenGrid((1, 1), (1, 1))
"""A grid of a single token: one answer for the whole image."""


@dataclass(frozen=True)
class Setting:
    """A task ready for answers.  fit: training samples, or None if nothing is fitted.  upstream: the
    settings of the tasks whose heads it uses, by role."""

    probe: Any
    fit: Lazy[Any] | None
    score: Lazy[Any]
    classes: tuple[str, ...]
    upstream: dict[str, Setting]


def setting_of(card: TaskCard, registry: Registry) -> Setting:
    """Opens the task's data.  Raises what the dataset raises."""
    probe = make_probe(card, registry)
    data = registry.dataset(card.dataset.name)(card.dataset.name)
    fit = None if card.dataset.fit is None else data.samples(probe.sample_type, card.dataset.fit)
    upstream = {role: setting_of(registry.task(task), registry) for role, task in card.requires.items()}
    return Setting(probe, fit, data.samples(probe.sample_type, card.dataset.score), data.classes, upstream)


def commonest_class(at: Setting) -> Predictions:
    """The class with most training pixels, everywhere."""
    assert at.fit is not None
    counts = sum(np.bincount(s.labels.ravel(), minlength=256)[: len(at.classes)] for s in at.fit)
    logits = np.zeros((len(at.classes), 1, 1), dtype=np.float32)
    logits[int(np.argmax(counts))] = 1.0
    for _ in range(len(at.score)):
        yield SegPrediction(logits, ONE_TOKEN)


def one_depth(at: Setting, average: Callable[[Any], Any] = np.median) -> DepthPrediction:
    """One depth for all pixels: an average of the training images' log-depths.  at: a depth task."""
    assert at.fit is not None
    low, high = at.probe.protocol.min_depth_m, at.probe.protocol.max_depth_m
    logs = [np.log(s.depth[valid_depth(s.depth, low, high)].astype(np.float64)) for s in at.fit]
    constant = np.full((1, 1), average(np.concatenate(logs)), dtype=np.float32)
    return DepthPrediction(constant, ONE_TOKEN, low, high)


def constant_depth(at: Setting, average: Callable[[Any], Any]) -> Predictions:
    """The same depth for all pixels of all images."""
    return itertools.repeat(one_depth(at, average), len(at.score))


def same_pixel(at: Setting) -> Predictions:
    """The point at the same place of the other image, as if the camera had not moved."""
    for pair in at.score:
        yield Correspondences(same_places(pair, at.probe.protocol.lattice))


def posed_pairs(at: Setting, true_pose: bool, true_depth: bool) -> Predictions:
    """Pairs with the true relative pose or none (the camera did not move), and the true depth or the
    training median."""
    constant = one_depth(at.upstream[DEPTH_HEAD])
    for pair in at.score:
        views = (pair.view1, pair.view2)
        T_2_1 = views[1].T_cam_world @ np.linalg.inv(views[0].T_cam_world) if true_pose else np.eye(4)
        depths = [known_depth(view, constant) if true_depth else constant for view in views]
        yield PairPrediction(PairPose(T_2_1, np.ones(0, dtype=bool)), depths[0], depths[1], 0)


def known_depth(view: PosedView, limits: DepthPrediction) -> DepthPrediction:
    """The true depth of a view as a prediction.  limits: whose range in metres it takes."""
    height, width = view.depth.shape
    grid = TokenGrid((height, width), (height, width))
    return DepthPrediction(np.log(view.depth), grid, limits.low, limits.high)


def known_poses(at: Setting) -> Predictions:
    """The true pose of every query."""
    width = most_queries(at.score)
    for scene in at.score:
        T_ref_world = np.linalg.inv(scene.reference.T_cam_world)
        answers = (QueryPose(q.T_cam_world @ T_ref_world, 1.0, 0, Outcome.answered) for q in scene.queries)
        yield ScenePrediction(tuple(answers), width)


def nobody_found(at: Setting) -> Predictions:
    """Images without people."""
    return itertools.repeat(nobody(at.probe.bodies.model), len(at.score))


def mean_bodies(at: Setting, true_distance: bool) -> Predictions:
    """The training people's mean body at every head that must be found, in its mean orientation towards
    the camera; at the mean distance (of z / f) or the true one."""
    assert at.fit is not None
    bodies = at.probe.bodies
    mean = torch.cat([true_rows(at, sample) for sample in at.fit]).mean(0)
    for sample in at.score:
        rows = true_rows(at, sample)
        distance = rows[:, bodies.groups["distance"]].clone()
        rows[:] = mean
        if true_distance:
            rows[:, bodies.groups["distance"]] = distance
        yield bodies_at_heads(at, sample, rows)


def true_bodies(at: Setting) -> Predictions:
    """Everyone who must be found, as they are."""
    return (bodies_at_heads(at, sample, true_rows(at, sample)) for sample in at.score)


def true_rows(at: Setting, sample: HumanSample) -> torch.Tensor:
    """The probe's regression targets of those who must be found, float64 (n, width)."""
    people = people_of(sample, at.probe.protocol.min_visible)
    view = View.of(sample.K, sample.image.size, sample.image.size)
    rows: torch.Tensor = at.probe.bodies.encode(people.people, people.heads, view, f"sample {sample.id}")
    return rows[torch.from_numpy(people.counts)]


def bodies_at_heads(at: Setting, sample: HumanSample, rows: torch.Tensor) -> PeoplePrediction:
    """Bodies of rows (n, width) at the true places of the heads that must be found, in the image."""
    bodies, protocol = at.probe.bodies, at.probe.protocol
    people = people_of(sample, protocol.min_visible)
    if not len(rows):
        return nobody(bodies.model)
    view = View.of(sample.K, sample.image.size, sample.image.size)
    depths = (protocol.min_depth_m, protocol.max_depth_m)
    posed = bodies.decode(rows, people.pixels[people.counts], view, depths)
    return place(bodies, posed, np.ones(len(rows)))


Answers = dict[str, dict[str, Callable[[Setting], Predictions]]]

TRIVIAL: Answers = {
    "semseg": {"the commonest class": commonest_class},
    "depth": {
        "training median": functools.partial(constant_depth, average=np.median),
        "training mean of log-depth": functools.partial(constant_depth, average=np.mean),
    },
    "correspondence": {"the same pixel": same_pixel},
    "recon3d": {
        "no motion, training median depth": functools.partial(posed_pairs, true_pose=False, true_depth=False),
    },
    "reloc": {"no motion": lambda at: fixed_pose(at.score)},
    "hmr": {"nobody": nobody_found},
}
"""Probe -> name of the answer -> predictions in the order of the scored samples."""

ORACLES: Answers = {
    "recon3d": {
        "no motion, true depth": functools.partial(posed_pairs, true_pose=False, true_depth=True),
        "true pose, training median depth": functools.partial(posed_pairs, true_pose=True, true_depth=False),
        "true pose, true depth": functools.partial(posed_pairs, true_pose=True, true_depth=True),
    },
    "reloc": {"true pose": known_poses},
    "hmr": {
        "mean body at true heads": functools.partial(mean_bodies, true_distance=False),
        "mean body at true heads, true distance": functools.partial(mean_bodies, true_distance=True),
        "true bodies": true_bodies,
    },
}
"""The same for answers that know a part of the truth."""


def statistics(card: TaskCard, registry: Registry, answers: Answers) -> dict[str, Arrays]:
    """Per-sample statistics of each of `answers` (TRIVIAL or ORACLES), as a run stores them, by name;
    empty for a probe without any."""
    if card.probe not in answers:
        return {}
    at = setting_of(card, registry)
    found = {}
    for name, predict in answers[card.probe].items():
        stats = score_all(at.probe, predict(at), at.score, SilentProgress())
        found[name] = {"id": np.array(at.score.ids), "group": np.array(at.score.groups), **stats}
    return found
