"""From a task card to a probe, and from a probe's output to checked arrays."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import Sample
from dune_bench.errors import TaskError, UsageError
from dune_bench.probes.base import Probe, Progress
from dune_bench.registry.cards import TaskCard, parse_card
from dune_bench.registry.lookup import Registry
from dune_bench.registry.suggest import did_you_mean

RESERVED = ("id", "group")
"""Names that every file of per-sample statistics has beside the probe's own."""

AnyProbe = Probe[Any]
Arrays = dict[str, NDArray[Any]]


def make_probe(card: TaskCard, registry: Registry) -> AnyProbe:
    """The probe of a task with its protocol's constants.  Raises UsageError naming card and key."""
    probe: type[AnyProbe] = registry.probe(card.probe)
    origin = registry.origins.get(card.id, card.id)
    name = card.protocol_name.partition("@")[0]
    if name not in probe.protocols:
        raise UsageError(
            f"{origin}: probe {card.probe} has no protocol {name!r}{did_you_mean(name, probe.protocols)}"
        )
    constants = parse_card(card.protocol, cast(Any, probe.protocols[name]), f"{origin}: protocol")
    return probe(constants)


def rng_of(task: str, seed: int | None) -> np.random.Generator:
    """The generator of a (task, seed): other tasks of a run do not move it."""
    return np.random.default_rng([0 if seed is None else seed, zlib.crc32(task.encode())])


def score_all(
    probe: AnyProbe, predictions: Iterable[Any], samples: Sequence[Sample], progress: Progress
) -> Arrays:
    """Statistics of every sample, stacked: arrays (n, …).  One prediction and one sample live at a time.

    Raises TaskError if a sample has no prediction, or statistics of another shape than the first.
    """
    columns: dict[str, list[NDArray[Any]]] = {}
    stream = iter(predictions)
    for index, sample in enumerate(samples):
        try:
            prediction = next(stream)
        except StopIteration:
            raise TaskError(f"probe {probe.name} predicted {index} of {len(samples)} samples") from None
        stats = {name: np.asarray(value) for name, value in probe.score(prediction, sample).items()}
        if index == 0:
            columns = {name: [] for name in stats}
        _check_row(probe, sample.id, stats, columns)
        for name, value in stats.items():
            columns[name].append(value)
        progress.update(index + 1, len(samples))
    return {name: np.stack(values) for name, values in columns.items()}


def _check_row(
    probe: AnyProbe, sample: str, stats: Mapping[str, NDArray[Any]], columns: Mapping[str, list[NDArray[Any]]]
) -> None:
    if clash := [name for name in RESERVED if name in stats]:
        raise TaskError(f"probe {probe.name}: a statistic may not be called {clash[0]!r}")
    if stats.keys() != columns.keys():
        raise TaskError(
            f"probe {probe.name}: sample {sample} has statistics {sorted(stats)}, not {sorted(columns)}"
        )
    for name, value in stats.items():
        first = columns[name][0] if columns[name] else value
        if value.shape != first.shape or value.dtype != first.dtype:
            raise TaskError(
                f"probe {probe.name}: statistic {name!r} of sample {sample} is {value.dtype} {value.shape}, "
                f"of the first sample {first.dtype} {first.shape}"
            )
