"""Which part of relocalization and of reconstruction is hard: matches, depth and pose, each the
encoder's own or the true one.

    python benchmarks/ladder.py [--dataset NAME] [--encoders E,E2]

Prints two markdown tables.  reloc: the share of queries with a pose within 50 cm and 10° (and 25 cm and
5°), by difficulty of the query; true matches are the centres of the reference's tokens that the query
sees, where their surface truly is in the query; poses come from the task's own solver.  recon3d: the
primary metric.  True depth is the renderer's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from trivial import Setting, known_depth, one_depth, setting_of

from dune_bench.cli.prepare import resolve_version
from dune_bench.data.base import Lazy
from dune_bench.data.samples import PairSample, RelocScene
from dune_bench.encoders.load import load_encoder
from dune_bench.geometry.cameras import Camera
from dune_bench.geometry.robust import Failure
from dune_bench.probes.base import FeatureSource, Head, ProbeContext, SilentProgress, Upstream
from dune_bench.probes.correspondence_truth import lattice, pair_truth
from dune_bench.probes.depth import DepthPrediction, DepthProbe
from dune_bench.probes.pair_poses import PairPose, lift, pose_by_pnp
from dune_bench.probes.recon3d_match_depth import PairPrediction
from dune_bench.probes.reloc import ScenePrediction, most_queries
from dune_bench.probes.reloc_answers import Outcome, QueryPose
from dune_bench.probes.reloc_frames import BINS, bin_breakdowns
from dune_bench.probes.reloc_match_depth import DEPTH_ROLE
from dune_bench.registry.cards import TaskCard
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.registry.paths import features_cache
from dune_bench.run.cache import FeatureCache
from dune_bench.run.extract import Extractor, ImageSet
from dune_bench.run.plan import card_view
from dune_bench.run.probing import score_all
from dune_bench.run.ui import SilentUI

METRICS = ("precision@50cm_10deg", "precision@25cm_5deg")
OCCLUSION_M = 0.01


class TrueDepthProbe(DepthProbe):
    """A depth head that knows.  Made with the views' truth by image id."""

    def __init__(self, at: Setting, scenes: Sequence[RelocScene]) -> None:
        super().__init__(at.upstream[DEPTH_ROLE].probe.protocol)
        limits = one_depth(at.upstream[DEPTH_ROLE])
        views = (view for scene in scenes for view in (scene.reference, *scene.queries))
        self._known = {view.image.id: known_depth(view, limits) for view in views}

    def depths(
        self, features: FeatureSource, images: Sequence[str], head: Head, ctx: ProbeContext
    ) -> Iterator[DepthPrediction]:
        return iter([self._known[image] for image in images])


@dataclass(frozen=True)
class Fitted:
    """An encoder's features of the scored images for the task, and its depth head with its features."""

    features: FeatureSource
    depth: Upstream


def fitted(name: str, card: TaskCard, at: Setting, registry: Registry) -> Fitted:
    """Extracts (or finds in the cache) the features and fits the depth head."""
    encoder = load_encoder(registry.encoder(name))
    extractor = Extractor(encoder, FeatureCache(features_cache(), print), SilentUI(), 8)
    depth = registry.task(card.requires[DEPTH_ROLE])
    views = {c.probe: card_view(registry.encoder(name), c.probe, encoder.default_view) for c in (card, depth)}
    head_at = at.upstream[DEPTH_ROLE]
    assert head_at.fit is not None
    train, test = (images_of(samples) for samples in (head_at.fit, at.score))
    of_train = extractor.run(ImageSet("fit", train, (views[depth.probe],), depth.input))
    of_test = extractor.run(ImageSet("score", test, tuple(dict.fromkeys(views.values())), card.input))
    head = head_at.probe.fit(of_train.features[views[depth.probe]], head_at.fit, {}, ProbeContext())
    upstream = Upstream(head_at.probe, head, of_test.features[views[depth.probe]])
    return Fitted(of_test.features[views[card.probe]], upstream)


def images_of(samples: Lazy[Any]) -> tuple[Any, ...]:
    """Every image of the samples once."""
    refs = (ref for i in range(len(samples)) for ref in samples.images(i))
    return tuple({ref.id: ref for ref in refs}.values())


def with_true_matches(at: Setting, upstream: Upstream) -> Iterator[ScenePrediction]:
    """Poses from true matches and the depth of `upstream`."""
    width = most_queries(at.score)
    pose = at.probe.protocol.pose
    side = upstream.features.grid[0]
    for scene in at.score:
        reference = scene.reference
        size = reference.image.size
        (depth,) = upstream.probe.depths(  # type: ignore[attr-defined]
            upstream.features, [reference.image.id], upstream.head, ProbeContext()
        )
        points1, metres = lattice(size, side), depth.depth(size)
        answers = []
        for query in scene.queries:
            truth = pair_truth(PairSample("", scene.group, reference, query, 1.0), points1, OCCLUSION_M)
            places1, places2 = points1[truth.asked], truth.places2[truth.asked]
            points = lift(places1, metres, Camera(reference.K, size))
            found = pose_by_pnp(points, places2, Camera(query.K, query.image.size), pose.options())
            if isinstance(found, Failure):
                answers.append(QueryPose(None, float("nan"), len(points), Outcome.no_pose))
            else:
                inliers = float(found.inliers.sum())
                answers.append(QueryPose(found.T_cam_world, inliers, len(points), Outcome.answered))
        yield ScenePrediction(tuple(answers), width)


def row(name: str, at: Setting, predictions: Iterator[ScenePrediction]) -> None:
    """Prints one line: each metric by bin, then of all queries."""
    stats = score_all(at.probe, predictions, at.score, SilentProgress())
    bins = {found.metric: found.values for found in bin_breakdowns(stats)}
    whole = at.probe.reduce(stats, np.ones((1, len(at.score))))
    cells = [bins[metric][k] for metric in METRICS for k in BINS]
    found = [whole[metric][0] for metric in METRICS]
    numbers = [*cells[:3], found[0], *cells[3:], found[1]]
    print(f"| {name} | {' | '.join('–' if n is None else f'{n:.0f}' for n in numbers)} |", flush=True)


def reloc_table(card: TaskCard, encoders: Sequence[str], registry: Registry) -> None:
    """Own or true matches, own or true depth."""
    at = setting_of(card, registry)
    knowing = TrueDepthProbe(at, list(at.score))
    head = [f"{metric.partition('@')[2]} {k}" for metric in METRICS for k in (*BINS, "all")]
    print(f"| matches, depth | {' | '.join(head)} |\n|---{'|---' * len(head)}|")
    for name in encoders:
        own = fitted(name, card, at, registry)
        true = replace(own.depth, probe=knowing)
        for depth, label in ((own.depth, "its own"), (true, "true")):
            poses = at.probe.predict(own.features, at.score, Head({}), {DEPTH_ROLE: depth}, ProbeContext())
            row(f"`{name}`, {label} depth", at, poses)
        row(f"true matches, depth of `{name}`", at, with_true_matches(at, own.depth))
    row("true matches, true depth", at, with_true_matches(at, true))


def posed(found: PairPrediction, T_2_1: Any) -> PairPrediction:
    """The same depths with another pose."""
    return replace(found, pose=PairPose(T_2_1, np.ones(0, dtype=bool)))


def recon3d_table(card: TaskCard, encoders: Sequence[str], registry: Registry) -> None:
    """Own or true pose, own or true depth."""
    at = setting_of(card, registry)
    limits = one_depth(at.upstream[DEPTH_ROLE])
    primary = card.primary.id
    head = ("its own pose and depth", "its depth, no motion", "its depth, true pose", "its pose, true depth")
    print(f"\n| `{primary}` | {' | '.join(head)} |\n|---{'|---' * len(head)}|")
    for name in encoders:
        own = fitted(name, card, at, registry)
        context = ProbeContext()
        found = list(at.probe.predict(own.features, at.score, Head({}), {DEPTH_ROLE: own.depth}, context))
        pairs = list(zip(at.score, found, strict=True))
        still = [posed(p, np.eye(4)) for p in found]
        true = [posed(p, pair.view2.T_cam_world @ np.linalg.inv(pair.view1.T_cam_world)) for pair, p in pairs]
        known = [
            replace(p, depth1=known_depth(pair.view1, limits), depth2=known_depth(pair.view2, limits))
            for pair, p in pairs
        ]
        values = []
        for predictions in (found, still, true, known):
            stats = score_all(at.probe, predictions, at.score, SilentProgress())
            values.append(float(at.probe.reduce(stats, np.ones((1, len(pairs))))[primary][0]))
        print(f"| `{name}` | {' | '.join(f'{value:.1f}' for value in values)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Relocalization and reconstruction with parts of the truth.")
    parser.add_argument("--dataset", default="minirooms", help="with or without its version")
    parser.add_argument("--encoders", default="dinov2_vits14_saliency,efficientnet_lite0,random_vits14")
    options = parser.parse_args()
    registry = load_registry()
    encoders = options.encoders.split(",")
    dataset = resolve_version(registry, options.dataset)
    for probe, table in (("reloc", reloc_table), ("recon3d", recon3d_table)):
        cards = (card for card in registry.tasks.values() if card.dataset.name == dataset)
        table(min((c for c in cards if c.probe == probe), key=lambda c: c.id), encoders, registry)


if __name__ == "__main__":
    main()
