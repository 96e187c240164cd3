"""A folder of one's own people: read strictly, lazily, and placed as the `smplx` package places them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smplx
import torch
from PIL import Image

from dune_bench.data import smplx_people
from dune_bench.data.base import Lazy
from dune_bench.data.samples import DepthSample, HumanSample
from dune_bench.data.smplx_people import SmplxPeople
from dune_bench.doctor import _datasets
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.models.body_smplx import FACE_VERTICES, JOINT_NAMES
from dune_bench.registry.lookup import DATASETS, Registry
from tests.data.smplx_fixture import SIZE, K, lines_of, person, write_lines, write_people
from tests.models import synthetic_smplx


@pytest.fixture(scope="module")
def body_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arrays = synthetic_smplx.synthetic_arrays(np.random.default_rng(7))
    return synthetic_smplx.write(tmp_path_factory.mktemp("body") / "SMPLX_NEUTRAL.npz", arrays)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people") / "people", {"train": 4, "test": 2}, per_image=2)


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A folder that may be damaged; its files are old enough to be remembered."""
    copy = Path(shutil.copytree(written, tmp_path / "people"))
    for path in copy.rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    return copy


@pytest.fixture(autouse=True)
def _places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body_file: Path) -> None:
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DUNE_BENCH_SMPLX", str(body_file))


def humans(root: Path, split: str = "test") -> Lazy[Any]:
    return SmplxPeople(root=root).samples(HumanSample, split)


def change(root: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edits the second line of the test split."""
    lines = lines_of(root / "test")
    edit(lines[1])
    write_lines(root / "test", lines)


def test_points_are_where_the_smplx_package_puts_them(root: Path, body_file: Path) -> None:
    theirs = smplx.SMPLX(
        str(body_file), num_betas=10, num_expression_coeffs=10, use_pca=False, flat_hand_mean=True,
        dtype=torch.float64,
    )  # fmt: skip
    annotated = lines_of(root / "test")[1]["people"]
    sample = humans(root)[1]
    assert len(sample.people) == 2
    for ours, facts in zip(sample.people, annotated, strict=True):
        flat = {k: torch.tensor(v, dtype=torch.float64).reshape(1, -1) for k, v in facts.items()}
        with torch.no_grad():
            out, upright = theirs(**flat), theirs(betas=flat["betas"])
        for i, name in enumerate(sample.keypoint_names):
            expected = (
                out.vertices[0, FACE_VERTICES[name]]
                if name in FACE_VERTICES
                else out.joints[0, JOINT_NAMES.index(name)]
            ).numpy()
            np.testing.assert_allclose(ours.keypoints_3d[i], expected, atol=1e-5)
            pixel = np.array(K) @ expected / expected[2]
            np.testing.assert_allclose(ours.keypoints_2d[i], pixel[:2], atol=1e-3)
        tall = upright.vertices[0, :, 1]
        assert ours.height_m == pytest.approx(float(tall.max() - tall.min()), abs=1e-5)


def test_pose_does_not_hold_the_place(root: Path) -> None:
    for found in humans(root)[0].people:
        assert not found.body["global_orient"].any()
        assert not found.body["transl"].any()
        assert not np.allclose(found.T_cam_body, np.eye(4))


def test_unsaid_visibility_is_what_is_in_the_image(root: Path) -> None:
    rng = np.random.default_rng(3)
    far_left = person(rng, transl=[-3.0, 0.0, 4.0])
    behind = person(rng, transl=[0.0, 0.0, -4.0])
    change(root, lambda line: line["people"].extend([far_left, behind]))
    *shown, left, back = humans(root)[1].people
    for found in (*shown, left):
        inside = [0 <= x <= SIZE[1] and 0 <= y <= SIZE[0] for x, y in found.keypoints_2d]
        assert found.visible.tolist() == inside
    assert min(found.visible_fraction for found in shown) > 0.5
    assert left.visible_fraction < 0.2
    assert not back.visible.any()
    assert back.visible_fraction == 0.0
    assert np.isnan(back.keypoints_2d).any()


def test_said_visibility_is_kept_but_never_outside_the_image(root: Path) -> None:
    said = [i % 2 == 0 for i in range(17)]
    rng = np.random.default_rng(3)
    left = person(rng, transl=[-3.0, 0.0, 4.0], visible=[True] * 17, visible_fraction=0.25)
    change(root, lambda line: line["people"].append(left))
    change(root, lambda line: line["people"][0].update(visible=said, visible_fraction=1, id="anna"))
    first, _, outside = humans(root)[1].people
    assert first.id == "test/images/001.png/anna"
    assert first.visible_fraction == 1.0
    assert not first.visible[1::2].any()
    assert first.visible[::2].any()
    assert not outside.visible.all()
    assert outside.visible_fraction == 0.25


BAD_LINES: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda line: line.update(gender="male"), "the line: unknown key 'gender'"),
    (lambda line: line["people"][0].update({"a\nb": 1}), r"people\.0: unknown key 'a\\nb'"),
    (lambda line: line.pop("K"), "K: Field required"),
    (lambda line: line["people"][1].pop("transl"), r"people\.1\.transl: Field required"),
    (lambda line: line["people"][0].update(betas=[0.0] * 11), r"betas: expected shape \(10,\), got \(11,\)"),
    (lambda line: line["people"][0].update(body_pose=[0.0] * 63), r"body_pose: expected lists .*\(21, 3\)"),
    (lambda line: line["people"][0].update(body_pose=[[0.0] * 3] * 20 + [[0.0]]), "all of one length"),
    (lambda line: line["people"][0].update(transl=[0, 0, "3"]), "transl: expected lists of numbers"),
    (lambda line: line["people"][0].update(transl=[0, 0, True]), "transl: expected lists of numbers"),
    (lambda line: line["people"][0].update(transl=[0, 0, 10**400]), "transl: expected lists of numbers"),
    (lambda line: line["people"][0].update(transl=[0, 0, float("nan")]), "NaN is no number"),
    (lambda line: line["people"][0].update(visible=[True] * 16), "visible: .*17 items"),
    (lambda line: line["people"][0].update(visible=[1] * 17), r"visible\.0: .*boolean"),
    (lambda line: line["people"][0].update(visible_fraction=1.5), "visible_fraction: .*less than or equal"),
    (lambda line: [p.update(id="same") for p in line["people"]], "people: two people have the same id"),
    (lambda line: line.update(people={}), "people: .*tuple"),
    (lambda line: line.update(group=""), "group: .*1 character"),
    (lambda line: line.update(K=[[0.0] * 3] * 3), "K: intrinsics need positive focal lengths"),
    (lambda line: line.update(K=[[60, 0, 400], [0, 60, 28], [0, 0, 1]]), "principal point .* outside"),
    (lambda line: line.update(image="../train/images/000.png"), "does not stay in the folder"),
    (lambda line: line.update(image="/etc/hostname"), "does not stay in the folder"),
    (lambda line: line.update(image="..\\a.png"), "does not stay in the folder"),
    (lambda line: line.update(image="a\nb.png"), "does not stay in the folder"),
    (lambda line: line.update(image="images/none.png"), "none.png: No such file"),
    (lambda line: line.update(image="images"), "images: Is a directory"),
    (lambda line: line.update(image="./images//000.png"), "'images/000.png' is also in line 1"),
    (lambda line: line.update(image="annotations.jsonl"), "not an image that Pillow can read"),
]


@pytest.mark.parametrize(("edit", "message"), BAD_LINES)
def test_bad_line_is_named_and_never_guessed(
    root: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    change(root, edit)
    with pytest.raises(TaskError, match=message) as caught:
        humans(root)
    assert str(caught.value).startswith(f"{root / 'test' / 'annotations.jsonl'}:2: ")
    assert "\n" not in str(caught.value)
    problems = SmplxPeople(root=root).verify()
    assert len(problems) == 1
    assert problems[0].startswith(f"{root / 'test' / 'annotations.jsonl'}:2: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a line of JSON"),
        ("[" * 100_000, "not a line of JSON"),
        ("[]", "the line: .*dictionary"),
        ('{"image": "a", "image": "b"}', "key 'image' stands twice"),
        ('{"image": 1e999}', "Infinity is no number|image: .*string"),
    ],
)
def test_line_that_is_no_object_is_named(root: Path, text: str, message: str) -> None:
    write_lines(root / "test", [*lines_of(root / "test"), "", text])
    with pytest.raises(TaskError, match=message) as caught:
        humans(root)
    assert "annotations.jsonl:4: " in str(caught.value)
    assert len(str(caught.value)) < 500


def test_file_without_images_is_not_a_dataset_of_nothing(root: Path) -> None:
    (root / "test" / "annotations.jsonl").write_text("\n\n")
    with pytest.raises(TaskError, match="no line, so no image"):
        humans(root)
    (root / "test" / "annotations.jsonl").write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(TaskError, match=r"jsonl:1: not a line of JSON"):
        humans(root)


def test_listing_decodes_no_image_and_reads_no_body(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(smplx_people, "decode_image", refuse)
    monkeypatch.setattr("dune_bench.data.smplx_bodies.load_body_model", refuse)
    samples = humans(root, "train")
    assert samples.ids == tuple(f"train/images/{i:03d}.png" for i in range(4))
    assert samples.groups == ("train_0", "train_0", "train_1", "train_1")
    assert samples.images(0)[0].size == SIZE


def test_images_are_read_as_they_are_and_handles_pickle_small(root: Path) -> None:
    samples = humans(root, "train")
    item = samples._items[2]
    assert len(pickle.dumps(item)) < 3000
    again = pickle.loads(pickle.dumps(item))
    pixels = np.asarray(Image.open(root / "train" / "images" / "002.png"))
    np.testing.assert_array_equal(again.images[0].read(), pixels)
    assert [p.id for p in again.load().people] == [p.id for p in samples[2].people]


def test_turned_photograph_has_the_size_that_it_is_shown_in(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIZE[0], SIZE[1])).save(root / "test" / "images" / "001.jpg", exif=exif)
    change(root, lambda line: line.update(image="images/001.jpg"))
    sample = humans(root)[1]
    assert sample.image.size == SIZE
    assert sample.image.read().shape == (*SIZE, 3)


def test_fingerprint_misses_what_changed_and_hits_what_did_not(
    root: Path, body_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prints() -> list[str]:
        dataset = SmplxPeople(root=root)
        return [dataset.fingerprint(split) for split in ("train", "test")]

    before = prints()
    assert len(set(before)) == 2
    shutil.rmtree(tmp_path / "cache")
    moved = Path(shutil.move(root, tmp_path / "moved"))
    assert [SmplxPeople(root=moved).fingerprint(split) for split in ("train", "test")] == before
    shutil.move(moved, root)
    Image.new("RGB", (SIZE[1], SIZE[0])).save(root / "test" / "images" / "000.png")
    changed = prints()
    assert changed[0] == before[0]
    assert changed[1] != before[1]
    change(root, lambda line: line["people"].pop())
    assert prints()[1] != changed[1]
    other = tmp_path / "SMPLX_NEUTRAL.npz"
    other.write_bytes(body_file.read_bytes() + b"another release")
    monkeypatch.setenv("DUNE_BENCH_SMPLX", str(other))
    assert prints()[0] != before[0]


def test_large_set_is_hashed_once_and_again_when_a_file_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = humans(root).images(0)[0].digest
    read: list[str] = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self.name) or real(self))
    assert humans(root).images(0)[0].digest == first
    assert read == []
    path = root / "test" / "images" / "000.png"
    Image.new("RGB", (SIZE[1], SIZE[0])).save(path)
    assert humans(root).images(0)[0].digest != first
    assert read == ["000.png"]
    # Changed moments ago: a second change might leave no trace, so it is read again.
    humans(root)
    assert read == ["000.png", "000.png"]
    next((root.parent / "cache" / "digests").glob("*.json")).write_text("[")
    humans(root)
    assert sorted(read[2:]) == ["000.png", "001.png"]


def test_change_that_keeps_length_and_time_is_found_by_the_check(root: Path) -> None:
    path = root / "test" / "images" / "000.png"
    dataset = SmplxPeople(root=root)
    dataset.fingerprint("test")
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))
    problems = SmplxPeople(root=root).verify()
    assert any("000.png changed but its time of change did not" in problem for problem in problems)
    assert any("damaged image" in problem for problem in problems)
    assert all(problem.startswith(f"{root}/test/annotations.jsonl:1: ") for problem in problems)


def test_test_that_shares_with_the_training_is_refused(root: Path) -> None:
    shutil.copy(root / "train" / "images" / "000.png", root / "test" / "images" / "001.png")
    change(root, lambda line: line.update(group="train_0"))
    problems = SmplxPeople(root=root).verify()
    assert [problem.partition(": ")[2].split(":")[0] for problem in problems] == [
        "the same picture is in test",
        "group 'train_0' is also in test",
    ]
    with pytest.raises(TaskError, match="the same picture"):
        SmplxPeople(root=root).prepare()


def test_prepared_folder_is_found_and_guessed_visibility_is_said(root: Path) -> None:
    with pytest.raises(UnavailableError, match=r"prepare smplx-people@1 --root DIR"):
        SmplxPeople()
    text = SmplxPeople(root=root).prepare(root)
    assert "test 2 images, 4 people in 1 groups, 4 without full visibility" in text
    assert "what is in the image counts as visible" in text
    assert SmplxPeople().root == root
    assert SmplxPeople().verify() == []


def test_doctor_does_not_read_a_large_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", None)
    registry = Registry(datasets={"smplx-people@1": DATASETS["smplx-people@1"]})
    (check,) = _datasets(registry, root)
    assert (check.state.value, check.essential) == ("ok", False)
    assert "found (test, train)" in check.text


def test_without_the_licensed_model_it_is_exit_3(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUNE_BENCH_SMPLX")
    assert SmplxPeople(root=root).verify() == []
    for use in (
        lambda d: d.samples(HumanSample, "test"),
        lambda d: d.fingerprint("test"),
        lambda d: d.prepare(),
    ):
        with pytest.raises(UnavailableError, match=r"register at https://smpl-x\.is\.tue\.mpg\.de"):
            use(SmplxPeople(root=root))
    assert SmplxPeople().root == root  # recorded, although not ready


def test_other_kinds_splits_and_folders_are_named(root: Path, tmp_path: Path) -> None:
    dataset = Registry().dataset("smplx-people@1")("smplx-people@1", root=root)
    assert dataset.splits == ("test", "train")
    with pytest.raises(UsageError, match="it has HumanSample"):
        dataset.samples(DepthSample, "test")
    with pytest.raises(UsageError, match=r"no split 'tset'.*did you mean test"):
        dataset.samples(HumanSample, "tset")
    for place in (tmp_path / "nowhere", root / "test"):
        with pytest.raises(UnavailableError, match=r"no SPLIT/annotations\.jsonl in"):
            SmplxPeople(root=place)


def test_file_that_changes_under_a_run_is_not_mixed_up(root: Path) -> None:
    samples = humans(root)
    lines = lines_of(root / "test")
    write_lines(root / "test", [lines[1], lines[0]])
    with pytest.raises(TaskError, match=r"changed while it was used|not a line of JSON"):
        samples[0]
    assert json.loads((root / "test" / "annotations.jsonl").read_text().splitlines()[0]) == lines[1]
