"""Principal components of encoders' features, and how alike they are, on images of several domains.

Features come from the cache, or go into it, as those of a run do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from dune_bench.encoders.base import Encoder
from dune_bench.encoders.load import load_encoder
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.metrics.representation import (
    Components,
    CrossCovariance,
    linear_cka,
    principal_angles,
    principal_components,
)
from dune_bench.registry.cards import EncoderCard, InputPolicy
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.report.analysis_pca import LEADING, FeatureSet, PcaAnalysis, Similarity, Spectrum
from dune_bench.results.schema import encoder_label
from dune_bench.run.data import Data
from dune_bench.run.extract import Extractor, ImageSet
from dune_bench.run.forward import batch_size_for
from dune_bench.run.identity import facts_of
from dune_bench.run.pca_files import write_files
from dune_bench.run.pca_images import Domain, open_domains
from dune_bench.run.pca_sources import Maps, Source, token_rows
from dune_bench.run.profile import DEFAULT_RESOLUTION
from dune_bench.run.request import RunRequest
from dune_bench.run.scratch import open_stores
from dune_bench.run.ui import RunUI, SilentUI

_IMAGES = 8
"""Images whose tokens are in memory at a time."""


@dataclass(frozen=True)
class PcaRequest:
    """One `dune-bench analyze pca`.

    run: one encoder, with a run's options; its weights are that encoder's alone.  views: empty for its
    default view and those of its projectors.  against: other encoders in their default views; None for the
    teachers that its card names, as far as they can be loaded.  datasets, folders (name, path): each a
    domain.  photographs: files to show as colours instead of the domains' images.  out: folder of the files,
    None for `panels` in the runs folder.
    """

    run: RunRequest
    views: tuple[str, ...] = ()
    against: tuple[str, ...] | None = None
    datasets: tuple[str, ...] = ("minirooms@1",)
    split: str = "test"
    folders: tuple[tuple[str, Path], ...] = ()
    photographs: tuple[Path, ...] = ()
    out: Path | None = None

    @property
    def folder(self) -> Path:
        return self.out or self.run.runs / "panels"

    @property
    def policy(self) -> InputPolicy:
        return InputPolicy(resolution=self.run.resolution or DEFAULT_RESOLUTION)


def make_pca(
    request: PcaRequest, ui: RunUI | None = None, registry: Registry | None = None
) -> tuple[PcaAnalysis, tuple[Path, ...]]:
    """The analysis, and the files written for it: pictures and tables in DIR/ENCODER/pca.

    Raises UsageError for a request that cannot be meant, UnavailableError if the encoder, or one named in
    `against`, cannot be had, TaskError if one fails or its features do not vary.
    """
    ui = ui or SilentUI()
    if len(request.run.encoders) != 1:
        raise UsageError("the analysis is of one encoder")
    registry = registry or load_registry(request.run.include)
    data = Data(request.run, registry)
    domains = open_domains(data, request.datasets, request.split, request.folders, request.photographs)
    with ExitStack() as stack:
        session = _Session(request, registry, domains, ui, stack)
        own, others, left_out = session.sources()
        measured = [domain for domain in domains if domain.measured]
        fitted = {d.name: [session.components(s, d) for s in (*own, *others)] for d in domains}
        spectra = [
            Spectrum(s.features, d.name, len(d.images), s.maps[d.name].tokens(len(d.images)), components)
            for d in measured
            for s, components in zip((*own, *others), fitted[d.name], strict=True)
        ]
        similarities = [pair for d in measured for pair in session.similarities(own, others, d)]
        analysis = PcaAnalysis(tuple(spectra), tuple(similarities), left_out)
        return analysis, write_files(request.folder, analysis, domains, (*own, *others), fitted)


@dataclass
class _Session:
    """What all parts of an analysis share.  stack: keeps open what the features are in."""

    request: PcaRequest
    registry: Registry
    domains: Sequence[Domain]
    ui: RunUI
    stack: ExitStack
    _names: list[str] = field(default_factory=list)

    def sources(self) -> tuple[list[Source], list[Source], tuple[str, ...]]:
        """The encoder's views, those of the others, and who of its teachers is left out, and why."""
        run = self.request.run
        card = self._card(str(run.encoders[0]))
        others = self.request.against
        given = [self._card(name) for name in others or ()]  # unknown names, before anything is computed
        encoder = self._load(card, run.weights)
        views = self.request.views or _default_views(encoder)
        own = self._extracted(card, encoder, views)
        if others is not None:
            loaded = [(other, self._load(other, "auto")) for other in given]
            left_out: tuple[str, ...] = ()
        else:
            loaded, left_out = self._teachers(card)
        found = [s for o, e in loaded for s in self._extracted(o, e, (e.default_view,))]
        return own, found, left_out

    def _card(self, name: str) -> EncoderCard:
        card = self.registry.encoder(name)
        if card.id in self._names:
            raise UsageError(f"--against {name}: {card.id} is named twice: name other encoders")
        self._names.append(card.id)
        return card

    def _teachers(self, card: EncoderCard) -> tuple[list[tuple[EncoderCard, Encoder]], tuple[str, ...]]:
        loaded, left_out = [], []
        for name in card.teachers:
            if name not in self.registry.encoders:
                left_out.append(f"{name}: there is no card of this teacher")
                continue
            try:
                teacher = self.registry.encoder(name)
                loaded.append((teacher, self._load(teacher, "auto")))
            except UnavailableError as error:
                left_out.append(f"{name}: {' '.join(str(error).split())}")
        return loaded, tuple(left_out)

    def _load(self, card: EncoderCard, weights: str) -> Encoder:
        self.ui.message(f"{card.id}: loading")
        run = self.request.run
        return load_encoder(
            card, weights=weights, device=run.device, offline=run.offline, registry=self.registry
        )

    def _extracted(self, card: EncoderCard, encoder: Encoder, views: Sequence[str]) -> list[Source]:
        views = tuple(dict.fromkeys(views))
        run, label = self.request.run, encoder_label(card.id, encoder.weights)
        stores = self.stack.enter_context(open_stores(run, facts_of(encoder), self.ui))
        size = batch_size_for(encoder, run.batch_size)
        extractor = Extractor(encoder, stores.features, self.ui, size)
        sets = {d.name: ImageSet(d.name, d.images, views, self.request.policy) for d in self.domains}
        found = {name: extractor.run(images).features for name, images in sets.items()}
        return [
            Source(FeatureSet(label, view), {name: Maps(features[view]) for name, features in found.items()})
            for view in views
        ]

    def components(self, source: Source, domain: Domain) -> Components:
        """Of all tokens of the domain's images, on the encoder's own grid."""
        covariance = CrossCovariance()
        for ids in self._batches(domain, f"{source.features.name}: {domain.name}: components"):
            tokens = token_rows(source.maps[domain.name].read(ids))
            covariance.add(tokens, tokens)
        try:
            return principal_components(covariance)
        except TaskError as error:
            raise TaskError(f"{source.features.name}, {domain.name}: {error}") from error

    def similarities(
        self, own: Sequence[Source], others: Sequence[Source], domain: Domain
    ) -> list[Similarity]:
        """Each of `own` with each of `others`, on the grid of the source with the fewest tokens."""
        if not others:
            return []
        sources = (*own, *others)
        size = min((s.maps[domain.name].grid.grid for s in sources), key=lambda grid: grid[0] * grid[1])
        alone = {s.features: CrossCovariance() for s in sources}
        crossed = {(a.features, b.features): CrossCovariance() for a in own for b in others}
        for ids in self._batches(domain, f"{domain.name}: similarities"):
            tokens = {s.features: token_rows(s.maps[domain.name].resampled(ids, size)) for s in sources}
            for one, covariance in alone.items():
                covariance.add(tokens[one], tokens[one])
            for (a, b), covariance in crossed.items():
                covariance.add(tokens[a], tokens[b])
        parts = {one: principal_components(covariance) for one, covariance in alone.items()}
        return [
            Similarity(
                a,
                b,
                domain.name,
                cross.tokens,
                linear_cka(parts[a], parts[b], cross),
                principal_angles(parts[a], parts[b], cross, LEADING),
            )
            for (a, b), cross in crossed.items()
        ]

    def _batches(self, domain: Domain, title: str) -> Iterator[list[str]]:
        ids = [image.id for image in domain.images]
        with self.ui.phase(title, "images") as progress:
            for start in range(0, len(ids), _IMAGES):
                yield ids[start : start + _IMAGES]
                progress.update(min(start + _IMAGES, len(ids)), len(ids))


def _default_views(encoder: Encoder) -> tuple[str, ...]:
    return (encoder.default_view, *(f"proj:{teacher}" for teacher in encoder.teachers))
