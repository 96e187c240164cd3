"""Body models are read once for all tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dune_bench.models.body_models import BodyModel, load_body_model
from tests.models import synthetic_smplx
from tests.models.toy_body import StickBody


@pytest.fixture(scope="session")
def smplx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic SMPLX_NEUTRAL.npz, with the pickled extras that real files have."""
    arrays = synthetic_smplx.synthetic_arrays(np.random.default_rng(7))
    arrays["part2num"] = np.array({"pelvis": 0}, dtype=object)
    return synthetic_smplx.write(tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz", arrays)


@pytest.fixture(scope="session")
def anny() -> BodyModel:
    return load_body_model("anny", dtype=torch.float64)


@pytest.fixture(scope="session", params=["anny", "smplx", "stick"])
def body(request: pytest.FixtureRequest, anny: BodyModel, smplx_file: Path) -> BodyModel:
    """Each model behind the interface, in float64."""
    if request.param == "anny":
        return anny
    if request.param == "smplx":
        return load_body_model("smplx", str(smplx_file), dtype=torch.float64)
    return StickBody(torch.float64)


def random_parameters(body: BodyModel, batch: int, seed: int) -> dict[str, torch.Tensor]:
    """Parameters near the neutral ones, rotations up to about a radian."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value
        + (0.4 if body.parameter_specs[name].rotation else 0.1)
        * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in body.neutral(batch).items()
    }
