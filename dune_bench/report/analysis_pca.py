"""What the principal components of encoders' features say: tables of `analyze pca`.  Imports no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dune_bench.metrics.representation import Components, Floats
from dune_bench.report.format import one_line

SHARES = (0.5, 0.9, 0.95, 0.99)
"""Of the variance: the table says how many components each takes."""
LEADING = 10
"""Components of each encoder whose subspaces are held against each other."""


@dataclass(frozen=True)
class FeatureSet:
    """What was analysed.  encoder: its label in reports."""

    encoder: str
    view: str

    @property
    def name(self) -> str:
        return f"{self.encoder} {self.view}"


@dataclass(frozen=True)
class Spectrum:
    """Patch tokens of one view of one encoder on one domain (a dataset or a folder of images)."""

    features: FeatureSet
    domain: str
    images: int
    tokens: int
    components: Components


@dataclass(frozen=True)
class Similarity:
    """Two features of the same tokens.  angles: principal angles between the LEADING components, radians,
    ascending."""

    first: FeatureSet
    second: FeatureSet
    domain: str
    tokens: int
    cka: float
    angles: Floats


@dataclass(frozen=True)
class PcaAnalysis:
    """spectra, similarities: domain by domain.  left_out: a line for each encoder that could not be
    held against the first, with the reason."""

    spectra: tuple[Spectrum, ...]
    similarities: tuple[Similarity, ...]
    left_out: tuple[str, ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(spectrum.domain for spectrum in self.spectra))


def to_markdown(analysis: PcaAnalysis) -> str:
    """Components that explain each of SHARES; below, how alike the features are."""
    names = ["data", "encoder", "view", "images", "tokens", "channels", *(f"{s:.0%}" for s in SHARES)]
    rows = [
        [
            *(_cell(text) for text in (s.domain, s.features.encoder, s.features.view)),
            *(str(n) for n in (s.images, s.tokens, len(s.components.variances))),
            *(str(s.components.needed(share)) for share in SHARES),
        ]
        for s in analysis.spectra
    ]
    parts = ["Components that explain a share of the variance:", _table(names, rows, 3)]
    if analysis.similarities:
        angles = ("smallest angle", "median", "largest")
        names = ["data", "encoder, view", "against", "tokens", "linear CKA", *angles]
        rows = [
            [
                *(_cell(text) for text in (s.domain, s.first.name, s.second.name)),
                *(str(s.tokens), f"{s.cka:.3f}"),
                *(f"{angle:.1f}°" for angle in np.degrees(np.quantile(s.angles, (0, 0.5, 1)))),
            ]
            for s in analysis.similarities
        ]
        title = f"Alike on the same tokens (angles between the first {LEADING} components):"
        parts += [title, _table(names, rows, 3)]
    return "\n\n".join(parts) + "\n"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> str:
    """texts: columns that are not numbers."""
    rule = ["---"] * texts + ["---:"] * (len(names) - texts)
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, rule, *rows])


def _cell(text: str) -> str:
    """For a terminal: brands keep their brackets."""
    return one_line(text).replace("|", "\\|")


def variance_csv(analysis: PcaAnalysis) -> str:
    """A row a component."""
    header = ("data", "encoder", "view", "images", "tokens", "component", "variance", "explained")
    return _csv(
        header,
        (
            (s.domain, s.features.encoder, s.features.view, s.images, s.tokens, i + 1, variance, explained)
            for s in analysis.spectra
            for i, (variance, explained) in enumerate(
                zip(s.components.variances.tolist(), s.components.explained.tolist(), strict=True)
            )
        ),
    )


def similarity_csv(analysis: PcaAnalysis) -> str:
    """A row a pair of features; angles in degrees, empty beyond the rank."""
    names = ("data", "encoder", "view", "against", "against_view", "tokens", "linear_cka")
    header = (*names, *(f"angle{i + 1}_deg" for i in range(LEADING)))
    rows = []
    for s in analysis.similarities:
        row = (s.domain, s.first.encoder, s.first.view, s.second.encoder, s.second.view, s.tokens, s.cka)
        angles = np.degrees(s.angles).tolist()
        rows.append((*row, *angles, *([""] * (LEADING - len(angles)))))
    return _csv(header, rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
