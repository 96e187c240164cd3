"""Folders, lists and rendered rooms as sources of images."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.data.minirooms.dataset import MiniRooms
from dune_bench.distill import sources
from dune_bench.distill.sources import (
    ImageFolder,
    ImageList,
    MiniRoomsImages,
    PackedNames,
    check_length,
    printable,
    read_bytes,
)
from dune_bench.errors import TaskError, UnavailableError, UsageError
from tests.distill.pictures import fill, picture, png


@given(names=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_packed_names_are_the_names(names: list[str]) -> None:
    packed = PackedNames(names)
    assert list(packed) == names
    assert list(PackedNames.restored(packed.blob, packed.ends)) == names


def test_names_of_another_blob_are_refused() -> None:
    packed = PackedNames(["ab", "c"])
    for blob, ends in [
        (b"abcd", packed.ends),
        (b"abc", np.array([3, 1])),
        (b"abc", np.array([[3]])),
        (b"a", np.array([], np.int64)),
    ]:
        with pytest.raises(ValueError, match="do not belong together"):
            PackedNames.restored(blob, ends)
    with pytest.raises(IndexError):
        packed[2]
    with pytest.raises(IndexError):
        packed[-1]


def test_folder_gives_every_image_once_in_the_order_of_paths(tmp_path: Path) -> None:
    fill(tmp_path / "b" / "deep", 2, first=20)
    fill(tmp_path / "a", 2, first=10)
    (tmp_path / "top.PNG").write_bytes(png(picture(5)))
    (tmp_path / "labels.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    fill(tmp_path / ".hidden", 1)
    (tmp_path / "a" / "._00.png").write_bytes(b"a resource fork is no image")
    source = ImageFolder(tmp_path, "some")
    assert source.name == "some"
    assert [source.describe(i) for i in range(len(source))] == [
        *("a/00.png", "a/01.png", "b/deep/00.png", "b/deep/01.png", "top.PNG")
    ]
    assert np.array_equal(source.read(2), picture(20))
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(4), picture(5))
    # Depth maps that lie beside the images are left out by their ending.
    (tmp_path / "a" / "00.jpg").write_bytes(png(picture(1)))
    assert len(ImageFolder(tmp_path, suffixes=[".jpg"])) == 1
    assert ImageFolder(tmp_path).name == tmp_path.name


def test_a_loop_of_links_is_not_endless_and_a_linked_folder_is_read(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", 2)
    root = fill(tmp_path / "root", 1)
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert len(ImageFolder(root)) == 3


def test_missing_or_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"nowhere: no such folder of images; get the data"):
        ImageFolder(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UsageError, match=r"no image \(\.jpg, .*\) in this folder"):
        ImageFolder(tmp_path)


def test_a_folder_that_cannot_be_listed_is_not_silently_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "open", 1)
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UsageError, match="closed: this folder of images cannot be listed: Permission denied"):
        ImageFolder(tmp_path)


def test_list_names_images_relative_to_its_root(tmp_path: Path) -> None:
    fill(tmp_path / "data" / "x", 3)
    names = tmp_path / "train.txt"
    names.write_bytes(b"x/02.png\r\n\n   \nx/00.png\nx/gone.png")
    source = ImageList(names, tmp_path / "data")
    assert (source.name, len(source)) == ("train", 3)
    assert [source.describe(i) for i in range(3)] == ["x/02.png", "x/00.png", "x/gone.png"]
    assert np.array_equal(source.read(0), picture(2))
    with pytest.raises(TaskError, match=r"x/gone\.png: cannot be read \(No such file or directory\)"):
        source.read(2)
    beside = tmp_path / "data" / "beside.txt"
    beside.write_text("x/01.png\n")
    assert np.array_equal(ImageList(beside).read(0), picture(1))


@pytest.mark.parametrize("line", ["/etc/x.png", "../x.png", "a/../../x.png", "a\0b.png"])
def test_list_does_not_lead_out_of_its_root(tmp_path: Path, line: str) -> None:
    names = tmp_path / "list.txt"
    names.write_text(f"fine.png\n{line}\n")
    with pytest.raises(UsageError, match=r"list\.txt: line 2: .* is no path below the root"):
        ImageList(names)


def test_missing_or_empty_list_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"no\.txt: no such list"):
        ImageList(tmp_path / "no.txt")
    with pytest.raises(UsageError, match="cannot read this list"):
        ImageList(tmp_path)
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UsageError, match="names no image"):
        ImageList(tmp_path / "empty.txt")
    with pytest.raises(UnavailableError, match="correct `root`"):
        ImageList(tmp_path / "empty.txt", tmp_path / "nowhere")


def test_damaged_file_says_which(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    (tmp_path / "cut.png").write_bytes(png(picture(1, 64, 64))[:60])
    (tmp_path / "empty.png").write_bytes(b"")
    source = ImageFolder(tmp_path)
    for index, text in [(1, "cut.png: "), (2, "empty.png: the image file is empty")]:
        with pytest.raises(TaskError, match=text):
            source.read(index)


def test_a_huge_file_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_IMAGE_BYTES", 10)
    (tmp_path / "big.png").write_bytes(bytes(11))
    with pytest.raises(TaskError, match="b: 11 bytes are more than 10: not read"):
        read_bytes(tmp_path / "big.png", "b")
    assert read_bytes(tmp_path / "big.png", "b", 4, 5) == bytes(5)
    with pytest.raises(TaskError, match=r"b: 2 bytes of 5: big\.png is cut off"):
        read_bytes(tmp_path / "big.png", "b", 9, 5)


def test_names_in_messages_cannot_break_a_line_or_an_encoding() -> None:
    shown = printable(os.fsdecode(b"a\nb\xff\x1b[31m") + "é")
    assert shown == "a\\nb\\udcff\\x1b[31mé"
    shown.encode("utf-8")


def test_wrong_length_names_found_and_expected(tmp_path: Path) -> None:
    source = ImageFolder(fill(tmp_path / "set", 3))
    check_length(source, ())
    check_length(source, (7, 3))
    with pytest.raises(UsageError, match="set: 3 images found, 1,200 or 4 expected: complete the data"):
        check_length(source, (1200, 4))


def test_minirooms_gives_training_images_then_finished_renders(tmp_path: Path) -> None:
    source = MiniRoomsImages()
    assert (source.name, len(source), source.describe(0)[:6]) == ("minirooms@1", 420, "train/")
    assert source.read(0).shape == (448, 448, 3)
    assert not any(source.describe(i).startswith("test/") for i in range(len(source)))
    assert len(MiniRoomsImages(split="test")) == MiniRooms().card.splits["test"].views

    rooms = tmp_path / "more" / "rooms"
    for room in ("train_001", "train_000", "train_002.77.partial", "train_003", "test_000"):
        fill(rooms / room, 0)
        for view in (0, 2, 10):
            (rooms / room / f"{view}.jpg").write_bytes(png(picture(view)))
        if room != "train_003":
            (rooms / room / "room.json").write_text(json.dumps({}))
    # What a render writes, and its folder of rooms alone.
    for folder, prefix in [(tmp_path / "more", "rooms/"), (rooms, "")]:
        both = MiniRoomsImages(unlabelled=folder)
        assert [both.describe(i) for i in range(420, len(both))] == [
            f"unlabelled/{prefix}{room}/{view}.jpg"
            for room in ("train_000", "train_001")
            for view in (0, 2, 10)
        ]
        assert np.array_equal(both.read(422), picture(10))
        assert np.array_equal(both.read(1), source.read(1))


def test_renders_without_a_finished_room_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no such folder of unlabelled renders"):
        MiniRoomsImages(unlabelled=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no finished room"):
        MiniRoomsImages(unlabelled=tmp_path)
