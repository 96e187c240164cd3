"""Explained variance against the number of components, as a static plot."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from dune_bench.report.analysis_pca import SHARES, FeatureSet, PcaAnalysis, Spectrum
from dune_bench.report.plot_style import DPI, GRID, MOST_STYLED, QUIET, Style, clean, styles

_WIDTH, _HEIGHT = 5.4, 3.9
_HEAD, _FOOT, _LINE = 0.3, 0.2, 0.21
"""Inches of the axes of one domain, of the text above, of the margin, and of a line of the legend."""
_MOST_ACROSS = 3


def curves_png(analysis: PcaAnalysis) -> bytes:
    """Axes for every domain, a curve for every view of every encoder.  The same analysis gives the same
    bytes."""
    domains = analysis.domains
    known = _styles(list(dict.fromkeys(spectrum.features for spectrum in analysis.spectra)))
    across = min(len(domains), _MOST_ACROSS)
    down = math.ceil(len(domains) / across)
    legend = _LINE * len(known) + 0.2
    width, height = _WIDTH * across, _HEAD + _HEIGHT * down + legend + _FOOT
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    title = "Explained variance of patch tokens"
    figure.text(0.12 / across, 1 - 0.28 / height, title, fontsize=11, weight="bold")
    for place, domain in enumerate(domains):
        row, column = divmod(place, across)
        left, bottom = _WIDTH * column + 0.7, height - _HEAD - _HEIGHT * (row + 1) + 0.5
        box = (left / width, bottom / height, (_WIDTH - 0.9) / width, (_HEIGHT - 0.9) / height)
        _draw(figure.add_axes(box), domain, [s for s in analysis.spectra if s.domain == domain], known)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.6 / width, _FOOT / 2 / height),
        fontsize=9,
        frameon=False,
        handlelength=4,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, domain: str, spectra: Sequence[Spectrum], known: Mapping[FeatureSet, Style]) -> None:
    for spectrum in spectra:
        explained = 100 * spectrum.components.explained
        style = known[spectrum.features]
        axes.plot(
            np.arange(1, len(explained) + 1),
            explained,
            color=style.colour,
            linestyle=style.dashes,
            linewidth=1.8,
            marker=style.marker,
            markersize=5,
            markevery=[min(spectrum.components.needed(share), len(explained)) - 1 for share in SHARES],
            label=clean(spectrum.features.name).replace("$", r"\$"),
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlim(left=1)
    axes.set_ylim(0, 101)
    axes.set_yticks([0, *(100 * share for share in SHARES[:-1]), 99])
    axes.set_yticklabels(["0", *(f"{share:.0%}".removesuffix("%") for share in SHARES)], fontsize=8)
    axes.tick_params(labelsize=8, colors=QUIET)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("components", fontsize=9)
    axes.set_ylabel("variance explained, %", fontsize=9)
    images = f"{spectra[0].images} image{'s' if spectra[0].images > 1 else ''}"
    axes.set_title(clean(f"{domain}, {images}").replace("$", r"\$"), fontsize=9.5, loc="left")


def _styles(features: Sequence[FeatureSet]) -> dict[FeatureSet, Style]:
    """The colours of the other plots; beyond their number again, with other marks and dashes."""
    base = list(styles([str(i) for i in range(MOST_STYLED)]).values())
    found = {}
    for place, one in enumerate(features):
        turn, index = divmod(place, len(base))
        other = base[(index + turn) % len(base)]
        found[one] = replace(base[index], dashes=other.dashes, marker=other.marker)
    return found
