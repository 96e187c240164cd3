"""The keys of one encoder's features, heads and results, for the tasks of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dune_bench.probes.base import Probe
from dune_bench.run.data import Data, Split
from dune_bench.run.identity import EncoderFacts
from dune_bench.run.keys import feature_key, head_key, placeholder_key, result_key
from dune_bench.run.plan import EncoderSource, TaskNode, card_view
from dune_bench.run.released import Released
from dune_bench.run.request import RunRequest


@dataclass(frozen=True)
class Identities:
    """nodes: every task of the plan by id.  probes: their probes.  released: the files with what was
    released with the encoder.

    Every method raises what opening the data raises, `head` and `result` also what `released` raises.
    """

    source: EncoderSource
    facts: EncoderFacts
    request: RunRequest
    data: Data
    nodes: Mapping[str, TaskNode]
    probes: Mapping[str, Probe[Any]]
    released: Released

    def view(self, node: TaskNode) -> str:
        return self.request.view or self._card_view(node)

    def overrides(self, node: TaskNode) -> dict[str, Any]:
        """What the request changed of the task's policy and of the encoder's view for it."""
        changed = dict(node.overrides)
        if self.view(node) != self._card_view(node):
            changed["view"] = self.view(node)
        return changed

    def fit_split(self, node: TaskNode) -> Split | None:
        use = node.card.dataset
        return None if use.fit is None else self.data.split(use.name, use.fit, self._kind(node))

    def score_split(self, node: TaskNode) -> Split:
        use = node.card.dataset
        return self.data.split(use.name, use.score, self._kind(node))

    def upstream(self, node: TaskNode, seed: int | None) -> dict[str, tuple[TaskNode, int | None]]:
        """Role -> the task whose head is an input, and the seed it is fitted with."""
        found = {role: self.nodes[name] for role, name in node.card.requires.items()}
        return {role: (other, other.upstream_seed(seed)) for role, other in found.items()}

    def feature(self, node: TaskNode) -> str:
        return feature_key(self.facts.identity, self.view(node), node.policy)

    def head(self, node: TaskNode, seed: int | None) -> str:
        split, probe = self.fit_split(node), self.probes[node.id]
        return head_key(
            card=node.card,
            feature=self.feature(node),
            split=None if split is None else split.key,
            fit_version=probe.fit_version,
            upstream={role: self.head(*at) for role, at in self.upstream(node, seed).items()},
            seed=seed,
            released=self.released(probe.released_part).sha256 if probe.reads_released else None,
        )

    def result(self, node: TaskNode) -> str:
        return result_key(
            heads=[self.head(node, seed) for seed in node.seeds],
            split=self.score_split(node).key,
            score_version=self.probes[node.id].score_version,
            metrics=node.card.metrics,
            encoder={"id": self.source.card.id, "weights": self.facts.weights},
        )

    def _kind(self, node: TaskNode) -> type:
        return self.probes[node.id].sample_type

    def _card_view(self, node: TaskNode) -> str:
        return card_view(self.source.card, node.card.probe, self.facts.default_view)


def placeholder(source: EncoderSource, node: TaskNode, request: RunRequest) -> str:
    """The key of a result whose encoder could not be loaded."""
    return placeholder_key(
        card=source.card.fingerprint(),
        weights=request.weights,
        task=node.id,
        overrides={**node.overrides, "view": request.view, "limit": request.limit},
    )
