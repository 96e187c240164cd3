"""A tiny dataset, probe and encoders, so that the run engine is tested without real ones."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dune_bench.data.base import Dataset, Lazy, LazyItem
from dune_bench.data.samples import DepthSample, ImageRef
from dune_bench.encoders.adapter import Adapter
from dune_bench.encoders.base import Encoder, Tokens
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.probes.base import (
    FeatureSource,
    Head,
    Probe,
    ProbeContext,
    ProtocolConstants,
    Stats,
    Upstream,
)
from dune_bench.registry.cards import (
    DatasetUse,
    EncoderCard,
    InputPolicy,
    MetricSpec,
    TaskCard,
)
from dune_bench.registry.lookup import Registry

SIDE = 32
GROUPS = {"train": 6, "test": 12}
VIEWS = 4


def pixels_of(split: str, group: int, view: int) -> NDArray[np.uint8]:
    """A smooth picture whose brightness the depth follows."""
    rng = np.random.default_rng([len(split), group, view])
    base = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.ascontiguousarray(base.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1))


class Blocks(Dataset):
    """`blocks@1`: 6 + 12 rooms of 4 views; depth is a function of the colours.

    Class attributes let a test break it: `corrupt` (an image id), `missing` (not on this machine).
    """

    licence = "none"
    splits = ("train", "test")
    classes = ("a", "b")
    corrupt: ClassVar[str | None] = None
    missing: ClassVar[bool] = False
    problems: ClassVar[list[str]] = []
    content: ClassVar[str] = "1"
    decoded: ClassVar[list[str]] = []

    def __init__(self, name: str, root: Path | None = None) -> None:
        if self.missing:
            raise UnavailableError(f"dataset {name} is not here: prepare it")
        self.name, self.root = name, root

    def fingerprint(self, split: str) -> str:
        return hashlib.sha256(f"{self.name} {split} {self.content}".encode()).hexdigest()

    def samples(self, kind: type, split: str) -> Lazy[Any]:
        if kind is not DepthSample or split not in GROUPS:
            raise UsageError(f"{self.name} has no {kind.__name__} in split {split!r}")
        return Lazy([_item(split, group, view) for group in range(GROUPS[split]) for view in range(VIEWS)])

    def verify(self) -> list[str]:
        return self.problems


def _item(split: str, group: int, view: int) -> LazyItem[DepthSample]:
    name = f"{split}{group}/{view}"
    digest = hashlib.sha256(pixels_of(split, group, view).tobytes()).hexdigest()
    ref = ImageRef(name, digest, (SIDE, SIDE), functools.partial(_read, name, split, group, view))
    load = functools.partial(_sample, ref, split, group, view)
    return LazyItem(name, f"{split}{group}", (ref,), load)


def _read(name: str, split: str, group: int, view: int) -> NDArray[np.uint8]:
    if name == Blocks.corrupt:
        raise TaskError(f"{name}: damaged image (test)")
    Blocks.decoded.append(name)
    return pixels_of(split, group, view)


def _sample(ref: ImageRef, split: str, group: int, view: int) -> DepthSample:
    pixels = pixels_of(split, group, view).astype(np.float32) / 255
    depth = 1 + pixels @ np.array([0.5, 0.3, 0.2], np.float32)
    return DepthSample(ref.id, f"{split}{group}", ref, depth.astype(np.float32), np.eye(3))


class LineConstants(ProtocolConstants):
    ridge: float = 1e-3
    noise: float = 0.0
    fail: bool = False


class LineProbe(Probe[LineConstants]):
    """Ridge from an image's mean feature to its mean depth; an upstream head is one more column."""

    name = "line"
    sample_type = DepthSample
    protocols: ClassVar[Mapping[str, type[ProtocolConstants]]] = {"convex": LineConstants}
    score_version = 1
    fit_version = 1
    fits: ClassVar[list[str]] = []
    upstream_grids: ClassVar[list[tuple[tuple[int, int], tuple[int, ...]]]] = []
    """Grid, and shape of the image means, of the features that upstream heads came with, per call."""

    def fit(
        self, features: FeatureSource, samples: Lazy[Any], upstream: Mapping[str, Upstream], ctx: ProbeContext
    ) -> Head:
        if self.protocol.fail:
            raise TaskError("no solution (test)")
        LineProbe.fits.append(str(self.protocol.ridge))
        x = self._design(features, samples, upstream)
        y = np.array([sample.depth.mean() for sample in samples], np.float64)
        gram = x.T @ x + self.protocol.ridge * np.eye(x.shape[1])
        w = np.linalg.solve(gram, x.T @ y) + self.protocol.noise * ctx.rng.standard_normal(x.shape[1])
        ctx.progress.update(1, 1)
        return Head({"w": torch.from_numpy(w)}, {"ridge": self.protocol.ridge})

    def predict(
        self,
        features: FeatureSource,
        samples: Lazy[Any],
        head: Head,
        upstream: Mapping[str, Upstream],
        ctx: ProbeContext,
    ) -> Iterator[float]:
        yield from (self._design(features, samples, upstream) @ head.tensors["w"].numpy()).tolist()

    def score(self, prediction: float, sample: Any) -> dict[str, NDArray[Any]]:
        return {"se": np.asarray((prediction - float(sample.depth.mean())) ** 2)}

    def reduce(self, stats: Stats, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        mse = weights @ stats["se"] / weights.sum(1)
        return {"rmse_m": np.sqrt(mse), "mse": mse, "nothing": np.full(len(weights), np.nan)}

    def _design(
        self, features: FeatureSource, samples: Lazy[Any], upstream: Mapping[str, Upstream]
    ) -> NDArray[np.float64]:
        ids = [samples.images(i)[0].id for i in range(len(samples))]
        x = _means(features, ids)
        extra = []
        for other in upstream.values():
            LineProbe.upstream_grids.append((other.features.grid, _means(other.features, ids).shape))
            extra.append(np.full((len(x), 1), float(other.head.tensors["w"].sum())))
        return np.concatenate([x, np.ones((len(x), 1)), *extra], axis=1)


def _means(features: FeatureSource, ids: Sequence[str]) -> NDArray[np.float64]:
    means = [f.patch.double().mean((2, 3)).numpy() for _, f in features.batches(ids, 2**16)]
    return np.concatenate(means)


class ToyEncoder(Encoder):
    """Patch mean colours times a fixed matrix.  Test hooks: `broken` (`nan`, `shape`, `crash`, `oom`),
    `forwards` (batch sizes seen)."""

    adapter = "toy@1"
    patch_size = 8
    dim = 6
    depth = 2
    teachers = ("big",)

    def __init__(
        self, id: str = "toy", digest: str | None = "d1", broken: str = "", scale: float = 1.0
    ) -> None:
        self.id, self.weights_digest, self.broken, self.scale = id, digest, broken, scale
        self.forwards: list[int] = []
        self.views_seen: list[tuple[str, ...]] = []

    def _forward(self, normalised: Tensor, views: Sequence[str]) -> Mapping[str, Tokens]:
        batch = len(normalised)
        if self.broken == "crash":
            raise ValueError("my own bug")
        if self.broken == "oom" and batch > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        self.forwards.append(batch)
        self.views_seen.append(tuple(views))
        means = torch.nn.functional.avg_pool2d(normalised, self.patch_size)
        patch = torch.cat([means, means**2], dim=1) * self.scale
        if self.broken == "nan":
            patch = patch * float("nan")
        if self.broken == "shape":
            patch = patch[:, :, :-1]
        return {view: (patch + i, patch.mean((2, 3))) for i, view in enumerate(sorted(views))}


def line_card(version: int = 1, **changes: Any) -> TaskCard:
    """A task `line/blocks/convex@N`."""
    content: dict[str, Any] = {
        "id": f"line/blocks/convex@{version}",
        "suites": ("mini",),
        "probe": "line",
        "dataset": DatasetUse(name="blocks@1", fit="train", score="test"),
        "input": InputPolicy(resolution=16),
        "metrics": (
            MetricSpec(id="rmse_m", unit="m", higher_is_better=False, primary=True),
            MetricSpec(id="mse", unit="1", higher_is_better=False),
        ),
    }
    return TaskCard(**{**content, **changes})


def fake_registry(*cards: TaskCard) -> Registry:
    """A registry of the fakes, the real adapters, and these cards."""
    registry = Registry(suites={"mini": "tests"})
    registry.probes["line"] = f"{__name__}:LineProbe"
    registry.datasets["blocks@1"] = f"{__name__}:Blocks"
    for card in cards or (line_card(),):
        registry.add_task(card, "test")
    registry.add_encoder(EncoderCard(id="pixels", kind="pixels", views={"default": "raw"}), "test")
    return registry


def reset() -> None:
    """Undoes what a test did to the classes."""
    Blocks.corrupt, Blocks.missing, Blocks.problems, Blocks.content = None, False, [], "1"
    Blocks.decoded.clear()
    LineProbe.fits.clear()
    LineProbe.upstream_grids.clear()


class ToyAdapter(Adapter):
    """Stands for an adapter that needs weights; gives the encoder that the test made."""

    made: ClassVar[ToyEncoder | None] = None

    @classmethod
    def read(cls, path: Path) -> dict[str, Tensor]:
        return {"w": torch.zeros(1)}

    @classmethod
    def from_card(cls, card: EncoderCard, state: dict[str, Tensor] | None) -> Encoder:
        assert cls.made is not None
        return cls.made
