"""Tables, curves and colours of the analysis of components."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dune_bench.metrics.representation import Components
from dune_bench.report.analysis_pca import (
    LEADING,
    FeatureSet,
    PcaAnalysis,
    Similarity,
    Spectrum,
    similarity_csv,
    to_markdown,
    variance_csv,
)
from dune_bench.report.panels.pca import ColourRow, as_colours, draw
from dune_bench.report.plot_pca import curves_png

THREE = Components(np.zeros(3), np.array([6.0, 3.5, 0.5]), np.eye(3))
HOSTILE = "a|b\n$x_1$ <i>\N{SNOWMAN}" + "y" * 90


def analysis(*encoders: str, domains: tuple[str, ...] = ("rooms/test",)) -> PcaAnalysis:
    features = [FeatureSet(encoder, "norm") for encoder in encoders]
    spectra = [Spectrum(f, domain, 2, 8, THREE) for domain in domains for f in features]
    pairs = [
        Similarity(features[0], f, domain, 8, 0.25, np.radians([10.0, 20.0, 60.0]))
        for domain in domains
        for f in features[1:]
    ]
    return PcaAnalysis(tuple(spectra), tuple(pairs))


def test_table_counts_components_and_angles() -> None:
    text = to_markdown(analysis("one", "two"))
    assert "| rooms/test | one | norm | 2 | 8 | 3 | 1 | 2 | 2 | 3 |" in text
    assert "| rooms/test | one norm | two norm | 8 | 0.250 | 10.0° | 20.0° | 60.0° |" in text


def test_hostile_name_breaks_no_table_and_no_picture() -> None:
    found = analysis(HOSTILE, "b", domains=("own", HOSTILE))
    rows = [line for line in to_markdown(found).splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in rows} == {11, 9}
    assert curves_png(found)
    picture = np.zeros((10, 20, 3), np.uint8)
    assert draw(HOSTILE, HOSTILE, [(HOSTILE, picture)], [ColourRow(HOSTILE, [picture])])


def test_csv_has_every_component_and_empty_angles_beyond_the_rank() -> None:
    rows = list(csv.DictReader(io.StringIO(variance_csv(analysis("one")))))
    assert [float(row["explained"]) for row in rows] == pytest.approx([0.6, 0.95, 1.0])
    assert [row["component"] for row in rows] == ["1", "2", "3"]
    (row,) = csv.DictReader(io.StringIO(similarity_csv(analysis("one", "two"))))
    angles = [row[f"angle{i + 1}_deg"] for i in range(LEADING)]
    assert [float(angle) for angle in angles[:3]] == pytest.approx([10, 20, 60])
    assert set(angles[3:]) == {""}


def test_every_domain_has_its_axes_and_every_curve_its_look() -> None:
    many = [f"encoder{i}" for i in range(9)]
    one, four = (analysis(*many, domains=tuple("abcd"[:n])) for n in (1, 4))
    sizes = [Image.open(io.BytesIO(curves_png(found))).size for found in (one, four)]
    assert sizes[1][0] == pytest.approx(3 * sizes[0][0], abs=2)
    assert sizes[1][1] > sizes[0][1]
    assert curves_png(one) == curves_png(one)
    other = replace(one, spectra=one.spectra[:-1])
    assert curves_png(one) != curves_png(other)


def test_colours_are_components_within_two_deviations() -> None:
    sigma = np.sqrt(THREE.variances)
    tokens = np.array([[[0, 0, 0], [2, 0, 0], [-2, 0, 0], [0, 9, 1]]]) * sigma
    expected = [[128, 128, 128], [255, 128, 128], [0, 128, 128], [128, 255, 191]]
    np.testing.assert_array_equal(as_colours(tokens, THREE)[0], expected)


def test_fewer_than_three_channels_leave_the_others_grey() -> None:
    found = as_colours(np.ones((1, 1, 1)), Components(np.zeros(1), np.ones(1), np.eye(1)))
    np.testing.assert_array_equal(found, [[[191, 128, 128]]])


def test_sheet_shows_the_colours_of_each_image_below_it() -> None:
    images = [(name, np.full((30, 40, 3), 255, np.uint8)) for name in "ab"]
    red, blue = np.zeros((2, 30, 40, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    with Image.open(io.BytesIO(draw("e", "d", images, [ColourRow("c", [red, blue])]))) as opened:
        sheet = np.asarray(opened.convert("RGB"))
    lower = sheet[len(sheet) * 3 // 4]
    assert (lower[: sheet.shape[1] // 2] == (255, 0, 0)).all(1).any()
    assert (lower[sheet.shape[1] // 2 :] == (0, 0, 255)).all(1).any()
