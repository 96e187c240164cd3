from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.models.body_anny import FILE, corner_weights, read_anny
from dune_bench.models.body_models import BodyModel, load_body_model

GOLDEN = Path(__file__).parents[1] / "golden" / "anny_bodies.safetensors"
SHIPPED = Path(str(files("dune_bench.models"))) / FILE
ANCHORS = (2, 4, 3, 3, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slim_model_does_not_drift_from_anny(dtype: torch.dtype) -> None:
    """Random MiniRooms people as anny 0.6.2 itself gives them: 0.5 mm allowed, 0.02 mm measured."""
    golden = {k: torch.from_numpy(v) for k, v in load_file(GOLDEN).items()}
    body = load_body_model("anny", dtype=dtype)
    with torch.inference_mode():
        out = body({k: golden[k].to(dtype) for k in ("phenotype", "pose", "root")})
    error = 1000 * (out.vertices[:, ::7].double() - golden["vertices"]).norm(dim=-1)
    assert error.max() < 0.03
    # anny's key point weights do not quite sum to 1; ours do, so that key points move with the body.
    assert 1000 * (out.keypoints.double() - golden["keypoints"]).norm(dim=-1).max() < 0.1
    assert golden["vertices"].std() > 0.1


def test_float32_is_within_a_hundredth_of_a_millimetre_of_float64(anny: BodyModel) -> None:
    single = load_body_model("anny", dtype=torch.float32)
    parameters = {k: torch.from_numpy(v) for k, v in load_file(GOLDEN).items() if k in anny.parameter_specs}
    difference = single({k: v.float() for k, v in parameters.items()}).vertices - anny(parameters).vertices
    assert 1000 * difference.abs().max() < 0.01


def test_ready_in_time_and_small_without_anny() -> None:
    """Ready in ≤ 5 s with its imports, ≤ 20 MB, and anny is never imported."""
    assert SHIPPED.stat().st_size <= 20e6
    code = (
        "import sys, torch; from dune_bench.models.body_models import load_body_model;"
        "b = load_body_model('anny'); b(b.neutral()); print([m for m in sys.modules if m == 'anny'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    started = time.perf_counter()
    body = load_body_model("anny")
    body(body.neutral())
    assert time.perf_counter() - started < 5


def test_neutral_body_stands_upright_facing_minus_y(anny: BodyModel) -> None:
    out = anny(anny.neutral())
    height = out.vertices[0, :, 2].max() - out.vertices[0, :, 2].min()
    assert 1.3 < height < 2.0
    nose, left_ear, right_ear = out.keypoints[0, [0, 3, 4]]
    assert nose[1] < left_ear[1]
    assert left_ear[0] > 0 > right_ear[0]
    torch.testing.assert_close(out.joints[0, anny.root], torch.zeros(3, dtype=torch.float64))


def test_root_rotation_turns_the_whole_body_about_the_pelvis(anny: BodyModel) -> None:
    parameters = anny.neutral()
    parameters["root"] += torch.tensor([0.3, -0.2, 0.9])
    still = anny(parameters)
    parameters["pose"][:, 0, 2] = torch.pi / 2
    turned = anny(parameters)
    pelvis = parameters["root"][:, None]
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(turned.vertices, (still.vertices - pelvis) @ quarter.mT + pelvis)


def test_corner_weights_equal_a_loop_over_corners() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (6, 6))
    values[0], values[1, 2:4] = 0.5, 1.0
    ours = corner_weights(torch.from_numpy(values), ANCHORS).numpy()
    np.testing.assert_allclose(ours.sum(1), 1)
    grids = [np.linspace(0, 1, n) for n in ANCHORS]
    for row, x in zip(ours, values, strict=True):
        hats = [
            [np.interp(v, g, np.eye(len(g))[i]) for i in range(len(g))] for v, g in zip(x, grids, strict=True)
        ]
        by_hand = [np.prod(corner) for corner in itertools.product(*hats)]
        np.testing.assert_allclose(row, by_hand, atol=1e-12)


def test_phenotypes_beyond_their_range_count_as_the_bound(anny: BodyModel) -> None:
    low, high = anny.neutral(), anny.neutral()
    low["phenotype"][:], high["phenotype"][:] = 0, 1
    wide_low, wide_high = anny.neutral(), anny.neutral()
    wide_low["phenotype"][:], wide_high["phenotype"][:] = -3, 2
    torch.testing.assert_close(anny(wide_low).vertices, anny(low).vertices)
    torch.testing.assert_close(anny(wide_high).vertices, anny(high).vertices)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_phenotype_gradient_is_not_dead_on_a_grid_value(anny: BodyModel, value: float) -> None:
    for column in range(6):
        parameters = anny.neutral()
        parameters["phenotype"][0, column] = value
        parameters["phenotype"].requires_grad_(True)
        (grad,) = torch.autograd.grad(anny(parameters).vertices.square().sum(), parameters["phenotype"])
        assert grad[0, column].abs() > 1e-6, f"phenotype {column} moves nothing"


def _altered(tmp_path: Path, change: object, facts: dict[str, object] | None = None) -> Path:
    arrays = load_file(SHIPPED)
    change(arrays)  # type: ignore[operator]
    stored = {"format": "dune-bench anny slim 1", "bones": ["b"] * 104, "anchors": list(ANCHORS)}
    path = tmp_path / "altered.safetensors"
    save_file(arrays, path, {"body": json.dumps(stored | (facts or {}))})
    return path


def test_damaged_model_files_are_one_clear_line(tmp_path: Path) -> None:
    def transpose(arrays: dict[str, np.ndarray]) -> None:
        arrays["template"] = np.ascontiguousarray(arrays["template"].T)

    def poison(arrays: dict[str, np.ndarray]) -> None:
        arrays["coefficients"][0, 0] = np.nan

    def point_away(arrays: dict[str, np.ndarray]) -> None:
        arrays["faces"][0, 0] = 13718

    def keep(arrays: dict[str, np.ndarray]) -> None:
        del arrays

    cases = [
        (lambda a: a.pop("heads"), None, "has no heads"),
        (transpose, None, r"shape \(3, 13718\)"),
        (poison, None, "NaN or infinite"),
        (point_away, None, "points outside"),
        (keep, {"format": "else"}, "format 'else'"),
        (keep, {"bones": ["b"]}, "disagree"),
    ]
    for change, facts, message in cases:
        with pytest.raises(UsageError, match=message) as caught:
            read_anny(_altered(tmp_path, change, facts), torch.float32)
        assert "\n" not in str(caught.value)


def test_file_without_facts_or_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(load_file(SHIPPED), path)
    with pytest.raises(UsageError, match="does not say what it holds"):
        read_anny(path, torch.float32)
    path.write_bytes(b"no model" * 50)
    with pytest.raises(UsageError, match="cannot be read"):
        read_anny(path, torch.float32)
    with pytest.raises(UnavailableError, match="install the package again"):
        read_anny(tmp_path / "absent.safetensors", torch.float32)
