"""The MiniRooms loader, on tiny shards whose truth is known by ray casting."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dune_bench.data.base import limit_groups
from dune_bench.data.minirooms import shards
from dune_bench.data.minirooms.card import write_card
from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.minirooms.depth_codec import encode_depth
from dune_bench.data.minirooms.shards import read_member
from dune_bench.data.samples import (
    DepthSample,
    HumanSample,
    ImageRef,
    PairSample,
    RelocScene,
    SegSample,
)
from dune_bench.errors import TaskError, UnavailableError, UsageError
from tests.data.minirooms_fixture import grid, write_shard, write_tiny_minirooms

NAME = "minirooms@1"
KINDS = (SegSample, DepthSample, PairSample, HumanSample, RelocScene)


@pytest.fixture
def damaged(tiny_root: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, bytes]], None]], MiniRooms]:
    """Rewrites the test shard through a function of its members, with a card that fits it."""

    def rewrite(change: Callable[[dict[str, bytes]], None]) -> MiniRooms:
        root = tmp_path / "copy"
        shutil.copytree(tiny_root, root)
        with zipfile.ZipFile(root / "test.zip") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        change(members)
        write_shard(root / "test.zip", members)
        _mend_card(root)
        return MiniRooms(NAME, root)

    return rewrite


def _mend_card(root: Path) -> None:
    """Makes the card's size and sha256 those of the file, whatever is in it."""
    card = root / f"{NAME}.yaml"
    old = (root / "test.zip").read_bytes()
    lines, split = [], ""
    for line in card.read_text().splitlines():
        key = line.strip().split(":")[0]
        split = key if line.startswith("  ") and key in ("train", "test") else split
        if split == "test" and key == "sha256":
            line = f"    sha256: {hashlib.sha256(old).hexdigest()}"
        if split == "test" and key == "size":
            line = f"    size: {len(old)}"
        lines.append(line)
    card.write_text("\n".join(lines) + "\n")


def edit_index(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def edit(members: dict[str, bytes]) -> None:
        index = json.loads(members["index.json"])
        change(index)
        members["index.json"] = json.dumps(index).encode()

    return edit


@pytest.mark.parametrize("kind", KINDS)
def test_sample_ids_and_groups_are_those_of_the_index(tiny_root: Path, kind: type) -> None:
    data = MiniRooms(NAME, tiny_root)
    samples = data.samples(kind, "test")
    assert len(samples) == {SegSample: 6, DepthSample: 6, PairSample: 4, HumanSample: 6, RelocScene: 2}[kind]
    assert len(set(samples.ids)) == len(samples)
    assert set(samples.groups) == {"test000", "test001"}
    for i, sample in enumerate(samples):
        assert (sample.id, sample.group) == (samples.ids[i], samples.groups[i])


def test_depth_of_one_view_lands_on_the_depth_of_the_other(tiny_root: Path) -> None:
    """An axis, half-pixel or inverse-transform mistake in loader or fixture moves points by >= 0.5 px."""
    errors = []
    for pair in MiniRooms(NAME, tiny_root).samples(PairSample, "train"):
        a, b, size = pair.view1, pair.view2, pair.view1.image.size[0]
        side = a.depth.shape[0]
        rays = np.c_[grid(side, size), np.ones(side * side)] @ np.linalg.inv(a.K).T
        points = np.c_[rays * a.depth.reshape(-1, 1), np.ones(side * side)]
        moved = points @ (b.T_cam_world @ np.linalg.inv(a.T_cam_world)).T
        pixels = (moved[:, :3] @ b.K.T)[:, :2] / moved[:, 2:3]
        cell = np.floor(pixels * side / size).astype(int)
        inside = (moved[:, 2] > 0) & (cell >= 0).all(1) & (cell < side).all(1)
        seen = b.depth[cell[inside, 1], cell[inside, 0]]
        # Within its cell a surface's depth varies by far less than this, unless it is hidden.
        errors.append(np.abs(seen - moved[inside, 2]) < 0.06 * moved[inside, 2])
        assert abs(inside.mean() * errors[-1].mean() - pair.covisible) < 0.06
    assert len(errors) == 8


def test_labels_and_depth_agree_with_an_independent_cast(tiny_root: Path) -> None:
    """Floor pixels, and no others, un-project to z = 0 in the world."""
    data = MiniRooms(NAME, tiny_root)
    floor = data.classes.index("floor")
    for seg, view in zip(
        data.samples(SegSample, "test"),
        (v for s in data.samples(RelocScene, "test") for v in (s.reference, *s.queries)),
        strict=True,
    ):
        size, side = view.image.size[0], view.depth.shape[0]
        rays = np.c_[grid(side, size), np.ones(side * side)] @ np.linalg.inv(view.K).T
        points = np.c_[rays * view.depth.reshape(-1, 1), np.ones(side * side)]
        height = (points @ np.linalg.inv(view.T_cam_world).T)[:, 2].reshape(side, side)
        # A depth pixel sits on the corner of four image pixels: compare where they agree.
        corners = seg.labels.reshape(side, 2, side, 2).transpose(0, 2, 1, 3).reshape(side, side, 4)
        whole = (corners == corners[..., :1]).all(-1)
        is_floor = corners[..., 0] == floor
        assert (np.abs(height[whole & is_floor]) < 2e-3).all()
        assert (height[whole & ~is_floor] > 1e-3).mean() > 0.99
        assert whole.mean() > 0.8


def test_unseen_models_are_not_tagged_seen(tiny_root: Path) -> None:
    data = MiniRooms(NAME, tiny_root)
    rooms = {room.id: room for room in data.index("test").rooms}
    tagged = 0
    for sample in data.samples(SegSample, "test"):
        unseen = {item.label for item in rooms[sample.group].objects if not item.seen}
        hidden = ~sample.tags["seen"]
        assert set(np.unique(sample.labels[hidden])) <= unseen
        tagged += int(hidden.sum())
    assert tagged > 0


def test_people_are_moved_into_the_camera(tiny_root: Path) -> None:
    """Visible key points lie on pixels of the person; the body's pose is camera <- world <- body."""
    data = MiniRooms(NAME, tiny_root)
    label = data.classes.index("person")
    seen = 0
    for human, seg in zip(data.samples(HumanSample, "test"), data.samples(SegSample, "test"), strict=True):
        facts = next(r for r in data.index("test").rooms if r.id == human.group)
        for person in human.people:
            cells = np.floor(person.keypoints_2d[person.visible]).astype(int)
            assert (seg.labels[cells[:, 1], cells[:, 0]] == label).mean() >= 0.9
            seen += len(cells)
            world = np.c_[facts.people[0].keypoints_world, np.ones(17)]
            in_body = world @ np.linalg.inv(facts.people[0].T_world_body).T
            np.testing.assert_allclose((in_body @ person.T_cam_body.T)[:, :3], person.keypoints_3d, atol=1e-9)
    assert seen > 50


def test_key_point_behind_the_camera_gets_no_pixel(damaged: Any) -> None:
    def move(index: dict[str, Any]) -> None:
        index["rooms"][0]["people"][0]["keypoints_world"][0] = [0.0, -50.0, 1.0]
        for view in index["rooms"][0]["views"]:
            view["people"][0]["keypoint_visible"][0] = False
            view["people"][0]["visible_fraction"] = 0.5

    person = damaged(edit_index(move)).samples(HumanSample, "test")[0].people[0]
    assert np.isnan(person.keypoints_2d[0]).all()
    assert np.isfinite(person.keypoints_2d[1:]).all()
    assert person.keypoints_3d[0, 2] < 0


def test_person_of_whom_nothing_shows_is_not_in_the_sample(damaged: Any) -> None:
    def hide(index: dict[str, Any]) -> None:
        index["rooms"][0]["views"][1]["people"][0]["visible_fraction"] = 0.0

    people = [len(s.people) for s in damaged(edit_index(hide)).samples(HumanSample, "test")]
    assert people[1] == 0
    assert sum(people) > 0


def test_listing_samples_decodes_nothing(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = MiniRooms(NAME, tiny_root)
    data.index("train")

    def refuse(*_: object) -> None:
        raise AssertionError("a pixel was read")

    monkeypatch.setattr(shards, "read_member", refuse)
    for kind in KINDS:
        samples = data.samples(kind, "train")
        assert samples.ids
        assert samples.groups
        assert [samples.images(i) for i in range(len(samples))]
    with pytest.raises(AssertionError, match="a pixel"):
        data.samples(SegSample, "train")[0]


def test_image_digest_is_that_of_the_encoded_bytes(tiny_root: Path) -> None:
    ref = MiniRooms(NAME, tiny_root).samples(SegSample, "test").images(1)[0]
    data = read_member(tiny_root / "test.zip", "test000/1.jpg")
    assert ref.digest == hashlib.sha256(data).hexdigest()
    image = ref.read()
    assert image.dtype == np.uint8
    assert image.shape == (*ref.size, 3)


def _digest_of_pixels(ref: ImageRef) -> int:
    return int(ref.read().astype(np.int64).sum())


def test_forked_workers_do_not_mix_up_members(tiny_root: Path) -> None:
    """A zip handle shared over a fork reads at another process's offset."""
    refs = [MiniRooms(NAME, tiny_root).samples(SegSample, "train").images(i)[0] for i in range(12)]
    expected = [_digest_of_pixels(ref) for ref in refs]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_digest_of_pixels, refs * 20, chunksize=1) == expected * 20


def test_handles_pickle_small(tiny_root: Path) -> None:
    """Neither an image nor a sample to be loaded carries the whole index to a worker."""
    samples = MiniRooms(NAME, tiny_root).samples(SegSample, "train")
    ref = samples.images(0)[0]
    assert len(pickle.dumps(ref)) < 1000
    again = pickle.loads(pickle.dumps(samples))
    np.testing.assert_array_equal(again[3].labels, samples[3].labels)
    one = pickle.dumps(samples.subset([0]))
    assert b"train001" not in one


def test_replaced_shard_is_read_anew(tmp_path: Path) -> None:
    write_tiny_minirooms(tmp_path, 1, 1, 1, size=32, seed=1)
    before = MiniRooms(NAME, tmp_path).samples(SegSample, "test")[0]
    write_tiny_minirooms(tmp_path, 1, 1, 1, size=32, seed=2)
    after = MiniRooms(NAME, tmp_path).samples(SegSample, "test")[0]
    assert before.image.digest != after.image.digest
    assert (before.labels != after.labels).any()


def test_fingerprint_changes_with_the_shard_and_the_split_only(tiny_root: Path, tmp_path: Path) -> None:
    one = MiniRooms(NAME, tiny_root)
    assert one.fingerprint("train") == MiniRooms(NAME, tiny_root).fingerprint("train")
    assert one.fingerprint("train") != one.fingerprint("test")
    moved = tmp_path / "moved"
    shutil.copytree(tiny_root, moved)
    assert MiniRooms(NAME, moved).fingerprint("test") == one.fingerprint("test")
    write_tiny_minirooms(tmp_path / "other", 1, 1, 1, size=32, seed=5)
    assert MiniRooms(NAME, tmp_path / "other").fingerprint("test") != one.fingerprint("test")


def test_intact_shards_have_no_problems(tiny_root: Path) -> None:
    data = MiniRooms(NAME, tiny_root)
    assert data.verify() == []
    assert "12 views" in data.prepare()


def test_flipped_byte_is_found_by_verify_and_refused_by_readers(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "flipped"
    shutil.copytree(tiny_root, root)
    with zipfile.ZipFile(root / "test.zip") as archive:
        offset = archive.getinfo("test001/2.jpg").header_offset + 300
    data = bytearray((root / "test.zip").read_bytes())
    data[offset] ^= 0xFF
    (root / "test.zip").write_bytes(data)
    rooms = MiniRooms(NAME, root)
    problems = rooms.verify()
    assert any("sha256 is" in p for p in problems)
    assert any("test001/2.jpg" in p for p in problems)
    with pytest.raises(TaskError, match=r"test\.zip.*test001/2\.jpg.*get the shard again"):
        rooms.samples(SegSample, "test")[5].image.read()


def test_truncated_shard_is_one_clear_line(tiny_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "short"
    shutil.copytree(tiny_root, root)
    whole = (root / "test.zip").read_bytes()
    (root / "test.zip").write_bytes(whole[:5000])
    rooms = MiniRooms(NAME, root)
    with pytest.raises(TaskError, match=r"5000 bytes, but minirooms@1\.yaml says"):
        rooms.samples(SegSample, "test")
    problems = rooms.verify()
    assert len(problems) == 2
    assert "not a readable zip" in problems[1]


def test_missing_shard_or_card_is_unavailable_not_failed(tiny_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no such dataset card"):
        MiniRooms(NAME, tmp_path)
    root = tmp_path / "lost"
    shutil.copytree(tiny_root, root)
    (root / "test.zip").unlink()
    rooms = MiniRooms(NAME, root)
    with pytest.raises(UnavailableError, match=r"test\.zip: no such shard"):
        rooms.samples(DepthSample, "test")
    assert rooms.verify() == [f"{root / 'test.zip'}: missing; reinstall dune-bench or correct the root"]
    assert len(rooms.samples(DepthSample, "train")) == 12


def test_unknown_split_and_kind_name_what_there_is(tiny_root: Path) -> None:
    rooms = MiniRooms(NAME, tiny_root)
    with pytest.raises(UsageError, match=r"no split 'tests'.*test"):
        rooms.samples(SegSample, "tests")
    with pytest.raises(UsageError, match="no samples of kind int; it has SegSample"):
        rooms.samples(int, "test")  # type: ignore[arg-type]


def _rename(old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members[new] = members.pop(old)

    return change


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/etc/x.jpg", "test000/run.py", "a/b/c.jpg", "test000/..jpg"]
)
def test_member_that_no_shard_has_is_refused(damaged: Any, name: str) -> None:
    rooms = damaged(_rename("test000/0.jpg", name))
    with pytest.raises(TaskError, match="unexpected member"):
        rooms.samples(SegSample, "test")


def test_compressed_member_is_refused(tiny_root: Path, tmp_path: Path) -> None:
    """A small compressed member could inflate to any size."""
    path = tmp_path / "test.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.json", b" " * 10_000_000)
    with pytest.raises(TaskError, match="is compressed or larger"):
        read_member(path, "index.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("classes"), r"classes: Field required"),
        (lambda x: x.update(schema=2), "schema: Input should be 1"),
        (lambda x: x["rooms"][0]["views"][0]["K"].pop(), r"rooms\.0\.views\.0\.K: .*shape \(3, 3\)"),
        (lambda x: x["rooms"][1]["views"][0].update(T_cam_world=[[1e400] * 4] * 4), "finite"),
        (lambda x: x["rooms"][0]["objects"][3].update({"class": 99}), "unknown class 99"),
        (lambda x: x["rooms"][0]["objects"][3].update(index=0), "an object index stands twice"),
        (lambda x: x["rooms"][1].update(id="test000"), "a room id stands twice"),
        (lambda x: x["rooms"][0]["views"][1].update(id="0"), "a view id stands twice"),
        (lambda x: x["rooms"][0]["views"][0]["people"][0].update(person="ghost"), "people whom the room"),
        (lambda x: x["rooms"][0]["views"][0]["people"][0]["keypoint_visible"].pop(), "not 17 long"),
        (lambda x: x["rooms"][0].update(id="../up"), r"rooms\.0\.id"),
    ],
)
def test_damaged_index_names_file_entry_and_problem(damaged: Any, change: Any, message: str) -> None:
    rooms = damaged(edit_index(change))
    with pytest.raises(TaskError, match=rf"test\.zip: index\.json: .*{message}"):
        rooms.index("test")


def test_object_missing_from_the_table_is_not_ignored_silently(damaged: Any) -> None:
    rooms = damaged(edit_index(lambda x: x["rooms"][0]["objects"].pop(0)))
    with pytest.raises(TaskError, match="object 0 is not in the table of room test000"):
        rooms.samples(SegSample, "test")[0]


def test_image_of_another_size_is_refused_before_it_is_decoded(damaged: Any) -> None:
    rooms = damaged(edit_index(lambda x: x.update(image_size=[448, 448])))
    with pytest.raises(TaskError, match=r"test000/0\.jpg' is RGB 112 x 112, expected RGB 448 x 448"):
        rooms.samples(SegSample, "test").images(0)[0].read()


def test_object_map_that_is_no_png_is_one_clear_line(damaged: Any) -> None:
    rooms = damaged(lambda m: m.update({"test000/0.objects.png": b"not a picture"}))
    with pytest.raises(TaskError, match=r"test000/0\.objects\.png' does not decode"):
        rooms.samples(SegSample, "test")[0]


def test_truncated_depth_names_its_member(damaged: Any) -> None:
    rooms = damaged(lambda m: m.update({"test000/0.depth": m["test000/0.depth"][:-10]}))
    with pytest.raises(TaskError, match=r"member 'test000/0\.depth': depth: .*get the shard again"):
        rooms.samples(DepthSample, "test")[0]


def test_depth_of_another_shape_than_the_image_is_refused(damaged: Any) -> None:
    flat = encode_depth(np.ones((56, 28), np.float32))
    rooms = damaged(lambda m: m.update({"test000/0.depth": flat}))
    with pytest.raises(TaskError, match="is 56 x 28, not the shape of the image"):
        rooms.samples(DepthSample, "test")[0]


def test_card_of_shards_that_do_not_belong_together_is_not_written(damaged: Any, tmp_path: Path) -> None:
    damaged(edit_index(lambda x: x["classes"].reverse()))
    with pytest.raises(TaskError, match=r"differ from train\.zip"):
        write_card(tmp_path / "copy", tmp_path / "copy" / "new.yaml")
    assert not (tmp_path / "copy" / "new.yaml").exists()


def test_loader_needs_no_torch() -> None:
    code = "import sys, dune_bench.data.minirooms.dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not SegSample], ids=lambda k: k.__name__)
def test_limit_keeps_the_same_rooms_for_every_kind(tiny_root: Path, kind: type) -> None:
    data = MiniRooms(NAME, tiny_root)
    base = data.samples(SegSample, "train")
    images = len(base) - 1  # one less than all: something must go
    expected = set(limit_groups(base, images, at_least=1).groups)
    assert set(limit_groups(data.samples(kind, "train"), images, at_least=1).groups) == expected
