"""Where the time of a training step of a learned protocol goes: forward, backward and optimiser against 90 %.

    python benchmarks/training_step.py [--encoder random_vits14] [--steps 40] [--limit 60] [--task ID]

Trains the decoder (or, with --task hmr/minirooms-people/multihmr-mini@1, the human head) of the shipped card
for so many steps on the cached tokens of about `limit` training images.  What a fit does before its first
step (the truth of all pairs, the mean person) is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from decoder_ablation import with_changes
from ladder import images_of

from dune_bench.data.base import Lazy, limit_groups
from dune_bench.encoders.load import load_encoder
from dune_bench.engine.record import StepLine, TrainingRecord
from dune_bench.probes.base import FeatureSource, ProbeContext
from dune_bench.registry.cards import TaskCard
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.registry.paths import features_cache
from dune_bench.run.cache import FeatureCache
from dune_bench.run.extract import Extractor, ImageSet
from dune_bench.run.plan import card_view
from dune_bench.run.probing import make_probe
from dune_bench.run.ui import SilentUI

TASK = "recon3d/minirooms/mast3r-mini@1"
WORK = ("forward", "backward", "optimiser")
ASKED = 0.9


def tokens(name: str, card: TaskCard, samples: Lazy[Any], registry: Registry) -> FeatureSource:
    """Features of the samples' images, from the cache as in a run."""
    encoder = load_encoder(registry.encoder(name))
    view = card_view(registry.encoder(name), card.probe, encoder.default_view)
    extractor = Extractor(encoder, FeatureCache(features_cache(), print), SilentUI(), 8)
    return extractor.run(ImageSet("train", images_of(samples), (view,), card.input)).features[view]


def timed(
    features: FeatureSource, samples: Lazy[Any], card: TaskCard, steps: int, registry: Registry
) -> TrainingRecord:
    """The record of a short training by the card."""
    short = f"recipe.steps={steps},recipe.warmup_steps=0,recipe.checkpoint_every={steps},recipe.log_every=1"
    probe = make_probe(card.model_copy(update={"protocol": with_changes(card.protocol, short)}), registry)
    with tempfile.TemporaryDirectory() as folder:
        probe.fit(features, samples, {}, ProbeContext(training=Path(folder)))
        lines = (Path(folder) / "log.jsonl").read_text("utf-8").splitlines()
    return TrainingRecord(tuple(StepLine(**json.loads(line)) for line in lines), steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--encoder", default="random_vits14")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--task", default=TASK)
    arguments = parser.parse_args()
    registry = load_registry()
    card = registry.task(arguments.task)
    data = registry.dataset(card.dataset.name)(card.dataset.name)
    samples = limit_groups(data.samples(registry.probe(card.probe).sample_type, "train"), arguments.limit)
    features = tokens(arguments.encoder, card, samples, registry)
    began = time.perf_counter()
    record = timed(features, samples, card, arguments.steps, registry)
    whole = time.perf_counter() - began
    stepping = sum(sum(line.seconds.values()) for line in record.lines)
    for phase, share in record.shares().items():
        print(f"{phase:9} {share:6.1%}  {1000 * share * stepping / record.steps:7.1f} ms a step")
    work = sum(record.shares()[phase] for phase in WORK)
    print(f"{' + '.join(WORK)}: {work:.1%}, asked: {ASKED:.0%}")
    print(f"beside the steps: {whole - stepping:.1f} s for {len(samples)} samples")


if __name__ == "__main__":
    main()
