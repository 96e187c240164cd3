"""What is to be done: encoders, tasks with their overrides, and the tasks whose heads they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dune_bench.errors import UsageError
from dune_bench.registry.cards import EncoderCard, InputPolicy, TaskCard
from dune_bench.registry.lookup import Registry
from dune_bench.run.request import RunRequest

if TYPE_CHECKING:
    from dune_bench.encoders.base import Encoder


@dataclass(frozen=True)
class TaskNode:
    """A task of the plan.

    policy: the card's, with the request's overrides.  overrides: those that changed it.  seeds: fit
    seeds, (None,) for a deterministic protocol.  reported: False if only its head is needed.
    """

    card: TaskCard
    policy: InputPolicy
    overrides: Mapping[str, Any]
    seeds: tuple[int | None, ...]
    reported: bool

    @property
    def id(self) -> str:
        return self.card.id

    def upstream_seed(self, seed: int | None) -> int | None:
        """The seed of this task's head that a consumer fitted with `seed` takes: the same one if
        there is such a head, else the first."""
        return seed if seed in self.seeds else self.seeds[0]


@dataclass(frozen=True)
class EncoderSource:
    """An encoder to evaluate: a card to load, or an object that the caller made."""

    card: EncoderCard
    instance: Encoder | None = None


@dataclass(frozen=True)
class Plan:
    """encoders: in the order of the request.  tasks: every task after those it requires."""

    encoders: tuple[EncoderSource, ...]
    tasks: tuple[TaskNode, ...]

    @property
    def reported(self) -> tuple[TaskNode, ...]:
        return tuple(node for node in self.tasks if node.reported)


def make_plan(request: RunRequest, registry: Registry) -> Plan:
    """Raises UsageError for an unknown encoder or task, a circle of requirements, a wrong option."""
    _check_options(request)
    encoders = tuple(_encoder(entry, registry) for entry in dict.fromkeys(request.encoders))
    ids = [source.card.id for source in encoders]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UsageError(
            f"two encoders are called {twice[0]!r}: rename one, results could not tell them apart"
        )
    if not encoders:
        raise UsageError("no encoder: name at least one with --encoder")
    if request.weights not in ("auto", "random") and len(encoders) > 1:
        raise UsageError(f"--weights {request.weights} goes with one --encoder, {len(encoders)} are named")
    selected = registry.select_tasks(request.tasks, request.suite)
    return Plan(encoders, _ordered(selected, request, registry))


def _check_options(request: RunRequest) -> None:
    if request.limit is not None and request.limit < 1:
        raise UsageError(f"--limit {request.limit}: at least 1")
    if request.resolution is not None and request.resolution < 1:
        raise UsageError(f"--resolution {request.resolution}: at least 1 pixel")
    if request.batch_size != "auto" and request.batch_size < 1:
        raise UsageError(f"--batch-size {request.batch_size}: at least 1, or auto")
    if request.seeds is not None and (not request.seeds or len(set(request.seeds)) < len(request.seeds)):
        raise UsageError("--seeds: name at least one seed, each once")
    if request.dtype not in (None, "float32", "bfloat16"):
        raise UsageError(f"--dtype {request.dtype}: float32 or bfloat16")
    if request.weights not in ("auto", "random") and not Path(request.weights).expanduser().is_file():
        raise UsageError(f"--weights {request.weights}: no such file (or write auto, or random)")


def _encoder(entry: str | Encoder, registry: Registry) -> EncoderSource:
    if isinstance(entry, str):
        return EncoderSource(registry.encoder(entry))
    return EncoderSource(EncoderCard(id=entry.id, kind="object", views={}), entry)


def _ordered(selected: Sequence[TaskCard], request: RunRequest, registry: Registry) -> tuple[TaskNode, ...]:
    """Depth first: the selected tasks in their order, each after what it requires."""
    wanted = {card.id for card in selected}
    nodes: dict[str, TaskNode] = {}

    def visit(card: TaskCard, path: tuple[str, ...]) -> None:
        if card.id in path:
            circle = " -> ".join([*path[path.index(card.id) :], card.id])
            raise UsageError(f"tasks require each other in a circle: {circle}: mend their cards")
        if card.id in nodes:
            return
        for role, name in sorted(card.requires.items()):
            try:
                upstream = registry.task(name)
            except UsageError as error:
                origin = registry.origins.get(card.id, card.id)
                raise UsageError(f"{origin}: requires.{role}: {error}") from error
            visit(upstream, (*path, card.id))
        nodes[card.id] = _node(card, request, card.id in wanted)

    for card in selected:
        visit(card, ())
    return tuple(nodes.values())


def _node(card: TaskCard, request: RunRequest, reported: bool) -> TaskNode:
    policy = card.input
    overrides: dict[str, Any] = {}
    if request.resolution not in (None, policy.resolution):
        overrides["resolution"] = request.resolution
        policy = InputPolicy(resolution=request.resolution, resize="stretch", dtype=policy.dtype)
    if request.dtype not in (None, policy.dtype):
        overrides["dtype"] = request.dtype
        policy = InputPolicy(resolution=policy.resolution, resize=policy.resize, dtype=request.dtype)
    seeds: tuple[int | None, ...] = (None,)
    if card.seeds:
        seeds = tuple(request.seeds or card.seeds)
        if seeds != tuple(card.seeds):
            overrides["seeds"] = list(seeds)
    return TaskNode(card, policy, overrides, seeds, reported)


def card_view(card: EncoderCard, probe: str, default: str) -> str:
    """The view without overrides.  A card that names none leaves it to the adapter."""
    views = card.views if "views" in card.model_fields_set else {}
    return views.get(probe) or views.get("default") or default
