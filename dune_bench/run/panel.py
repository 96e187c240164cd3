"""Panels: the predictions of a few samples, drawn.  Plan, features and heads are those of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.errors import BenchError, UnavailableError, UsageError
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.report.format import column_name
from dune_bench.report.panels.shown import Shown, Value, drawer
from dune_bench.results.store import ResultStore, safe_name, write_atomic
from dune_bench.run.data import Data, Split
from dune_bench.run.evaluate import Evaluation
from dune_bench.run.identities import Identities
from dune_bench.run.identity import facts_of, remember
from dune_bench.run.panel_photo import DATASET, NEEDS, SPLIT, Photographs, open_photographs
from dune_bench.run.panel_pick import Chosen, Pick, by_name, by_rank, evenly, ranking, sample_value
from dune_bench.run.plan import Plan, TaskNode, make_plan
from dune_bench.run.probing import make_probe
from dune_bench.run.record import Findings, encoder_info, task_info
from dune_bench.run.released import Released
from dune_bench.run.request import RunRequest
from dune_bench.run.scratch import open_stores
from dune_bench.run.ui import PhaseProgress, RunUI, SilentUI

USE_CAMERA = ("recon3d", "reloc", "hmr")
"""Probes whose predictions depend on the field of view that is assumed for photographs."""


@dataclass(frozen=True)
class PanelRequest:
    """One `dune-bench panel`.

    run: one encoder and its tasks, with a run's options.  samples: how many, or which (ids and globs).
    pick: how so many are chosen, None for `spread` where a result is stored and `even` elsewhere.
    photographs: files to show instead of the data's samples.  fov_deg: their horizontal field of view.
    out: folder of the files, None for `panels` in the runs folder.  folder: that of the encoder in it, None
    for its label.  digest: that of the weights, if pictures of any others would be wrong.
    """

    run: RunRequest
    samples: int | tuple[str, ...] = 4
    pick: Pick | None = None
    photographs: tuple[Path, ...] = ()
    fov_deg: float = 60.0
    out: Path | None = None
    folder: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class PanelOutcome:
    """What became of a task (sample None) or of one of its samples: the files written, or the error."""

    task: str
    sample: str | None
    paths: tuple[Path, ...] = ()
    error: BenchError | None = None


def make_panels(
    request: PanelRequest, ui: RunUI | None = None, registry: Registry | None = None
) -> Iterator[PanelOutcome]:
    """Draws the panels of a request, one after another; each outcome's files are on disk by then.

    Raises UsageError for a request that cannot be meant, UnavailableError if the weights are not those
    of `request.digest`, and what loading the encoder raises.
    """
    ui = ui or SilentUI()
    if len(request.run.encoders) != 1:
        raise UsageError("panels are of one encoder")
    if isinstance(request.samples, int) and request.samples < 1:
        raise UsageError(f"--samples {request.samples}: at least 1, or ids")
    photographs = open_photographs(request.photographs, request.fov_deg) if request.photographs else None
    registry = registry or load_registry(request.run.include)
    plan = make_plan(request.run, registry)
    session = _Session(request, registry, plan, photographs, ui)
    nodes = session.feasible(plan.reported)
    encoder = session.load()
    facts = facts_of(encoder)
    if request.digest not in (None, facts.digest):
        now, wanted = (facts.digest or "none")[:7], str(request.digest)[:7]
        raise UnavailableError(
            f"{encoder.id}: its weights are {now} now, the result is of {wanted}: put those back and draw "
            "again, what is drawn stays"
        )
    keys = _Chosen(
        plan.encoders[0],
        facts,
        request.run,
        Data(request.run, registry),
        {node.id: node for node in plan.tasks},
        {node.id: make_probe(node.card, registry) for node in plan.tasks},
        Released(plan.encoders[0].card, request.run),
    )
    yield from session.drawn(nodes, encoder, keys)


@dataclass(frozen=True)
class _Chosen(Identities):
    """Identities whose tasks are scored on some samples only.  Heads keep their keys: they depend on
    what they are fitted to."""

    splits: dict[str, Split] = field(default_factory=dict)
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def score_split(self, node: TaskNode) -> Split:
        return self.splits.get(node.id) or super().score_split(node)


class _Showing(Evaluation):
    """An evaluation that hands out predictions."""

    def predictions(self, node: TaskNode, split: Split, progress: PhaseProgress) -> Iterator[Any]:
        """Of the split's samples, in their order.  Raises BenchError."""
        seed = node.seeds[0]
        features = self._extracted(node, split).features[self.keys.view(node)]
        head, upstream = self._head(node, seed, split), self._upstream(node, seed, split)
        context = self._context(node, seed, split, progress)
        return iter(self.keys.probes[node.id].predict(features, split.samples, head, upstream, context))


@dataclass(frozen=True)
class _Session:
    """What all panels of a request share."""

    request: PanelRequest
    registry: Registry
    plan: Plan
    photographs: Photographs | None
    ui: RunUI

    def feasible(self, nodes: Sequence[TaskNode]) -> list[TaskNode]:
        """The tasks that the photographs are enough for.  A task that was asked for by name and is not
        raises UsageError."""
        if self.photographs is None:
            return list(nodes)
        kept = []
        for node in nodes:
            needs = NEEDS.get(self.registry.probe(node.card.probe).sample_type, 1)
            if needs <= len(self.photographs.images):
                kept.append(node)
            elif self.request.run.tasks != "all":
                raise UsageError(f"{node.id} needs {needs} images: give --image {needs} times")
            else:
                self.ui.message(f"{node.id}: left out, it needs {needs} images")
        return kept

    def load(self) -> Encoder:
        source, run = self.plan.encoders[0], self.request.run
        if source.instance is not None:
            return source.instance
        self.ui.message(f"{source.card.id}: loading")
        encoder = load_encoder(
            source.card, weights=run.weights, device=run.device, offline=run.offline, registry=self.registry
        )
        remember(source.card, run.weights, encoder, self.registry)
        return encoder

    def drawn(self, nodes: Sequence[TaskNode], encoder: Encoder, keys: _Chosen) -> Iterator[PanelOutcome]:
        todo = []
        for node in nodes:
            try:
                drawer(node.card.probe)  # refused before anything is computed
                self.choose(node, keys)
            except BenchError as error:
                yield PanelOutcome(node.id, None, error=error)
            else:
                todo.append(node)
        if not todo:
            return
        with open_stores(self.request.run, keys.facts, self.ui) as stores:
            showing = _Showing(encoder, keys, stores, self.ui)
            showing.extract(todo)
            for node in todo:
                yield from self.panels(node, showing, keys)

    def choose(self, node: TaskNode, keys: _Chosen) -> None:
        """Puts the samples of a task, and their places, into `keys`."""
        full = keys.score_split(node)
        if self.photographs is not None:
            samples = self.photographs.samples(keys.probes[node.id].sample_type)
            keys.splits[node.id] = Split(DATASET, SPLIT, samples, "", None, full.classes)
            return
        chosen = self._picked(node, keys, full)
        samples = full.samples.subset([one.index for one in chosen])
        keys.splits[node.id] = Split(
            full.dataset, full.name, samples, full.fingerprint, full.limit, full.classes
        )
        keys.places[node.id] = tuple(one.place for one in chosen)

    def _picked(self, node: TaskNode, keys: _Chosen, full: Split) -> list[Chosen]:
        ids, wanted, pick = full.samples.ids, self.request.samples, self.request.pick
        if not isinstance(wanted, int):
            return by_name(ids, wanted)
        if pick is Pick.even:
            return evenly(full.samples.groups, wanted)
        ranked = self._ranking(node, keys)
        if ranked:
            return by_rank(ids, ranked, pick or Pick.spread, wanted)
        if pick is not None:
            raise UnavailableError(
                f"{node.id}: --pick {pick} takes a stored result, there is none in {self.request.run.runs}: "
                f"`dune-bench run` with the same options first, or --pick {Pick.even}"
            )
        self.ui.message(
            f"{node.id}: no stored result of these options and seeds to rank samples by: some of every group"
        )
        return evenly(full.samples.groups, wanted)

    def _ranking(self, node: TaskNode, keys: _Chosen) -> list[str]:
        """From the result of exactly this encoder, task and data; empty if there is none."""
        if keys.facts.digest is None:
            return []
        store, encoder, key = ResultStore(self.request.run.runs), keys.source.card.id, keys.result(node)
        result = store.find(encoder, node.id, key)
        if result is None or result.status != "ok":
            return []
        arrays = store.arrays(store.path(encoder, node.id, key), result)
        return ranking(keys.probes[node.id], arrays, node.card.primary, node.seeds[0])

    def panels(self, node: TaskNode, showing: _Showing, keys: _Chosen) -> Iterator[PanelOutcome]:
        split, outcomes = keys.score_split(node), []
        draw = drawer(node.card.probe)
        # A phase must not be open while a caller handles an outcome: phases do not nest.
        with self.ui.phase(f"{node.id}: drawing", "samples") as progress:
            try:
                predictions = showing.predictions(node, split, progress)
                for index, prediction in enumerate(predictions):
                    shown = self.shown(node, keys, split, index, prediction)
                    panel = draw(shown)
                    paths = self._write(shown, node, keys, panel.png, dict(panel.scenes))
                    outcomes.append(PanelOutcome(node.id, shown.sample.id, paths))
                    progress.update(index + 1, len(split.samples))
            except BenchError as error:
                sample = split.samples.ids[len(outcomes)] if outcomes else None
                outcomes.append(PanelOutcome(node.id, sample, error=error))
        yield from outcomes

    def shown(self, node: TaskNode, keys: _Chosen, split: Split, index: int, prediction: Any) -> Shown:
        """The sample with its prediction and, if it has truth, its own metrics."""
        sample, probe = split.samples[index], keys.probes[node.id]
        values: tuple[Value, ...] = ()
        notes: tuple[str, ...] = ()
        if self.photographs is None:
            stats = {name: np.asarray(value)[None] for name, value in probe.score(prediction, sample).items()}
            specs = sorted(node.card.metrics, key=lambda spec: not spec.primary)
            values = tuple(Value(s.id, sample_value(probe, stats, s.id), s.unit) for s in specs)
        elif node.card.probe in USE_CAMERA:
            notes = (f"assumed field of view {self.request.fov_deg:g}°",)
        encoder, task = _names(node, keys)
        places = keys.places.get(node.id, ("",) * (index + 1))
        return Shown(
            sample=sample,
            prediction=prediction,
            probe=probe,
            encoder=encoder,
            task=task,
            place=places[index],
            values=values,
            classes=split.classes,
            truth=self.photographs is None,
            notes=notes,
        )

    def _write(
        self, shown: Shown, node: TaskNode, keys: _Chosen, png: bytes, scenes: dict[str, bytes]
    ) -> tuple[Path, ...]:
        out = self.request.out or self.request.run.runs / "panels"
        folder = out / (self.request.folder or safe_name(shown.encoder)) / safe_name(shown.task)
        name = safe_name(shown.sample.id)
        files = {folder / f"{name}.png": png}
        files |= {folder / f"{name}.{suffix}": content for suffix, content in scenes.items()}
        for path, content in files.items():
            write_atomic(path, content)
        return tuple(files)


def _names(node: TaskNode, keys: _Chosen) -> tuple[str, str]:
    """Encoder and task as reports print them: with the brand of the weights, and the overrides."""
    info = encoder_info(keys.source, keys.facts, keys.view(node))
    splits = {} if keys.splits[node.id].dataset == DATASET else {"score": keys.splits[node.id]}
    task = column_name(task_info(node, keys, Findings("", splits=splits)))
    plain = info.weights in ("released", "none")
    return info.id + ("" if plain else f" [{info.weights} weights]"), task
