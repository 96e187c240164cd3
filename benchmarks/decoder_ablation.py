"""Which decoder, and how long: held-out training rooms decide the constants of `mast3r-mini`.

    python benchmarks/decoder_ablation.py ENCODER [--held 14] [--rooms N] [--seed 0] [--task ID] [--curve]
        [--set KEY=VALUE[,KEY=VALUE…]]…

Each --set is one variant of the task's card (`recipe.steps=800,decoder.width=256`); without any, the card
itself.  The decoder is trained on the other training rooms and asked about the held-out ones, so that no
constant was chosen on a test room.  Prints a line per variant: the points that the decoder gives, and the
calibrated ones; match-depth on the same rooms stands above.  --curve: prints instead how each term of the
loss fell, and asks nothing; with --rooms, of a few rooms, it shows that a decoder too large for this
machine learns at all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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
TERMS = ("points1", "points2", "matching")
WORK = ("forward", "backward", "optimiser")
SHOWN = ("inliers@25cm", "pointmap_m", "rra@15deg", "maa@30deg")


@dataclass(frozen=True)
class Rooms:
    """The training rooms, some of them held out."""

    features: FeatureSource
    depths: FeatureSource
    fit: Lazy[Any]
    held: Lazy[Any]
    depth_fit: Lazy[Any]


def rooms_of(name: str, task: str, held: int, count: int | None, registry: Registry) -> Rooms:
    """Features of the training rooms, or of the first `count`; the held-out ones are spread evenly."""
    card, depth = registry.task(task), registry.task("depth/minirooms/convex@1")
    encoder = load_encoder(registry.encoder(name))
    views = {c.probe: card_view(registry.encoder(name), c.probe, encoder.default_view) for c in (card, depth)}
    data = MiniRooms(card.dataset.name)
    chosen = set(list(dict.fromkeys(data.samples(PairSample, "train").groups))[:count])
    pairs, depths = (
        samples.subset([i for i, group in enumerate(samples.groups) if group in chosen])
        for samples in (data.samples(PairSample, "train"), data.samples(DepthSample, "train"))
    )
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


def curve(probe: Recon3dProbe, rooms: Rooms, seed: int) -> str:
    """Each term of the loss, its mean over the first and over the last quarter of the logged steps, and
    where the time went."""
    with tempfile.TemporaryDirectory() as folder:
        ctx = ProbeContext(rng=np.random.default_rng(seed), training=Path(folder))
        probe.fit(rooms.features, rooms.fit, {}, ctx)
        lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    quarter = max(1, len(lines) // 4)
    ends = [
        {name: np.mean([line["terms"][name] for line in part if name in line["terms"]]) for name in TERMS}
        for part in (lines[:quarter], lines[-quarter:])
    ]
    seconds = {name: sum(line["seconds"][name] for line in lines) for name in lines[0]["seconds"]}
    fell = ", ".join(f"{name} {ends[0][name]:.3f} -> {ends[1][name]:.3f}" for name in TERMS)
    step = sum(seconds.values()) / lines[-1]["step"]
    work = sum(seconds[name] for name in WORK) / sum(seconds.values())
    return f"{fell}; {step:.2f} s a step, {work:.1%} of it forward, backward and optimiser"


def show(name: str, values: Mapping[str, float], extra: str = "") -> None:
    numbers = " | ".join(f"{values[metric]:.3f}" for metric in SHOWN)
    print(f"| {name} | {numbers} | {extra} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoder")
    parser.add_argument("--held", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--rooms", type=int)
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--baseline", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    registry = load_registry()
    rooms = rooms_of(arguments.encoder, arguments.task, arguments.held, arguments.rooms, registry)
    card = registry.task(arguments.task)
    variants = {
        changes or "card": Recon3dProbe(Recon3dTrained.model_validate(with_changes(card.protocol, changes)))
        for changes in arguments.set or [""]
    }
    if arguments.curve:
        for name, probe in variants.items():
            print(f"{name}: {curve(probe, rooms, arguments.seed)}", flush=True)
        return
    print(f"| variant | {' | '.join(SHOWN)} | training |\n|{'---|' * (len(SHOWN) + 2)}")
    if arguments.baseline:
        depth = make_probe(registry.task("depth/minirooms/convex@1"), registry)
        assert isinstance(depth, DepthProbe)
        head = depth.fit(rooms.depths, rooms.depth_fit, {}, ProbeContext())
        upstream = {DEPTH_HEAD: Upstream(depth, head, rooms.depths)}
        show("match-depth", measure(make_probe(registry.task(BASELINE), registry), rooms, None, upstream, 0))
    for name, probe in variants.items():
        began = time.perf_counter()
        head = probe.fit(
            rooms.features, rooms.fit, {}, ProbeContext(rng=np.random.default_rng(arguments.seed))
        )
        took, found = time.perf_counter() - began, head.choices
        cost = f"{found['parameters'] / 1e6:.1f} M, {took:.0f} s, loss {found['loss']['all']:.3f}"
        for points in ("decoder", "calibrated"):
            asked = Recon3dProbe(probe.protocol.model_copy(update={"points": points}))
            show(f"{name}: {points}", measure(asked, rooms, head, {}, 0), cost)


if __name__ == "__main__":
    main()
