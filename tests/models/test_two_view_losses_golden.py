"""Both losses and their gradients equal what the original program answered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dune_bench.models.two_view_losses import ConfidentMatching, ConfidentRegression, PairTargets, ViewTarget
from dune_bench.models.two_view_output import ViewOutput

STORED = Path(__file__).parents[1] / "golden" / "mast3r_losses.npz"
POINTS = ("pts3d", "pts3d_in_other_view")
VALUE, GRADIENT = 1e-6, 1e-5


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    with np.load(STORED) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def outputs_of(stored: dict[str, Tensor]) -> tuple[ViewOutput, ViewOutput]:
    def leaf(name: str) -> Tensor:
        return stored[name].clone().requires_grad_(True)

    first, second = (
        ViewOutput(*(leaf(f"pred{k}/{name}") for name in (points, "conf", "desc", "desc_conf")))
        for k, points in enumerate(POINTS, 1)
    )
    return first, second


def targets_of(stored: dict[str, Tensor]) -> PairTargets:
    first, second = (
        ViewTarget(*(stored[f"gt{k}/{name}"] for name in ("pts3d", "valid_mask", "sky_mask", "corres")))
        for k in (1, 2)
    )
    return PairTargets(
        first, second, stored["gt1/camera_pose"], stored["gt1/is_metric_scale"], stored["gt1/valid_corres"]
    )


def check_gradient(stored: dict[str, Tensor], loss: str, found: dict[str, Tensor | None]) -> None:
    prefix = f"out/{loss}/grad/"
    assert {name.removeprefix(prefix) for name in stored if name.startswith(prefix)} == set(found)
    for name, gradient in found.items():
        expected = stored[prefix + name]
        assert gradient is not None, name
        assert (gradient - expected).abs().max() <= GRADIENT * expected.abs().max(), name


def test_regression_is_not_another_than_the_original(stored: dict[str, Tensor]) -> None:
    outputs = outputs_of(stored)
    loss = sum(pooled.total / pooled.count for pooled in ConfidentRegression()(outputs, targets_of(stored)))
    assert loss.item() == pytest.approx(stored["out/conf_regr3d/value"].item(), rel=VALUE)
    loss.backward()
    found = {
        f"pred{k}/{name}": leaf.grad
        for k, (points, view) in enumerate(zip(POINTS, outputs, strict=True), 1)
        for name, leaf in ((points, view.points), ("conf", view.confidence))
    }
    check_gradient(stored, "conf_regr3d", found)


def test_matching_is_not_another_than_the_original(stored: dict[str, Tensor]) -> None:
    outputs = outputs_of(stored)
    pooled = ConfidentMatching()(outputs, targets_of(stored))
    loss = pooled.total / pooled.count
    assert loss.item() == pytest.approx(stored["out/conf_matching/value"].item(), rel=VALUE)
    loss.backward()
    found = {
        f"pred{k}/{name}": leaf.grad
        for k, view in enumerate(outputs, 1)
        for name, leaf in (("desc", view.descriptors), ("desc_conf", view.descriptor_confidence))
    }
    check_gradient(stored, "conf_matching", found)
