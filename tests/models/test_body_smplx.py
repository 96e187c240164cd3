"""SMPL-X against the `smplx` package, on a synthetic file: the licensed one may not be shipped."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.models.body_models import load_body_model
from dune_bench.models.body_smplx import (
    FACE_VERTICES,
    JOINT_NAMES,
    SHAPES,
    read_smplx,
)
from dune_bench.models.smplx_files import FILES, check_smplx, smplx_files
from tests.models import synthetic_smplx
from tests.models.conftest import random_parameters


def test_vertices_joints_and_keypoints_equal_the_smplx_package(smplx_file: Path) -> None:
    ours = read_smplx(smplx_file, torch.float64, betas=9, expressions=7)
    parameters = random_parameters(ours, 3, seed=0)
    theirs = smplx.SMPLX(
        str(smplx_file), num_betas=9, num_expression_coeffs=10, use_pca=False, flat_hand_mean=True,
        batch_size=3, dtype=torch.float64,
    )  # fmt: skip
    padded = torch.nn.functional.pad(parameters["expression"], (0, 3))
    flat = {k: v.flatten(1) for k, v in parameters.items()} | {"expression": padded}
    with torch.no_grad():
        out, expected = ours(parameters), theirs(**flat)
    torch.testing.assert_close(out.vertices, expected.vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.joints, expected.joints[:, :55], atol=1e-6, rtol=0)
    # The package appends nose, right eye, left eye, right ear, left ear to its joints.
    face = expected.joints[:, [55, 57, 56, 59, 58]]
    torch.testing.assert_close(out.keypoints[:, :5], face, atol=1e-6, rtol=0)
    assert tuple(int(p) for p in theirs.parents) == synthetic_smplx.PARENTS


def test_keypoint_order_is_coco(smplx_file: Path) -> None:
    body = load_body_model("smplx", smplx_file, torch.float64)
    out = body(random_parameters(body, 1, seed=1))
    for i, name in enumerate(body.keypoint_names):
        if name in FACE_VERTICES:
            expected = out.vertices[0, FACE_VERTICES[name]]
        else:
            expected = out.joints[0, JOINT_NAMES.index(name)]
        torch.testing.assert_close(out.keypoints[0, i], expected)


def test_expression_starts_after_all_300_shapes_in_full_files(tmp_path: Path) -> None:
    arrays = synthetic_smplx.synthetic_arrays(np.random.default_rng(3), directions=400)
    path = synthetic_smplx.write(tmp_path / "full.npz", {k: arrays[k] for k in SHAPES})
    body = read_smplx(path, torch.float32, betas=2, expressions=1)
    parameters = body.neutral()
    parameters["expression"][:] = 1
    moved = body(parameters).vertices[0] - body(body.neutral()).vertices[0]
    # Neutral pose: the vertices move by the direction itself.
    torch.testing.assert_close(moved, torch.from_numpy(arrays["shapedirs"][..., 300]), atol=1e-5, rtol=0)


def test_more_coefficients_than_the_file_has_are_refused(smplx_file: Path) -> None:
    with pytest.raises(UsageError, match="10 shape and 10 expression"):
        read_smplx(smplx_file, betas=11)
    with pytest.raises(UsageError, match="10 shape and 10 expression"):
        read_smplx(smplx_file, expressions=0)


def test_without_a_file_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DUNE_BENCH_SMPLX", raising=False)
    with pytest.raises(UnavailableError, match=r"smpl-x\.is\.tue\.mpg\.de"):
        load_body_model("smplx")
    with pytest.raises(UnavailableError, match="no body model file"):
        load_body_model("smplx", tmp_path / "SMPLX_NEUTRAL.npz")


class Bomb:
    """Pickles to a call that would write a file; loading must never run it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def small() -> dict[str, np.ndarray]:
    """Arrays of the right keys; tests below fail before their sizes matter."""
    return synthetic_smplx.synthetic_arrays(np.random.default_rng(5)) | {
        "posedirs": np.zeros((10475, 3, 486), np.float16)
    }


def test_pickled_arrays_are_refused_and_never_run(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    trace = tmp_path / "ran"
    bomb = np.empty((55, 10475), dtype=object)
    bomb[0, 0] = Bomb(trace)
    path = synthetic_smplx.write(tmp_path / "bomb.npz", small | {"J_regressor": bomb})
    with pytest.raises(
        UsageError, match=r"'J_regressor' is a pickled object, which is never loaded"
    ) as caught:
        read_smplx(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_whole_file_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    path.write_bytes(b"\x80\x04}\x94.")
    with pytest.raises(UsageError, match=r"cannot be read as an \.npz"):
        read_smplx(path)


def test_wrong_contents_are_one_clear_line(tmp_path: Path, small: dict[str, np.ndarray]) -> None:
    cases = [
        ({"weights": None, "J_regressor": None}, "has no J_regressor, weights"),
        (
            {"v_template": np.zeros((6890, 3), np.float32)},
            r"'v_template' has shape \(6890, 3\), not \(10475, 3\)",
        ),
        ({"shapedirs": np.zeros((10475, 3, 12), np.float32)}, "12 directions, not 400 or 20"),
        ({"weights": np.full((10475, 55), np.nan, np.float32)}, "'weights' holds NaN"),
        ({"f": np.full((20908, 3), 10475, np.uint32)}, "'f' points outside"),
        ({"f": np.zeros((20908, 3), np.float32)}, "not whole numbers"),
        ({"v_template": np.full((10475, 3), "a")}, "not numbers"),
        ({"kintree_table": np.full((2, 55), 60, np.uint32)}, "'kintree_table' is no tree"),
    ]
    for change, message in cases:
        arrays = {k: v for k, v in (small | change).items() if v is not None}
        path = synthetic_smplx.write(tmp_path / "wrong.npz", arrays)
        with pytest.raises(UsageError, match=message) as caught:
            read_smplx(path)
        assert "\n" not in str(caught.value)


def test_cut_file_is_one_clear_line(tmp_path: Path, smplx_file: Path) -> None:
    path = tmp_path / "cut.npz"
    path.write_bytes(smplx_file.read_bytes()[:1_000_000])
    with pytest.raises(UsageError, match=r"cannot be read as an \.npz"):
        read_smplx(path)
    with zipfile.ZipFile(path, "w") as archive:
        for key in SHAPES:
            archive.writestr(f"{key}.npy", b"\x93NUMPY")
    with pytest.raises(UsageError, match=r"cannot be read as an \.npz"):
        read_smplx(path)


def test_neutral_file_of_a_folder_is_found_as_archives_unpack_it(tmp_path: Path, smplx_file: Path) -> None:
    for i, place in enumerate(("", "smplx", "models/smplx")):
        root = tmp_path / str(i)
        (root / place).mkdir(parents=True)
        (root / place / FILES["neutral"]).symlink_to(smplx_file)
        (root / place / FILES["male"]).symlink_to(smplx_file)
        assert smplx_files(root) == {g: root / place / FILES[g] for g in ("neutral", "male")}
    assert load_body_model("smplx", root).vertex_count == 10475


def test_folder_without_the_licensed_file_says_where_it_comes_from_and_goes(tmp_path: Path) -> None:
    (tmp_path / FILES["male"]).touch()
    with pytest.raises(
        UnavailableError, match=r"no SMPLX_NEUTRAL\.npz in .*register at https://smpl-x"
    ) as caught:
        load_body_model("smplx", tmp_path)
    assert caught.value.exit_code == 3
    assert "never loaded" not in str(caught.value)
    (tmp_path / "SMPLX_NEUTRAL.pkl").touch()
    with pytest.raises(UnavailableError, match=r"the \.pkl that is there is never loaded") as caught:
        check_smplx(tmp_path)
    assert "\n" not in str(caught.value)


def test_neutral_file_under_a_gendered_name_is_refused(tmp_path: Path, smplx_file: Path) -> None:
    (tmp_path / FILES["neutral"]).symlink_to(smplx_file)
    assert list(check_smplx(tmp_path)) == ["neutral"]
    (tmp_path / FILES["female"]).symlink_to(smplx_file)
    with pytest.raises(UsageError, match=r"SMPLX_FEMALE\.npz holds the body of .*SMPLX_NEUTRAL\.npz"):
        check_smplx(tmp_path)


def test_damaged_file_of_a_folder_is_named(tmp_path: Path, smplx_file: Path) -> None:
    (tmp_path / FILES["neutral"]).symlink_to(smplx_file)
    (tmp_path / FILES["male"]).write_bytes(b"cut")
    with pytest.raises(UsageError, match=r"SMPLX_MALE\.npz cannot be read as an \.npz"):
        check_smplx(tmp_path)
