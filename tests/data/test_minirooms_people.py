"""The data set with more people: what it is made of, and what it must not mix up."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dune_bench.data.minirooms.card import read_card
from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.data.minirooms.people import MiniRoomsPeople
from dune_bench.data.samples import DepthSample, HumanSample, PairSample, RelocScene, SegSample
from dune_bench.errors import TaskError, UnavailableError, UsageError
from tests.data.minirooms_fixture import write_shard, write_tiny_minirooms, write_tiny_people

NAME = "minirooms-people@1"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("people")
    write_tiny_minirooms(root, rooms_train=2, rooms_test=2, views=3)
    write_tiny_people(root)
    return root


def _people(root: Path) -> MiniRoomsPeople:
    return MiniRoomsPeople(NAME, root)


def test_training_lacks_neither_the_rooms_nor_the_people(both: Path) -> None:
    samples = _people(both).samples(HumanSample, "train")
    rooms = MiniRooms("minirooms@1", both).samples(HumanSample, "train")
    assert samples.ids == (*rooms.ids, *(f"people/people{i:03d}/{v}" for i in range(3) for v in range(2)))
    assert len(set(samples.groups)) == 2 + 3
    for sample, id_ in zip(samples, samples.ids, strict=True):
        assert isinstance(sample, HumanSample)
        assert sample.id == id_
        assert sample.keypoint_names == _people(both).keypoint_names
        assert sample.image.read().shape == (112, 112, 3)


def test_test_rooms_are_no_others_than_those_of_minirooms(both: Path) -> None:
    """Results on the two data sets compare sample by sample."""
    ours = _people(both).samples(HumanSample, "test")
    theirs = MiniRooms("minirooms@1", both).samples(HumanSample, "test")
    assert (ours.ids, ours.groups) == (theirs.ids, theirs.groups)
    assert [ref.digest for i in range(len(ours)) for ref in ours.images(i)] == [
        ref.digest for i in range(len(theirs)) for ref in theirs.images(i)
    ]


@pytest.mark.parametrize("kind", [SegSample, DepthSample, PairSample, RelocScene])
def test_a_shard_without_depth_does_not_promise_other_samples(both: Path, kind: type) -> None:
    with pytest.raises(UsageError, match=f"no samples of kind {kind.__name__}; it has HumanSample"):
        _people(both).samples(kind, "train")
    with pytest.raises(UsageError, match=f"no samples of kind {kind.__name__}; it has HumanSample"):
        MiniRooms(NAME, both).samples(kind, "people")


def test_a_split_that_is_not_there_is_named(both: Path) -> None:
    for call in (_people(both).fingerprint, lambda split: _people(both).samples(HumanSample, split)):
        with pytest.raises(UsageError, match="no split 'people'"):
            call("people")


def test_other_people_or_other_rooms_do_not_keep_the_fingerprint(both: Path, tmp_path: Path) -> None:
    before = {split: _people(both).fingerprint(split) for split in ("train", "test")}
    assert before["test"] != MiniRooms("minirooms@1", both).fingerprint("test")  # another data set
    people = tmp_path / "people"
    write_tiny_minirooms(people, rooms_train=2, rooms_test=2, views=3)
    write_tiny_people(people, seed=5)
    assert _people(people).fingerprint("train") != before["train"]
    assert _people(people).fingerprint("test") == before["test"]
    rooms = tmp_path / "rooms"
    write_tiny_minirooms(rooms, rooms_train=2, rooms_test=2, views=3, seed=9)
    write_tiny_people(rooms)
    assert _people(rooms).fingerprint("train") != before["train"]
    assert _people(rooms).fingerprint("test") != before["test"]


def test_damage_is_not_overlooked(both: Path, tmp_path: Path) -> None:
    assert _people(both).verify() == []
    root = tmp_path / "copy"
    shutil.copytree(both, root)
    shard = root / "crowd" / "people.zip"
    with zipfile.ZipFile(shard) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    gone = members.pop("people001/1.objects.png")
    write_shard(shard, members | {"people001/7.objects.png": gone})
    problems = "\n".join(_people(root).verify())
    assert "sha256" in problems
    assert "'people001/1.objects.png' is missing" in problems
    assert "'people001/7.objects.png' is in no room" in problems


def test_an_index_without_depth_does_not_ask_for_depth(both: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(both, root)
    shard = root / "crowd" / "people.zip"
    with zipfile.ZipFile(shard) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    index = json.loads(members["index.json"]) | {"depth": True}
    write_shard(shard, members | {"index.json": json.dumps(index).encode()})
    assert any("people000/0.depth' is missing" in problem for problem in _people(root).verify())


def test_half_a_data_set_is_one_clear_line(both: Path, tmp_path: Path) -> None:
    write_tiny_people(tmp_path)
    with pytest.raises(UnavailableError, match=r"minirooms@1\.yaml: no such dataset card"):
        _people(tmp_path)
    write_tiny_minirooms(tmp_path, rooms_train=2, rooms_test=2, views=2)
    (tmp_path / "crowd" / "people.zip").unlink()
    with pytest.raises(UnavailableError, match="no such shard"):
        _people(tmp_path).samples(HumanSample, "train")
    with pytest.raises(UnavailableError, match="no such shard"):
        _people(tmp_path).prepare()


def test_rooms_are_not_taken_for_people(both: Path, tmp_path: Path) -> None:
    write_tiny_minirooms(tmp_path, rooms_train=2, rooms_test=2, views=2, name=NAME)
    write_tiny_minirooms(tmp_path / "more", rooms_train=2, rooms_test=2, views=2)
    shutil.copy(tmp_path / "more" / "minirooms@1.yaml", tmp_path)
    with pytest.raises(UsageError, match="expected 'people' alone"):
        _people(tmp_path)


def test_prepare_does_not_hide_where_the_data_is(both: Path) -> None:
    said = _people(both).prepare()
    assert str(both / "crowd") in said
    assert "people 6 views" in said
    assert "train 6 views" in said


def test_credits_are_named(both: Path) -> None:
    card = read_card(both / f"{NAME}.yaml")
    assert card.attribution == "ATTRIBUTION-people.md"
    assert "credited one by one in ATTRIBUTION-people.md" in card.licence


def test_shipped_people_are_neither_few_nor_large() -> None:
    """The promise of the data set: many bodies in at most 25 MB, none of them in a room of MiniRooms."""
    data, rooms = MiniRoomsPeople(), MiniRooms()
    card = MiniRooms(NAME).card.splits["people"]
    assert card.size <= 25e6
    assert card.people >= 4 * rooms.card.splits["train"].people
    assert MiniRooms(NAME).shard("people").stat().st_size == card.size

    def poses(name: str, split: str) -> set[bytes]:
        index = MiniRooms(name).index(split)
        return {np.round(p.body["pose"], 5).tobytes() for room in index.rooms for p in room.people}

    people = poses(NAME, "people")
    assert len(people) == card.people
    assert not people & (poses("minirooms@1", "train") | poses("minirooms@1", "test"))
    assert len(data.samples(HumanSample, "train")) == card.views + rooms.card.splits["train"].views
    shown = {name: one for name, one in data.card.splits.items() if name.startswith("train")}
    assert sum(one.views for one in shown.values()) == len(data.samples(HumanSample, "train"))


def test_a_shard_that_shrank_is_not_read(both: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(both, root)
    shard = root / "crowd" / "people.zip"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(TaskError, match="bytes, but"):
        _people(root).samples(HumanSample, "train")
