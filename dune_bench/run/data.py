"""The splits of a run's datasets, opened once and shared by all encoders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dune_bench.data.base import Dataset, Lazy, limit_groups
from dune_bench.data.samples import ImageRef
from dune_bench.errors import BenchError, TaskError
from dune_bench.registry.lookup import Registry
from dune_bench.run.keys import split_key
from dune_bench.run.request import RunRequest


@dataclass(frozen=True)
class Split:
    """Samples of one kind.  limit: the request's if it left something out, else None."""

    dataset: str
    name: str
    samples: Lazy[Any]
    fingerprint: str
    limit: int | None
    classes: tuple[str, ...]

    @property
    def key(self) -> dict[str, Any]:
        return split_key(self.dataset, self.name, self.fingerprint, self.limit)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Every image of the samples, in their order, each id once."""
        refs = (ref for i in range(len(self.samples)) for ref in self.samples.images(i))
        return tuple({ref.id: ref for ref in refs}.values())

    @property
    def groups(self) -> int:
        return len(set(self.samples.groups))


@dataclass
class Data:
    """Opens datasets and splits when they are first asked for.

    Raises what the dataset raises (UnavailableError if it is not on this machine).
    """

    request: RunRequest
    registry: Registry
    _datasets: dict[str, Dataset | BenchError] = field(default_factory=dict)
    _splits: dict[tuple[str, str, type], Split] = field(default_factory=dict)

    def dataset(self, name: str) -> Dataset:
        if name not in self._datasets:
            try:
                self._datasets[name] = self._opened(name)
            except BenchError as error:
                self._datasets[name] = error
        found = self._datasets[name]
        if isinstance(found, BenchError):
            raise found
        return found

    def _opened(self, name: str) -> Dataset:
        dataset: Dataset = self.registry.dataset(name)(name, root=self.request.data)
        if self.request.verify and (problems := dataset.verify()):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise TaskError(f"dataset {name} does not verify: {problems[0]}{more}: prepare it again")
        return dataset

    def split(self, name: str, split: str, kind: type) -> Split:
        """The samples of a split under the request's limit.  Raises TaskError if there are none."""
        at = (name, split, kind)
        if at not in self._splits:
            dataset = self.dataset(name)
            full = dataset.samples(kind, split)
            samples = limit_groups(full, self.request.limit)
            if not len(samples):
                raise TaskError(f"dataset {name}: split {split!r} has no {kind.__name__}")
            limit = self.request.limit if len(samples) < len(full) else None
            fingerprint = dataset.fingerprint(split)
            self._splits[at] = Split(name, split, samples, fingerprint, limit, dataset.classes)
        return self._splits[at]
