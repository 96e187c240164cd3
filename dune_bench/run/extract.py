"""Extraction: every image of a set once through the encoder, all views at a time, into the cache."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from dune_bench.data.samples import ImageRef
from dune_bench.encoders.base import Encoder
from dune_bench.errors import TaskError
from dune_bench.registry.cards import InputPolicy
from dune_bench.run.cache import Entry, FeatureCache, Row, budget, human
from dune_bench.run.chunks import Chunk, ChunkWriter, Layout
from dune_bench.run.features import CHUNK_IMAGES, MappedFeatures
from dune_bench.run.forward import ForwardCost, Forwarder, measure
from dune_bench.run.inputs import network_size, prefetched, to_batch
from dune_bench.run.keys import feature_key
from dune_bench.run.ui import PhaseProgress, RunUI


@dataclass(frozen=True)
class ImageSet:
    """Images that are forwarded together.  name: for messages.  images: in the split's order, no id
    twice.  views: what is wanted of each image."""

    name: str
    images: tuple[ImageRef, ...]
    views: tuple[str, ...]
    policy: InputPolicy

    @property
    def chunks(self) -> list[tuple[ImageRef, ...]]:
        """Fixed groups of consecutive images, each content once; the images' order alone decides."""
        unique = tuple({image.digest: image for image in reversed(self.images)}.values())[::-1]
        return [unique[i : i + CHUNK_IMAGES] for i in range(0, len(unique), CHUNK_IMAGES)]


@dataclass(frozen=True)
class Extracted:
    """Features of an image set by view, and what they cost."""

    features: dict[str, MappedFeatures]
    costs: dict[str, ForwardCost]
    seconds: float
    latency_ms: float | None
    batch_size: int
    forwarded: int


@dataclass
class Extractor:
    """Extraction for one encoder (already on its device and in its precision).

    batch_size: images per forward, at most.  fresh: nothing cached is used.  in_use: cache entries
    that must not be evicted, shared by all sets of the encoder.
    """

    encoder: Encoder
    cache: FeatureCache
    ui: RunUI
    batch_size: int
    fresh: bool = False
    in_use: set[Path] = field(default_factory=set)
    _known: dict[tuple[str, tuple[int, int], str], tuple[ForwardCost, Layout]] = field(default_factory=dict)

    def run(self, images: ImageSet) -> Extracted:
        """Features of every image in every view.  Raises TaskError; finished chunks stay."""
        began = time.perf_counter()
        for view in images.views:
            self.encoder.check_view(view)
        size = self._size(images)
        measured = {view: self._measured(view, size) for view in images.views}
        targets = {view: self._target(view, images, layout) for view, (_, layout) in measured.items()}
        work = _missing(images, targets)
        forward = Forwarder(self.encoder, self.batch_size, self.ui.warning)
        if work:
            self._reserve(images.name, work, targets)
            with self.ui.phase(f"{self.encoder.id}: {images.name}: features", "images") as progress:
                self._compute(images, work, targets, forward, progress)
        self.batch_size = forward.batch_size
        features = {
            view: MappedFeatures({image.id: target.rows[image.digest] for image in images.images})
            for view, target in targets.items()
        }
        forwarded = sum(len(chunk) for chunk in work)
        seconds = time.perf_counter() - began
        costs = {view: cost for view, (cost, _) in measured.items()}
        return Extracted(features, costs, seconds, forward.latency_ms, forward.batch_size, forwarded)

    def layout(self, images: ImageSet, view: str) -> Layout:
        """What features of the images look like in a view, from one forward of a grey image."""
        self.encoder.check_view(view)
        return self._measured(view, self._size(images))[1]

    def _measured(self, view: str, size: tuple[int, int]) -> tuple[ForwardCost, Layout]:
        at = (view, size, self.encoder.dtype)
        if at not in self._known:
            self._known[at] = measure(self.encoder, size, view)
        return self._known[at]

    def _size(self, images: ImageSet) -> tuple[int, int]:
        sizes = sorted({network_size(image, images.policy) for image in images.images})
        if len(sizes) != 1:
            raise TaskError(
                f"images of {len(sizes)} sizes (such as {sizes[:3]}) with `resize: none`: all images of a "
                "task need one size, give the card a resolution or pass --resolution"
            )
        return sizes[0]

    def _target(self, view: str, images: ImageSet, layout: Layout) -> _Target:
        entry = self.cache.entry(feature_key(self.encoder.identity(), view, images.policy))
        if self.fresh and entry.folder not in self.in_use:
            entry.forget()
        self.in_use.add(entry.folder)
        rows = entry.find([[image.digest for image in chunk] for chunk in images.chunks])
        stale = [digest for digest, (chunk, _) in rows.items() if chunk.header.layout != layout]
        if stale:
            raise TaskError(
                f"encoder {self.encoder.id}, view {view!r}: cached features have another shape than those it "
                "gives now, so its identity does not name all that moves its features: bump its "
                "adapter's version (or fingerprint), or run with --fresh"
            )
        return _Target(entry, layout, rows)

    def _reserve(self, name: str, work: Sequence[Sequence[ImageRef]], targets: Mapping[str, _Target]) -> None:
        count = sum(len(chunk) for chunk in work)
        needed = count * sum(target.layout.image_bytes for target in targets.values())
        gone = self.cache.make_room(needed, self.in_use)
        if gone:
            size = human(sum(entry.size for entry in gone))
            self.ui.message(f"cache: {len(gone)} least recently used entries ({size}) made room")
        allowed = budget(self.cache.root, self.cache.entries())
        self.ui.message(
            f"{self.encoder.id}: {name}: {count} images to forward ({', '.join(targets)}), "
            f"{human(needed)} of features into {self.cache.root} (budget {human(allowed)})"
        )

    def _compute(
        self,
        images: ImageSet,
        work: Sequence[Sequence[ImageRef]],
        targets: Mapping[str, _Target],
        forward: Forwarder,
        progress: PhaseProgress,
    ) -> None:
        total, done = sum(len(chunk) for chunk in work), 0
        progress.update(0, total)
        with closing(prefetched([image for chunk in work for image in chunk], images.policy)) as pixels:
            for chunk in work:
                with ExitStack() as stack:
                    writers = {v: stack.enter_context(t.writer(chunk)) for v, t in targets.items()}
                    left = len(chunk)
                    while left:
                        batch = list(islice(pixels, min(forward.batch_size, left)))
                        for view, found in forward(to_batch(batch), images.views).items():
                            cls = None if found.cls is None else found.cls.numpy()
                            writers[view].add(found.patch.permute(0, 2, 3, 1).contiguous().numpy(), cls)
                        left, done = left - len(batch), done + len(batch)
                        progress.update(done, total)
                    for view, writer in writers.items():
                        targets[view].point_to(writer.commit())


@dataclass(frozen=True)
class _Target:
    """Where the features of one view go.  rows: image digest -> what is there already."""

    entry: Entry
    layout: Layout
    rows: dict[str, Row]

    def writer(self, chunk: Sequence[ImageRef]) -> ChunkWriter:
        return ChunkWriter(self.entry.folder, [image.digest for image in chunk], self.layout)

    def point_to(self, chunk: Chunk) -> None:
        for row, digest in enumerate(chunk.header.digests):
            self.rows[digest] = (chunk, row)


def _missing(images: ImageSet, targets: Mapping[str, _Target]) -> list[tuple[ImageRef, ...]]:
    """Per chunk, the images that lack some view; chunks that lack nothing are left out."""
    lacking = [
        tuple(image for image in chunk if any(image.digest not in t.rows for t in targets.values()))
        for chunk in images.chunks
    ]
    return [chunk for chunk in lacking if chunk]
