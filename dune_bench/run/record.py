"""Results made from what a run found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from dune_bench.errors import BenchError, TaskError, UnavailableError, first_problem
from dune_bench.results.schema import (
    BreakdownResult,
    Cost,
    EncoderInfo,
    Metric,
    Provenance,
    Result,
    Status,
    TaskInfo,
    Timings,
)
from dune_bench.run.data import Split
from dune_bench.run.identities import Identities
from dune_bench.run.identity import EncoderFacts
from dune_bench.run.plan import EncoderSource, TaskNode
from dune_bench.run.provenance import peak_memory_bytes


@dataclass
class Findings:
    """What was found of one (encoder, task), also when it then failed."""

    key: str
    seconds: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    metrics: tuple[Metric, ...] = ()
    breakdowns: tuple[BreakdownResult, ...] = ()
    choices: dict[str, Any] = field(default_factory=dict)
    upstream: dict[str, str] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    """Role (`fit`, `score`) -> split."""


def encoder_info(source: EncoderSource, facts: EncoderFacts, view: str) -> EncoderInfo:
    card = source.card
    return EncoderInfo(
        id=card.id,
        weights=facts.weights,
        digest=facts.digest,
        adapter=facts.adapter,
        view=view,
        card_fingerprint=card.fingerprint(),
        trained_on=card.trained_on,
        teachers=card.teachers,
    )


def task_info(node: TaskNode, keys: Identities, found: Findings) -> TaskInfo:
    """What stands in a result about its task.  Without its data nobody knows whether a limit leaves
    anything out; then it is taken as asked."""
    splits = {split.name: split for split in found.splits.values()}
    limits = {split.limit for split in splits.values()} - {None} if splits else {keys.request.limit}
    return TaskInfo(
        id=node.id,
        probe=node.card.probe,
        dataset=node.card.dataset.name,
        protocol=node.card.protocol_name,
        protocol_fingerprint=node.card.protocol_fingerprint(),
        input=node.policy.model_dump(mode="json"),
        overrides=keys.overrides(node),
        dataset_fingerprints={name: split.fingerprint for name, split in splits.items()},
        split_sizes={name: len(split.samples) for name, split in splits.items()},
        groups={name: split.groups for name, split in splits.items()},
        limited=limits.pop() if limits else None,
        score_version=keys.probes[node.id].score_version,
        upstream=found.upstream,
    )


def ok_result(node: TaskNode, keys: Identities, found: Findings, provenance: Provenance) -> Result:
    """The result of a task that went well."""
    return _result("ok", None, node, keys, found, provenance)


def failed_result(
    node: TaskNode, keys: Identities, found: Findings, provenance: Provenance, error: BenchError
) -> Result:
    """The result of a task that failed, or whose encoder or data is not here."""
    return _result(status_of(error), str(error), node, keys, found, provenance)


def status_of(error: BenchError) -> Status:
    return "unavailable" if isinstance(error, UnavailableError) else "failed"


def _result(
    status: Status,
    error: str | None,
    node: TaskNode,
    keys: Identities,
    found: Findings,
    provenance: Provenance,
) -> Result:
    info = encoder_info(keys.source, keys.facts, keys.view(node))
    try:
        return Result(
            key=found.key,
            status=status,
            error=error,
            encoder=info,
            task=task_info(node, keys, found),
            metrics=found.metrics if status == "ok" else (),
            breakdowns=found.breakdowns if status == "ok" else (),
            choices=found.choices,
            seeds=tuple(seed for seed in node.seeds if seed is not None),
            provenance=provenance,
            timings=Timings(seconds=found.seconds, peak_memory_bytes=peak_memory_bytes()),
            cost=found.cost,
        )
    except ValidationError as problem:
        reason = " ".join(first_problem(problem, "result").split())
        raise TaskError(f"{node.id}: the probe's numbers do not make a result: {reason}") from problem
