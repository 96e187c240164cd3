"""The analysis of components through extraction, cache and grids, against the definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from torch.nn.functional import interpolate

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.samples import SegSample
from dune_bench.encoders.load import load_encoder
from dune_bench.registry.lookup import load_registry
from dune_bench.run.pca import PcaRequest, make_pca
from dune_bench.run.request import RunRequest
from tests.data.minirooms_fixture import write_tiny_minirooms

PX = 112
COARSE = """
import torch
from torch.nn.functional import avg_pool2d
from dune_bench.encoders.base import Encoder
encoder = Encoder.from_module(lambda x: avg_pool2d(x, 28), 28, fingerprint="coarse")
"""


def rows(maps: torch.Tensor) -> NDArray[np.float64]:
    return maps.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()


def cka(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    k, m = ((z - z.mean(0)) @ (z - z.mean(0)).T for z in (x, y))
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_numbers_are_those_of_the_features_on_the_coarser_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "cache"))
    write_tiny_minirooms(tmp_path / "data", rooms_train=1, rooms_test=5, views=2, size=PX)
    (tmp_path / "coarse.py").write_text(COARSE)
    other = f"{tmp_path / 'coarse.py'}"
    run = RunRequest(
        encoders=("random_vits14",), resolution=PX, data=tmp_path / "data", runs=tmp_path / "runs"
    )
    analysis, paths = make_pca(PcaRequest(run, views=("layer:1", "norm"), against=(other,)))
    assert all(path.is_file() for path in paths)

    data = MiniRooms("minirooms@1", root=tmp_path / "data")
    images = [sample.image.read() for sample in data.samples(SegSample, "test")]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    fine = load_encoder(load_registry().encoder("random_vits14")).encode(pixels, ("layer:1", "norm"))
    coarse = load_encoder(load_registry().encoder(other)).encode(pixels)["norm"].patch
    assert coarse.shape[-2:] == (4, 4)
    assert [s.features.view for s in analysis.spectra] == ["layer:1", "norm", "norm"]
    for spectrum, maps in zip(analysis.spectra[:2], fine.values(), strict=True):
        expected = PCA(svd_solver="full").fit(rows(maps.patch))
        assert (spectrum.images, spectrum.tokens) == (10, 640)
        np.testing.assert_allclose(
            spectrum.components.explained, np.cumsum(expected.explained_variance_ratio_), atol=1e-5
        )
    assert len(analysis.similarities) == 2
    for similarity, maps in zip(analysis.similarities, fine.values(), strict=True):
        x, y = rows(interpolate(maps.patch, (4, 4), mode="bilinear", align_corners=False)), rows(coarse)
        assert similarity.tokens == len(x) == 160
        assert similarity.cka == pytest.approx(cka(x, y), rel=1e-4)
        scores = [PCA(min(10, z.shape[1]), svd_solver="full").fit_transform(z) for z in (x, y)]
        np.testing.assert_allclose(similarity.angles, np.sort(subspace_angles(*scores)), atol=1e-3)
