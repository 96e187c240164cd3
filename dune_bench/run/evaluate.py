"""Features, heads and scores of one encoder on the tasks of a plan."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from dune_bench.data.base import Lazy
from dune_bench.data.samples import ImageRef
from dune_bench.encoders.base import Encoder
from dune_bench.errors import BenchError, TaskError, UnavailableError
from dune_bench.probes.base import Head, ProbeContext, Progress, Upstream
from dune_bench.registry.cards import InputPolicy
from dune_bench.results.schema import Cost
from dune_bench.run.data import Split
from dune_bench.run.extract import Extracted, Extractor, ImageSet
from dune_bench.run.features import NoImages
from dune_bench.run.forward import batch_size_for
from dune_bench.run.identities import Identities
from dune_bench.run.metrics import intervals_of, make_breakdowns, make_metrics, values_of
from dune_bench.run.plan import TaskNode
from dune_bench.run.probing import Arrays, rng_of, score_all
from dune_bench.run.record import Findings
from dune_bench.run.scratch import Stores, training_folder
from dune_bench.run.ui import RunUI

SetKey = tuple[str, str, InputPolicy]
"""What is forwarded together: the images of a dataset's split at one input policy."""


@dataclass
class _Wanted:
    images: dict[str, ImageRef] = field(default_factory=dict)
    views: dict[str, None] = field(default_factory=dict)


class Evaluation:
    """Evaluates one loaded encoder.

    A failure (extraction of a set, fit of a head) is remembered and raised again by every task
    that needs it; the others go on.
    """

    def __init__(self, encoder: Encoder, keys: Identities, stores: Stores, ui: RunUI) -> None:
        self.encoder, self.keys, self.stores, self.ui = encoder, keys, stores, ui
        self._features: dict[SetKey, Extracted | BenchError] = {}
        self._heads: dict[tuple[str, int | None], Head | BenchError] = {}
        self._checked: dict[str, BenchError | None] = {}
        request = keys.request
        size = batch_size_for(encoder, request.batch_size)
        self._extractor = Extractor(encoder, stores.features, ui, size, request.fresh)

    def extract(self, todo: Iterable[TaskNode]) -> None:
        """Forwards every image that the tasks and the heads they lack need, once."""
        wanted: dict[SetKey, _Wanted] = {}
        for node in todo:
            try:
                for at, split in list(self._needs(node)):  # all of it, before anything is forwarded
                    bundle = wanted.setdefault(_set_key(at, split), _Wanted())
                    bundle.images.update({image.id: image for image in split.images})
                    bundle.views[self.keys.view(at)] = None
            except BenchError:
                continue  # raised again, and reported, when the task is run
        for key, bundle in wanted.items():
            dataset, split_name, policy = key
            self.encoder.to(self.encoder.device, policy.dtype)
            name = f"{dataset} {split_name}"
            images = ImageSet(name, tuple(bundle.images.values()), tuple(bundle.views), policy)
            try:
                self._features[key] = self._extractor.run(images)
            except BenchError as error:
                self._features[key] = error

    def run(self, node: TaskNode, found: Findings) -> Arrays:
        """Fits (or finds) the heads, scores, and fills `found`; returns the statistics of each sample
        with `id` and `group`.  Raises BenchError."""
        keys, probe = self.keys, self.keys.probes[node.id]
        # Before data are asked for that would be of no use.
        self._check_released(node)
        split = keys.score_split(node)
        found.splits["score"] = split
        if (fit := keys.fit_split(node)) is not None:
            found.splits["fit"] = fit
        self._read_released(node, node.seeds[0], split)
        found.upstream = {role: keys.head(*at) for role, at in keys.upstream(node, node.seeds[0]).items()}
        extracted = self._extracted(node, split)
        found.seconds["features"] = sum(e.seconds for e in self._used(node))
        found.cost = _cost(extracted, keys.view(node))
        per_seed: list[Arrays] = []
        for seed in node.seeds:
            with _clocked(found, "fit"):
                head = self._head(node, seed, split)
                upstream = self._upstream(node, seed, split)
            found.choices.update(head.choices if seed is None else {f"seed {seed}": head.choices})
            phase = self._phase(node, f"scoring{_which(node, seed)}", "samples")
            with _clocked(found, "score"), phase as progress:
                context = self._context(node, seed, split, progress)
                features = extracted.features[keys.view(node)]
                predictions = probe.predict(features, split.samples, head, upstream, context)
                per_seed.append(score_all(probe, predictions, split.samples, progress))
        with _clocked(found, "statistics"):
            self._summarise(node, split, per_seed, found)
        return _with_identity(per_seed, node.seeds, split)

    def _summarise(self, node: TaskNode, split: Split, per_seed: Sequence[Arrays], found: Findings) -> None:
        probe, wanted = self.keys.probes[node.id], node.card.metrics
        values = [values_of(probe, stats, wanted) for stats in per_seed]
        rng = rng_of(f"{node.id}: intervals", None)
        intervals = intervals_of(probe, per_seed, split.samples.groups, wanted, rng)
        found.metrics = make_metrics(wanted, values, intervals, per_seed[0])
        context = self._context(node, node.seeds[0], split)
        found.breakdowns = make_breakdowns(probe.breakdowns(per_seed[0], context))

    def _needs(self, node: TaskNode) -> Iterator[tuple[TaskNode, Split]]:
        """(task, split) pairs: images of the split in the view and policy of the task."""
        split = self.keys.score_split(node)
        yield from self._needs_on(node, split)
        for seed in node.seeds:
            self._read_released(node, seed, split)  # before anything is forwarded
            yield from self._needs_of_head(node, seed)

    def _needs_on(self, node: TaskNode, split: Split) -> Iterator[tuple[TaskNode, Split]]:
        """What predicting (or fitting) on a split takes: its own features and its upstream heads'."""
        yield node, split
        for other, _ in self.keys.upstream(node, node.seeds[0]).values():
            yield other, split

    def _needs_of_head(self, node: TaskNode, seed: int | None) -> Iterator[tuple[TaskNode, Split]]:
        for upstream in self.keys.upstream(node, seed).values():
            yield from self._needs_of_head(*upstream)
        split = self.keys.fit_split(node)
        if split is not None and self._stored(node, seed) is None:
            yield from self._needs_on(node, split)

    def _check_released(self, node: TaskNode) -> None:
        """Raises BenchError if the task, or one that it builds on, reads a released file that is not here or
        holds something else.  Reads each once."""
        for other, _ in self.keys.upstream(node, node.seeds[0]).values():
            self._check_released(other)
        probe = self.keys.probes[node.id]
        if not probe.reads_released:
            return
        if node.id not in self._checked:
            file = self.keys.released(probe.released_part)
            try:
                probe.check_released(file)
            except BenchError as error:
                self._checked[node.id] = error
            else:
                self._checked[node.id] = None
        if (known := self._checked[node.id]) is not None:
            raise known

    def _read_released(self, node: TaskNode, seed: int | None, split: Split) -> None:
        """Reads the released heads that the task, or one that it builds on, asks about the split.  Raises
        BenchError if one is not here, or is of other features than the encoder's."""
        self._check_released(node)
        for upstream in self.keys.upstream(node, seed).values():
            self._read_released(*upstream, split)
        if self.keys.probes[node.id].reads_released:
            self._head(node, seed, split)

    def _stored(self, node: TaskNode, seed: int | None) -> Head | None:
        at = (node.id, seed)
        if at not in self._heads and not self.keys.request.fresh:
            head = self.stores.heads.find(self.keys.head(node, seed))
            if head is not None:
                self._heads[at] = head
        known = self._heads.get(at)
        return known if isinstance(known, Head) else None

    def _head(self, node: TaskNode, seed: int | None, at_hand: Split) -> Head:
        """at_hand: any split whose images were forwarded for the task."""
        at = (node.id, seed)
        if self._stored(node, seed) is None and at not in self._heads:
            try:
                self._heads[at] = self._fit(node, seed, at_hand)
            except BenchError as error:
                self._heads[at] = error
        head = self._heads[at]
        if isinstance(head, BenchError):
            raise head
        return head

    def _fit(self, node: TaskNode, seed: int | None, at_hand: Split) -> Head:
        if self.keys.probes[node.id].reads_released:
            return self._read(node, seed, at_hand)
        split = self.keys.fit_split(node)
        if split is None:
            return Head({})
        upstream = self._upstream(node, seed, split)
        features = self._extracted(node, split).features[self.keys.view(node)]
        key = self.keys.head(node, seed)
        with (
            self._phase(node, f"fitting{_which(node, seed)}", "steps") as progress,
            training_folder(self.stores.training, key, self.keys.request.fresh) as folder,
        ):
            context = replace(self._context(node, seed, split, progress), training=folder)
            head = self.keys.probes[node.id].fit(features, split.samples, upstream, context)
            about = {"encoder": self.keys.source.card.id, "task": node.id, "seed": seed}
            self.stores.heads.write(key, head, about)
        return head

    def _read(self, node: TaskNode, seed: int | None, split: Split) -> Head:
        """The head released with the encoder.  Its file is where it is stored: no copy is made."""
        view = self.keys.view(node)
        images = ImageSet(split.name, tuple(split.images), (view,), node.policy)
        self.encoder.to(self.encoder.device, node.policy.dtype)
        shape = NoImages(self._extractor.layout(images, view))
        return self.keys.probes[node.id].fit(shape, Lazy([]), {}, self._context(node, seed, split))

    def _upstream(self, node: TaskNode, seed: int | None, split: Split) -> dict[str, Upstream]:
        """The heads that a task names, each with its own features of the images of `split`."""
        found = {}
        for role, (other, other_seed) in self.keys.upstream(node, seed).items():
            try:
                head = self._head(other, other_seed, split)
                features = self._extracted(other, split).features[self.keys.view(other)]
                found[role] = Upstream(self.keys.probes[other.id], head, features)
            except UnavailableError as error:
                raise UnavailableError(f"upstream {other.id}: {error}") from error
            except BenchError as error:
                raise TaskError(f"upstream {other.id}: {error}") from error
        return found

    def _extracted(self, node: TaskNode, split: Split) -> Extracted:
        found = self._features[_set_key(node, split)]
        if isinstance(found, BenchError):
            raise found
        return found

    def _used(self, node: TaskNode) -> list[Extracted]:
        """The extractions a task shares in."""
        used = {_set_key(at, split) for at, split in self._needs(node)}
        return [found for key in used if isinstance(found := self._features[key], Extracted)]

    def _context(
        self, node: TaskNode, seed: int | None, split: Split, progress: Progress | None = None
    ) -> ProbeContext:
        options: dict[str, Any] = {} if progress is None else {"progress": progress}
        rng = rng_of(node.id, seed)
        return ProbeContext(
            classes=split.classes,
            device=self.encoder.device,
            rng=rng,
            released=partial(self.keys.released, self.keys.probes[node.id].released_part),
            **options,
        )

    def _phase(self, node: TaskNode, what: str, unit: str) -> Any:
        return self.ui.phase(f"{self.keys.source.card.id}: {node.id}: {what}", unit)


def _set_key(node: TaskNode, split: Split) -> SetKey:
    return (split.dataset, split.name, node.policy)


def _which(node: TaskNode, seed: int | None) -> str:
    """`, seed 2 (3 of 3)`: how long a phase takes is a third of the truth."""
    return "" if seed is None else f", seed {seed} ({node.seeds.index(seed) + 1} of {len(node.seeds)})"


def _cost(extracted: Extracted, view: str) -> Cost:
    cost = extracted.costs[view]
    return Cost(
        parameters=cost.parameters,
        flops=cost.flops,
        latency_ms=extracted.latency_ms,
        batch_size=extracted.batch_size if extracted.forwarded else None,
    )


def _with_identity(per_seed: Sequence[Arrays], seeds: Sequence[int | None], split: Split) -> Arrays:
    """The arrays to store: a probe's own names, with `seed N.` before them if there are seeds."""
    arrays: Arrays = {"id": np.array(split.samples.ids), "group": np.array(split.samples.groups)}
    for seed, stats in zip(seeds, per_seed, strict=True):
        prefix = "" if seed is None else f"seed{seed}."
        arrays.update({prefix + name: values for name, values in stats.items()})
    return arrays


@contextmanager
def _clocked(found: Findings, phase: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        found.seconds[phase] = found.seconds.get(phase, 0.0) + time.perf_counter() - began
