"""The pictures and tables that `analyze pca` leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dune_bench.metrics.representation import Components
from dune_bench.report.analysis_pca import PcaAnalysis, similarity_csv, variance_csv
from dune_bench.report.panels.pca import ColourRow, as_colours, draw
from dune_bench.report.plot_pca import curves_png
from dune_bench.results.store import safe_name, write_atomic
from dune_bench.run.pca_images import SHOWN, Domain
from dune_bench.run.pca_sources import Maps, Source


def write_files(
    out: Path,
    analysis: PcaAnalysis,
    domains: Sequence[Domain],
    sources: Sequence[Source],
    fitted: Mapping[str, Sequence[Components]],
) -> tuple[Path, ...]:
    """Writes ENCODER/pca below `out`: the first encoder's folder has everything, each other one the colours
    of its own features.  fitted: components by domain, one for each source.  Raises TaskError if it cannot
    write."""
    first = sources[0].features.encoder
    files: dict[Path, bytes] = {}
    if analysis.spectra:
        files[_folder(out, first) / "curves.png"] = curves_png(analysis)
        files[_folder(out, first) / "variance.csv"] = variance_csv(analysis).encode()
    if analysis.similarities:
        files[_folder(out, first) / "similarity.csv"] = similarity_csv(analysis).encode()
    for encoder in dict.fromkeys(source.features.encoder for source in sources):
        for domain in domains:
            pairs = [
                (source, components)
                for source, components in zip(sources, fitted[domain.name], strict=True)
                if encoder in (first, source.features.encoder)
            ]
            for name, png in _sheets(encoder, domain, pairs).items():
                files[_folder(out, encoder) / name] = png
    for path, content in files.items():
        write_atomic(path, content)
    return tuple(files)


def _folder(out: Path, encoder: str) -> Path:
    return out / safe_name(encoder) / "pca"


def _sheets(encoder: str, domain: Domain, sources: Sequence[tuple[Source, Components]]) -> dict[str, bytes]:
    """Pictures by name: the domain's shown images, SHOWN on each."""
    groups = [domain.shown[i : i + SHOWN] for i in range(0, len(domain.shown), SHOWN)]
    count = len(domain.images)
    fitted_to = f"{domain.name}  ·  components of {count} image{'s' if count > 1 else ''}"
    found = {}
    for number, group in enumerate(groups, start=1):
        rows = [
            ColourRow(
                f"{components.explained[:3][-1]:.0%} of the variance: {source.features.name}",
                [_coloured(source.maps[domain.name], image.id, image.size, components) for image in group],
            )
            for source, components in sources
        ]
        suffix = f"-{number}" if len(groups) > 1 else ""
        pictures = [(image.id, image.read()) for image in group]
        found[f"colours-{safe_name(domain.name)}{suffix}.png"] = draw(encoder, fitted_to, pictures, rows)
    return found


def _coloured(maps: Maps, image_id: str, size: tuple[int, int], components: Components) -> NDArray[np.uint8]:
    """uint8 (*size, 3): each pixel has its token's colour; what was padded is cut off."""
    tokens = np.moveaxis(maps.read([image_id])[0], 0, -1)
    colours = as_colours(tokens, components).reshape(-1, 3)
    return np.asarray(colours[maps.grid.cells(size)].reshape(*size, 3))
