"""Which human head, and how long: held-out training rooms decide the constants of `multihmr-mini`; and
how its errors fall with the number of people learned from.

    python benchmarks/human_head_ablation.py ENCODER [--held 14] [--seeds 0,1] [--rooms 14,28,56]
        [--people 0,150,300] [--set KEY=VALUE[,KEY=VALUE…]]… [--thresholds 0.2,0.3]

Each --set is one variant of the task's card (`recipe.steps=800,shape.width=128`); without any, the card
itself.  The head is trained on the other training rooms and asked about the held-out ones, so that no
constant was chosen on a test room.  --rooms: trains on so many of the others, --people: and on so many of
the rooms full of people (default: all), as a learning curve; the steps stay the card's.  Prints a line per
variant, seed and threshold (default: the card's); `ridge` on the same rooms stands above.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence

import numpy as np
from decoder_ablation import with_changes
from ladder import images_of

from dune_bench.data.base import Lazy
from dune_bench.data.minirooms.people import MiniRoomsPeople
from dune_bench.data.samples import HumanSample
from dune_bench.encoders.load import load_encoder
from dune_bench.probes.base import FeatureSource, Head, ProbeContext, SilentProgress
from dune_bench.probes.hmr import HmrProbe
from dune_bench.probes.hmr_learned_protocol import HmrTrained
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.registry.paths import features_cache
from dune_bench.run.cache import FeatureCache
from dune_bench.run.extract import Extractor, ImageSet
from dune_bench.run.plan import card_view
from dune_bench.run.probing import make_probe, score_all
from dune_bench.run.ui import SilentUI

TASK, BASELINE = "hmr/minirooms-people/multihmr-mini@1", "hmr/minirooms/ridge@1"
SHOWN = ("pve_mm@miss350mm", "pa_pve_mm@miss150mm", "f1", "recall", "pve_mm", "pa_pve_mm", "depth_error_m")


def features_of(name: str, samples: Lazy[HumanSample], registry: Registry) -> FeatureSource:
    """Of all training images, from the cache where they are in it."""
    encoder, card = load_encoder(registry.encoder(name)), registry.task(TASK)
    view = card_view(registry.encoder(name), card.probe, encoder.default_view)
    extractor = Extractor(encoder, FeatureCache(features_cache(), print), SilentUI(), 8)
    return extractor.run(ImageSet("train", images_of(samples), (view,), card.input)).features[view]


def rooms_of(samples: Lazy[HumanSample], rooms: Sequence[str]) -> Lazy[HumanSample]:
    return samples.subset([i for i, group in enumerate(samples.groups) if group in set(rooms)])


def spread(rooms: Sequence[str], count: int) -> list[str]:
    """`count` of the rooms, evenly spread."""
    return [rooms[i] for i in np.linspace(0, len(rooms) - 1, count).round().astype(int)]


def show(
    name: str, probe: HmrProbe, head: Head, features: FeatureSource, held: Lazy[HumanSample], note: str
) -> None:
    predictions = probe.predict(features, held, head, {}, ProbeContext())
    stats = score_all(probe, predictions, held, SilentProgress())
    found = probe.reduce(stats, np.ones((1, len(held))))
    numbers = " | ".join(f"{float(found[metric][0]):.2f}" for metric in SHOWN)
    print(f"| {name} | {numbers} | {note} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("encoder")
    parser.add_argument("--held", type=int, default=14)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--rooms")
    parser.add_argument("--people")
    parser.add_argument("--thresholds")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--baseline", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    registry = load_registry()
    samples = MiniRoomsPeople(registry.task(TASK).dataset.name).samples(HumanSample, "train")
    features = features_of(arguments.encoder, samples, registry)
    groups = dict(zip(samples.groups, samples.ids, strict=True))
    crowded = [group for group, one in groups.items() if one.startswith("people/")]
    rooms = [group for group in groups if group not in set(crowded)]
    out = spread(rooms, arguments.held)
    others = [room for room in rooms if room not in out]
    held = rooms_of(samples, out)
    counts = [int(n) for n in arguments.rooms.split(",")] if arguments.rooms else [len(others)]
    more = [int(n) for n in arguments.people.split(",")] if arguments.people else [len(crowded)]
    thresholds = [float(n) for n in arguments.thresholds.split(",")] if arguments.thresholds else []
    print(f"| variant | {' | '.join(SHOWN)} | training |\n|{'---|' * (len(SHOWN) + 2)}")
    for count, extra in itertools.product(counts, more):
        fit = rooms_of(samples, spread(others, count) + crowded[:extra])
        size = f"{count} rooms + {extra}"
        if arguments.baseline:
            ridge = make_probe(registry.task(BASELINE), registry)
            head = ridge.fit(features, fit, {}, ProbeContext())
            show(f"ridge, {size}", ridge, head, features, held, f"{head.choices['people']} people")
        for changes in arguments.set or [""]:
            protocol = HmrTrained.model_validate(with_changes(registry.task(TASK).protocol, changes))
            for seed in map(int, arguments.seeds.split(",")):
                probe, began = HmrProbe(protocol), time.perf_counter()
                head = probe.fit(features, fit, {}, ProbeContext(rng=np.random.default_rng(seed)))
                took, found = time.perf_counter() - began, head.choices
                terms = " ".join(f"{k} {v:.3g}" for k, v in found["loss"].items())
                note = f"{found['people']} people, {found['parameters'] / 1e6:.1f} M, {took:.0f} s, {terms}"
                for threshold in thresholds or [protocol.threshold]:
                    asked = HmrProbe(protocol.model_copy(update={"threshold": threshold}))
                    name = f"{changes or 'card'}, {size}, seed {seed}, threshold {threshold}"
                    show(name, asked, head, features, held, note)


if __name__ == "__main__":
    main()
