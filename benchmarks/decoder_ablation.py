"""Which decoder, and how long: held-out training rooms decide the constants of `mast3r-mini`.

    python benchmarks/decoder_ablation.py ENCODER [--held 14] [--seed 0] [--set KEY=VALUE[,KEY=VALUE…]]…

Each --set is one variant of the task's card (`recipe.steps=800,decoder.width=256`); without any, the card
itself.  The decoder is trained on the other training rooms and asked about the held-out ones, so that no
constant was chosen on a test room.  Prints a line per variant: the points that the decoder gives, and the
calibrated ones; match-depth on the same rooms stands above.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from ladder import images_of

from dune_bench.data.base import Lazy
from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import DepthSample, PairSample
from dune_bench.encoders.load import load_encoder
from dune_bench.probes.base import FeatureSource, ProbeContext, Upstream
from dune_bench.probes.depth import DepthProbe
from dune_bench.probes.recon3d import Recon3dProbe
from dune_bench.probes.recon3d_match_depth import DEPTH_HEAD
from dune_bench.probes.recon3d_protocol import Recon3dTrained
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.registry.paths import features_cache
from dune_bench.run.cache import FeatureCache
from dune_bench.run.extract import Extractor, ImageSet
from dune_bench.run.plan import card_view
from dune_bench.run.probing import make_probe, score_all
from dune_bench.run.ui import SilentUI

TASK = "recon3d/minirooms/mast3r-mini@1"
BASELINE = "recon3d/minirooms/match-depth@1"
SHOWN = ("inliers@25cm", "pointmap_m", "rra@15deg", "maa@30deg")


@dataclass(frozen=True)
class Rooms:
    """The training rooms, some of them held out."""

    features: FeatureSource
    depths: FeatureSource
    fit: Lazy[Any]
    held: Lazy[Any]
    depth_fit: Lazy[Any]


def rooms_of(name: str, held: int, registry: Registry) -> Rooms:
    """Features of the training rooms; the held-out ones are spread evenly over the split."""
    card, depth = registry.task(TASK), registry.task("depth/minirooms/convex@1")
    encoder = load_encoder(registry.encoder(name))
    views = {c.probe: card_view(registry.encoder(name), c.probe, encoder.default_view) for c in (card, depth)}
    data = MiniRooms(card.dataset.name)
    pairs, depths = data.samples(PairSample, "train"), data.samples(DepthSample, "train")
    extractor = Extractor(encoder, FeatureCache(features_cache(), print), SilentUI(), 8)
    found = extractor.run(
        ImageSet("train", images_of(pairs), tuple(dict.fromkeys(views.values())), card.input)
    )
    groups = list(dict.fromkeys(pairs.groups))
    out = {groups[i] for i in np.linspace(0, len(groups) - 1, held).round().astype(int)}

    def part(samples: Lazy[Any], held_out: bool) -> Lazy[Any]:
        return samples.subset([i for i, group in enumerate(samples.groups) if (group in out) == held_out])

    features = found.features
    return Rooms(
        features[views["recon3d"]],
        features[views["depth"]],
        part(pairs, False),
        part(pairs, True),
        part(depths, False),
    )


def with_changes(protocol: Mapping[str, Any], changes: str) -> dict[str, Any]:
    """The card's constants with `recipe.steps=800,…` changed; keys below `training` unless they begin at
    the top."""
    changed: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(protocol)))
    for change in filter(None, changes.split(",")):
        key, _, value = change.partition("=")
        path = key.split(".")
        place = changed if path[0] in changed else changed["training"]
        for part in path[:-1]:
            place = place[part]
        if path[-1] not in place and path[0] != "recipe":
            raise SystemExit(f"no constant {key!r}")
        place[path[-1]] = yaml.safe_load(value)
    return changed


def measure(
    probe: Recon3dProbe, rooms: Rooms, head: Any, upstream: Mapping[str, Upstream], seed: int
) -> dict[str, float]:
    """Metrics on the held-out rooms."""
    ctx = ProbeContext(rng=np.random.default_rng(seed))
    predictions = probe.predict(rooms.features, rooms.held, head, upstream, ctx)
    stats = score_all(probe, predictions, rooms.held, ctx.progress)
    found = probe.reduce(stats, np.ones((1, len(rooms.held))))
    return {name: float(found[name][0]) for name in SHOWN}


def show(name: str, values: Mapping[str, float], extra: str = "") -> None:
    numbers = " | ".join(f"{values[metric]:.3f}" for metric in SHOWN)
    print(f"| {name} | {numbers} | {extra} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoder")
    parser.add_argument("--held", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--baseline", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    registry = load_registry()
    rooms = rooms_of(arguments.encoder, arguments.held, registry)
    print(f"| variant | {' | '.join(SHOWN)} | training |\n|{'---|' * (len(SHOWN) + 2)}")
    if arguments.baseline:
        depth = make_probe(registry.task("depth/minirooms/convex@1"), registry)
        assert isinstance(depth, DepthProbe)
        head = depth.fit(rooms.depths, rooms.depth_fit, {}, ProbeContext())
        upstream = {DEPTH_HEAD: Upstream(depth, head, rooms.depths)}
        show("match-depth", measure(make_probe(registry.task(BASELINE), registry), rooms, None, upstream, 0))
    for changes in arguments.set or [""]:
        constants = Recon3dTrained.model_validate(with_changes(registry.task(TASK).protocol, changes))
        probe, began = Recon3dProbe(constants), time.perf_counter()
        ctx = ProbeContext(rng=np.random.default_rng(arguments.seed))
        head = probe.fit(rooms.features, rooms.fit, {}, ctx)
        took = time.perf_counter() - began
        cost = (
            f"{head.choices['parameters'] / 1e6:.1f} M, {took:.0f} s, loss {head.choices['loss']['all']:.3f}"
        )
        for points in ("decoder", "calibrated"):
            asked = Recon3dProbe(constants.model_copy(update={"points": points}))
            show(f"{changes or 'card'}: {points}", measure(asked, rooms, head, {}, 0), cost)


if __name__ == "__main__":
    main()
