"""One encoder through all tasks of a plan: load, extract, then fit, score and write task by task."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.errors import BenchError, UsageError
from dune_bench.probes.base import Probe
from dune_bench.registry.lookup import Registry
from dune_bench.results.schema import Result
from dune_bench.results.store import Arrays, ResultStore
from dune_bench.run.data import Data
from dune_bench.run.evaluate import Evaluation
from dune_bench.run.identities import Identities, placeholder
from dune_bench.run.identity import EncoderFacts, facts_of, recall, remember, unknown_facts
from dune_bench.run.plan import EncoderSource, Plan, TaskNode
from dune_bench.run.provenance import collect
from dune_bench.run.record import Findings, failed_result, ok_result
from dune_bench.run.released import Released
from dune_bench.run.request import Outcome, RunRequest, code_of
from dune_bench.run.scratch import Stores, open_stores
from dune_bench.run.ui import RunUI


@dataclass(frozen=True)
class RunContext:
    """What all encoders of a run share."""

    request: RunRequest
    registry: Registry
    plan: Plan
    probes: Mapping[str, Probe[Any]]
    data: Data
    results: ResultStore
    ui: RunUI

    @property
    def nodes(self) -> dict[str, TaskNode]:
        return {node.id: node for node in self.plan.tasks}


class EncoderRun:
    """All (encoder, task) of one encoder.  Iterating runs them; each outcome is on disk by then."""

    def __init__(self, source: EncoderSource, context: RunContext) -> None:
        self.source, self.context = source, context
        self.request, self.ui = context.request, context.ui
        self.released = Released(source.card, context.request)

    def __iter__(self) -> Iterator[Outcome]:
        pending = list(self.context.plan.reported)
        recalled = None if self.source.instance or self.request.verify else self._recall()
        if recalled is not None:
            keys = self._identities(recalled)
            for node in list(pending):
                reused = self._reusable(node, keys)
                if reused is not None:
                    pending.remove(node)
                    yield reused
        if pending:
            yield from self._loaded(pending)

    def _loaded(self, pending: Sequence[TaskNode]) -> Iterator[Outcome]:
        began = time.perf_counter()
        try:
            encoder = self._load()
        except BenchError as error:
            for node in pending:
                yield self._unloaded(node, error)
            return
        load_s = time.perf_counter() - began
        keys = self._identities(facts_of(encoder))
        todo = []
        for node in pending:
            reused = self._reusable(node, keys)
            if reused is None:
                todo.append(node)
            else:
                yield reused
        if todo:
            with open_stores(self.request, keys.facts, self.ui) as stores:
                yield from self._evaluated(todo, encoder, keys, stores, load_s)

    def _evaluated(
        self, todo: Sequence[TaskNode], encoder: Encoder, keys: Identities, stores: Stores, load_s: float
    ) -> Iterator[Outcome]:
        evaluation = Evaluation(encoder, keys, stores, self.ui)
        evaluation.extract(todo)
        for node in todo:
            found = Findings(self._key(node, keys), {"load": load_s})
            provenance = collect(str(encoder.device), torch.get_num_threads())
            arrays: Arrays | None = None
            failure: BenchError | None = None
            try:
                arrays = evaluation.run(node, found)
                result = ok_result(node, keys, found, provenance)
            except BenchError as error:
                failure = error
                result = failed_result(node, keys, found, provenance, error)
            yield self._write(node, result, arrays if failure is None else None, failure)

    def _load(self) -> Encoder:
        request, card = self.request, self.source.card
        if self.source.instance is not None:
            return self.source.instance
        self.ui.message(f"{card.id}: loading")
        encoder = load_encoder(
            card,
            weights=request.weights,
            device=request.device,
            offline=request.offline,
            registry=self.context.registry,
        )
        remember(card, request.weights, encoder, self.context.registry)
        return encoder

    def _recall(self) -> EncoderFacts | None:
        return recall(self.source.card, self.request.weights)

    def _identities(self, facts: EncoderFacts) -> Identities:
        context = self.context
        return Identities(
            self.source, facts, self.request, context.data, context.nodes, context.probes, self.released
        )

    def _key(self, node: TaskNode, keys: Identities) -> str:
        """The result key; the placeholder's if the data is not there to make one."""
        try:
            return keys.result(node)
        except BenchError:
            return placeholder(self.source, node, self.request)

    def _reusable(self, node: TaskNode, keys: Identities) -> Outcome | None:
        """The finished result of an earlier run, if it stands for exactly this one."""
        if self.request.fresh or keys.facts.digest is None:
            return None
        try:
            key = keys.result(node)
        except BenchError:
            return None  # evaluating it will say why
        store = self.context.results
        result = store.find(self.source.card.id, node.id, key)
        if result is None or result.status != "ok":
            return None
        self._drop_placeholder(node, key)
        return Outcome(
            self.source.card.id, node.id, result, store.path(self.source.card.id, node.id, key), reused=True
        )

    def _unloaded(self, node: TaskNode, error: BenchError) -> Outcome:
        """The outcome of a task whose encoder could not be loaded."""
        keys = self._identities(unknown_facts(self.source.card, self.request.weights))
        found = Findings(placeholder(self.source, node, self.request))
        with suppress(BenchError):  # that the data is not here either is not what to report
            found.splits["score"] = keys.score_split(node)
            if (fit := keys.fit_split(node)) is not None:
                found.splits["fit"] = fit
        provenance = collect(self.request.device, torch.get_num_threads())
        return self._write(node, failed_result(node, keys, found, provenance, error), None, error)

    def _write(
        self, node: TaskNode, result: Result, arrays: Arrays | None, error: BenchError | None
    ) -> Outcome:
        """Writes the result; a failure does not replace a good result of the same identity, and the
        user's mistake is no result at all."""
        store, name = self.context.results, self.source.card.id
        path = store.path(name, node.id, result.key)
        if isinstance(error, UsageError):
            return Outcome(name, node.id, result, path, code=error.exit_code, written=False)
        identified = result.status != "ok" and result.encoder.digest is not None
        earlier = store.find(name, node.id, result.key) if identified else None
        if earlier is None or earlier.status != "ok":
            path = store.write(result, arrays)
            result = store.read(path)
        self._drop_placeholder(node, result.key)
        return Outcome(name, node.id, result, path, code=code_of(result, error))

    def _drop_placeholder(self, node: TaskNode, key: str) -> None:
        """Once a task has a result of its own, what stood for it while the encoder was missing goes."""
        stand_in = placeholder(self.source, node, self.request)
        if key != stand_in:
            Path(self.context.results.path(self.source.card.id, node.id, stand_in)).unlink(missing_ok=True)
