"""The probe contract: fit on frozen features, predict, score per sample, reduce with weights.

A probe never sees the encoder and does no I/O; progress, randomness, device and memory budget come
with the context.  `score` leaves sufficient statistics of each sample; `reduce` turns them into
metrics for many weightings of the samples at once, so that a bootstrap is one call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dune_bench.data.base import Lazy
from dune_bench.data.samples import Sample
from dune_bench.encoders.base import Features
from dune_bench.encoders.weights import ReleasedPart

P = TypeVar("P", bound="ProtocolConstants")


class ProtocolConstants(BaseModel):
    """Base of a protocol's constants: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureSource(ABC):
    """Features of a set of images in one view: streamed, re-iterable, read-only.

    dim: C.  grid: (h, w).  image_size: (height, width) at network size, without padding.  padding:
    see `Features`.  All images of a source share them.
    """

    dim: int
    grid: tuple[int, int]
    image_size: tuple[int, int]
    padding: tuple[int, int, int, int]

    @abstractmethod
    def batches(self, image_ids: Sequence[str], max_bytes: int) -> Iterator[tuple[slice, Features]]:
        """Consecutive batches in the order of `image_ids`, each of at most `max_bytes` (at least one
        image), with the slice of `image_ids` it covers.  patch is float32 (B, C, h, w) and a
        channels-last view: `patch.permute(0, 2, 3, 1)` is contiguous."""

    def one(self, image_id: str) -> Features:
        """Features of one image, B = 1."""
        return next(iter(self.batches([image_id], 0)))[1]


@dataclass(frozen=True)
class Head:
    """What a probe fitted.  tensors: CPU tensors by name.  choices: JSON-able facts of the solver
    (λ, iterations, convergence), copied into the result."""

    tensors: dict[str, Tensor]
    choices: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Upstream:
    """A head that another task fitted, with what it takes to use it on the samples at hand.

    probe: that task's, made with its protocol.  features: of the images of the split at hand, in
    that task's view and at its input policy.
    """

    probe: Probe[Any]
    head: Head
    features: FeatureSource


class Progress(Protocol):
    """Where a probe says how far it is."""

    def update(self, done: float, total: float, note: str = "") -> None: ...


class SilentProgress:
    """Progress that nobody watches."""

    def update(self, done: float, total: float, note: str = "") -> None:
        del done, total, note


@dataclass(frozen=True)
class ReleasedFile:
    """A file with a head that was released with an encoder.  sha256: of its bytes, hex."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class ProbeContext:
    """What a probe may use beside its arguments.

    classes: names of the dataset's labels.  chunk_bytes: budget of one block of features in memory.
    rng: seeded generator of this (task, seed).  training: folder of this one fit, where a long one
    leaves what it takes to go on after an interruption; None: it starts anew.  released: gives the file
    with the head released with the encoder at hand, or raises UnavailableError; None: nobody can.
    """

    classes: tuple[str, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    chunk_bytes: int = 64 * 2**20
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    progress: Progress = field(default_factory=SilentProgress)
    training: Path | None = None
    released: Callable[[], ReleasedFile] | None = None


@dataclass(frozen=True)
class Breakdown:
    """A metric per key, such as IoU per class.  value is None where it is undefined (absent class)."""

    metric: str
    by: str
    values: dict[str, float | None]


Stats = Mapping[str, NDArray[Any]]
"""Per-sample statistics: arrays of equal leading length n (one row a sample)."""


class Probe(ABC, Generic[P]):
    """One kind of evaluation.  Made with the constants of one protocol."""

    name: ClassVar[str]
    sample_type: ClassVar[type]
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]]
    """Protocol name without version -> its constants; `convex@1` and `convex@2` share a class."""
    score_version: ClassVar[int]
    """Bumped whenever score or reduce may give other numbers: part of the result's identity."""
    fit_version: ClassVar[int]
    """Bumped whenever fit may give another head."""
    released_part: ClassVar[ReleasedPart] = "decoders"
    """What a head that is only read is, if `reads_released`."""

    def __init__(self, protocol: P) -> None:
        self.protocol = protocol

    @property
    def reads_released(self) -> bool:
        """Whether `fit` only reads the head released with the encoder (`ProbeContext.released`).  It is then
        called before anything is forwarded: without samples, and with what features look like alone."""
        return False

    def check_released(self, file: ReleasedFile) -> None:
        """Called before anything is forwarded: raises what `fit` would raise, later, for a file that holds
        no such head.  Whether it fits the encoder's features is seen in `fit`."""
        del file

    @abstractmethod
    def fit(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Head:
        """Fits on the training split.  Raises TaskError if there is no solution."""

    @abstractmethod
    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[Any]:
        """Predictions in the samples' order, one a sample, streamed."""

    @abstractmethod
    def score(self, prediction: Any, sample: Sample) -> dict[str, NDArray[Any]]:
        """Sufficient statistics of one sample; the same keys, shapes and dtypes for each sample.
        A failed sample has the key `failed` true and counts as the protocol says."""

    @abstractmethod
    def reduce(self, stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Metrics under R weightings.  weights: (R, n) multiplicities.  Returns (R,) arrays; NaN
        where a metric is undefined.  Sets that a metric runs over (classes) come from all n rows,
        whatever the weights."""

    def breakdowns(self, stats: Stats, ctx: ProbeContext) -> list[Breakdown]:
        """Details for reports, computed from all samples."""
        del stats, ctx
        return []
