"""Shards: the same rooms must give the same bytes, and nothing foreign may get in."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from dune_bench.errors import TaskError, UsageError
from tools.minirooms.classes import CLASSES, INDEX
from tools.minirooms.pack import furniture_models, load_rooms, load_splits, pack, unseen_shares

_RECIPE = {"name": "minirooms@1", "seed": 3, "size": 448}


def _write_room(work: Path, room_id: str, chair: str) -> None:
    folder = work / room_id
    folder.mkdir(parents=True)
    for suffix in ("jpg", "objects.png", "depth"):
        (folder / f"0.{suffix}").write_bytes(f"{room_id} {suffix}".encode())
    record = {
        "id": room_id,
        "objects": [
            {"index": 0, "class": INDEX["floor"], "model": "floor"},
            {"index": 1, "class": INDEX["seat"], "model": chair},
        ],
        "people": [{"id": "person0", "keypoint_names": ["nose"]}],
        "views": [{"id": "0", "image_sha256": hashlib.sha256(f"{room_id} jpg".encode()).hexdigest()}],
    }
    (folder / "room.json").write_text(json.dumps(record))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    _write_room(tmp_path / "rooms", "train_000", "Scopia#a")
    _write_room(tmp_path / "rooms", "test_000", "Scopia#a")
    _write_room(tmp_path / "rooms", "test_001", "Scopia#b")
    return tmp_path / "rooms"


def test_same_rooms_do_not_give_other_bytes(work: Path, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in pack(_RECIPE, work, tmp_path / "a")]
    second = [path.read_bytes() for path in pack(_RECIPE, work, tmp_path / "b")]
    assert first == second


def test_index_does_not_call_unseen_models_seen(work: Path, tmp_path: Path) -> None:
    _, test = pack(_RECIPE, work, tmp_path / "out")
    with zipfile.ZipFile(test) as archive:
        index = json.loads(archive.read("index.json"))
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("test_001/0.depth") == b"test_001 depth"
    seen = {(r["id"], o["model"]): o["seen"] for r in index["rooms"] for o in r["objects"]}
    assert seen["test_000", "Scopia#a"]
    assert not seen["test_001", "Scopia#b"]
    assert seen["test_001", "floor"]
    assert index["classes"] == list(CLASSES)
    assert index["keypoint_names"] == ["nose"]
    assert (index["schema"], index["image_size"]) == (1, [448, 448])


def test_unseen_share_does_not_count_a_model_twice(work: Path) -> None:
    trained = furniture_models(load_rooms(work, "train"))
    assert unseen_shares(load_rooms(work, "test"), trained) == {"seat": (1, 2)}


def test_unfinished_rooms_are_not_packed(work: Path) -> None:
    _write_room(work, "train_001.77.partial", "Scopia#c")
    assert [room["id"] for room in load_rooms(work, "train")] == ["train_000"]


def test_foreign_picture_is_not_packed(work: Path, tmp_path: Path) -> None:
    (work / "test_000" / "0.jpg").write_bytes(b"other")
    with pytest.raises(TaskError, match=r"test_000/0.jpg"):
        pack(_RECIPE, work, tmp_path / "out")
    assert not (tmp_path / "out" / "test.zip").exists()


def test_no_rooms_is_not_an_empty_shard(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished train rooms"):
        pack(_RECIPE, tmp_path, tmp_path / "out")


def _write_people(work: Path) -> None:
    _write_room(work, "people_000", "Scopia#a")
    (work / "people_000" / "0.depth").unlink()
    record = json.loads((work / "people_000" / "room.json").read_text())
    record["people"][0]["T_world_body"] = [[0.123456789123, 1], [2, "3"]]
    (work / "people_000" / "room.json").write_text(json.dumps(record))


def test_people_are_not_packed_with_depth_or_as_training_rooms(tmp_path: Path) -> None:
    work = tmp_path / "rooms"
    _write_people(work)
    (path,) = pack({**_RECIPE, "name": "minirooms-people@1"}, work, tmp_path / "out")
    assert path.name == "people.zip"
    with zipfile.ZipFile(path) as archive:
        index = json.loads(archive.read("index.json"))
        assert archive.namelist() == ["index.json", "people_000/0.jpg", "people_000/0.objects.png"]
    assert (index["split"], index["depth"]) == ("people", False)
    assert all(o["seen"] for o in index["rooms"][0]["objects"])


def test_numbers_of_people_are_not_longer_than_they_mean(tmp_path: Path) -> None:
    work = tmp_path / "rooms"
    _write_people(work)
    (path,) = pack(_RECIPE, work, tmp_path / "out")
    with zipfile.ZipFile(path) as archive:
        person = json.loads(archive.read("index.json"))["rooms"][0]["people"][0]
    assert person["T_world_body"] == [[0.1234568, 1], [2, "3"]]


def test_rooms_do_not_gain_a_key_from_the_people(work: Path, tmp_path: Path) -> None:
    """The shards of minirooms@1 pack to the same bytes as before there were people."""
    train, _ = pack(_RECIPE, work, tmp_path / "out")
    with zipfile.ZipFile(train) as archive:
        assert "depth" not in json.loads(archive.read("index.json"))


def test_people_and_rooms_are_not_mixed(work: Path) -> None:
    assert list(load_splits(work)) == ["train", "test"]
    _write_people(work)
    with pytest.raises(UsageError, match="use another --out"):
        load_splits(work)
