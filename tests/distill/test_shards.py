"""Tar shards: read in place, listed once, and suspicious of what they find."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dune_bench.distill import shards as module
from dune_bench.distill.shards import TarShards, shard_paths
from dune_bench.errors import BenchError, TaskError, UnavailableError, UsageError
from tests.distill.pictures import picture, png, tar


def two_shards(folder: Path) -> list[Path]:
    long = "n01440764/" + "a" * 150 + ".png"  # needs an extended header
    first = tar(folder / "s-00.tar", {"a.png": png(picture(1)), "a.json": b"{}", "d/b.png": png(picture(2))})
    return [first, tar(folder / "s-01.tar", {long: png(picture(3)), "c.PNG": png(picture(4))})]


def test_images_are_those_that_tarfile_finds(tmp_path: Path) -> None:
    paths = two_shards(tmp_path)
    source = TarShards(paths)
    assert (source.name, len(source)) == (tmp_path.name, 4)
    assert source.describe(1) == "s-00.tar: d/b.png"
    for index, number in enumerate([1, 2, 3, 4]):
        assert np.array_equal(source.read(index), picture(number))
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(3), picture(4))
    with pytest.raises(IndexError):
        source.read(4)
    with pytest.raises(IndexError):
        source.describe(-1)


def test_one_of_several_images_of_a_sample_is_chosen_by_its_ending(tmp_path: Path) -> None:
    path = tar(tmp_path / "s.tar", {"1.rgb.png": png(picture(1)), "1.depth.png": png(picture(2))})
    assert len(TarShards([path])) == 2
    assert TarShards([path], suffixes=[".rgb.png"]).describe(0) == "s.tar: 1.rgb.png"
    with pytest.raises(UsageError, match=r"no image \(\.jpg\) in them"):
        TarShards([path], suffixes=[".jpg"])


def test_an_index_is_made_once_and_anew_for_another_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = two_shards(tmp_path / "data")
    index = tmp_path / "index"
    fresh = TarShards(paths, index=index)
    listed: list[Path] = []
    listing = module._listed

    def noted(shard: Path) -> Any:
        listed.append(shard)
        return listing(shard)

    monkeypatch.setattr(module, "_listed", noted)
    again = TarShards(paths, index=index)
    assert listed == []
    for number in range(4):
        assert again.describe(number) == fresh.describe(number)
        assert np.array_equal(again.read(number), fresh.read(number))
    tar(paths[0], {"new.png": png(picture(9))})
    assert len(TarShards(paths, index=index)) == 3
    assert listed == [paths[0]]
    # A damaged index is no reason to stop: the shard says it all.
    file = index / "s-01.tar.index.npz"
    for damage in (b"", b"no zip", file.read_bytes()[:-30]):
        file.write_bytes(damage)
        listed.clear()
        assert len(TarShards(paths, index=index)) == 3
        assert listed == [paths[1]]
    assert not list(index.glob("*.partial"))


def test_an_index_that_points_out_of_its_shard_is_not_believed(tmp_path: Path) -> None:
    path = two_shards(tmp_path)[0]
    TarShards([path], index=tmp_path)
    file = tmp_path / "s-00.tar.index.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    for key, value in [
        ("offsets", content["offsets"] + 10**9),
        ("sizes", -content["sizes"]),
        ("sizes", content["sizes"][:-1]),
        ("ends", content["ends"][:-1]),
        ("names", content["names"][:-1]),
    ]:
        np.savez(file, **{**content, key: value})
        assert np.array_equal(TarShards([path], index=tmp_path).read(0), picture(1))


def test_an_index_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="cannot write the index of a shard"):
        TarShards(two_shards(tmp_path), index=tmp_path / "file")


@pytest.mark.parametrize(
    "name", ["/etc/x.png", "../x.png", "a/../../x.png", "C:x.png", "a\\..\\x.png", "a\nb.png", "..", "."]
)
def test_a_member_name_that_leads_out_of_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = tar(tmp_path / "s.tar", {"fine.png": png(picture(1)), name: png(picture(2))})
    with pytest.raises(TaskError, match=r"s\.tar: the member name .* is not a plain path inside the archive"):
        TarShards([path])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_is_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "s.tar", "w:") as archive:
        info = tarfile.TarInfo("x.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(TaskError, match=r"'x\.png' is a link, a device or sparse"):
        TarShards([tmp_path / "s.tar"])


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w:") as archive:
        for _ in range(2):
            info = tarfile.TarInfo("x.png")
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(TaskError, match="stands twice"):
        TarShards([tmp_path / "s.tar"])


def test_missing_and_compressed_and_empty_shards_are_one_clear_line(tmp_path: Path) -> None:
    path = two_shards(tmp_path)[0]
    with pytest.raises(UnavailableError, match=r"no\.tar: no such shard"):
        TarShards([tmp_path / "no.tar"])
    packed = tmp_path / "s.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(TaskError, match=r"decompress a \.tar\.gz"):
        TarShards([packed])
    (tmp_path / "empty.tar").write_bytes(b"")
    with pytest.raises(TaskError, match=r"empty\.tar: not a whole plain tar file"):
        TarShards([tmp_path / "empty.tar"])
    tar(tmp_path / "none.tar", {})
    with pytest.raises(UsageError, match="no image"):
        TarShards([tmp_path / "none.tar"])
    with pytest.raises(UsageError, match="names no shard"):
        TarShards([])


def test_a_shard_that_is_cut_off_anywhere_is_not_a_shorter_shard(tmp_path: Path) -> None:
    data = two_shards(tmp_path)[0].read_bytes()
    with tarfile.open(tmp_path / "s-00.tar") as archive:
        end = max(member.offset_data + (member.size + 511) // 512 * 512 for member in archive)
    cut = tmp_path / "cut.tar"
    for length in [*range(512, end + 512, 512), 700, end - 100, end + 100]:
        cut.write_bytes(data[:length])
        with pytest.raises(TaskError, match=r"cut\.tar: "):
            TarShards([cut])
    cut.write_bytes(data[: end + 512])
    assert len(TarShards([cut])) == 2


def test_a_damaged_header_does_not_end_a_shard_silently(tmp_path: Path) -> None:
    path = two_shards(tmp_path)[0]
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1].offset
    data[second + 10] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(TaskError, match=f"a damaged header at byte {second} hides what follows"):
        TarShards([path])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_give_anything_but_a_known_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tar(
        tmp_path / "s.tar", {"a" * 120 + ".png": png(picture(1)), "b.png": png(picture(2)), "c.png": b"x"}
    )
    content = bytearray(path.read_bytes()[: 10 * 512])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(BenchError):
        source = TarShards([path])
        for index in range(len(source)):
            with suppress(BenchError):
                source.read(index)


def test_a_shard_that_was_cut_after_it_was_listed_is_a_broken_image(tmp_path: Path) -> None:
    path = two_shards(tmp_path)[0]
    source = TarShards([path])
    os.truncate(path, 520)
    with pytest.raises(TaskError, match=r"s-00\.tar: a\.png: .* bytes of .*: s-00\.tar is cut off"):
        source.read(0)


def test_patterns_name_shards_in_order(tmp_path: Path) -> None:
    for number in range(3):
        tar(tmp_path / "d" / f"x-{number}.tar", {})
    assert shard_paths(["d/{08..11}-{1..2}.tar"], tmp_path) == tuple(
        tmp_path / "d" / f"{a}-{b}.tar" for a in ("08", "09", "10", "11") for b in (1, 2)
    )
    wanted = tuple(tmp_path / "d" / f"x-{number}.tar" for number in range(3))
    assert shard_paths(["d/x-*.tar"], tmp_path) == wanted
    assert shard_paths([str(tmp_path / "d" / "*.tar")], Path("/elsewhere")) == wanted
    assert shard_paths(["{0..0}.tar", "plain.tar"], tmp_path) == (tmp_path / "0.tar", tmp_path / "plain.tar")
    for pattern, text in [("y-*.tar", "no shard has such a name"), ("{5..4}.tar", "is empty or too long")]:
        with pytest.raises(UsageError, match=text):
            shard_paths([pattern], tmp_path)
    with pytest.raises(UsageError, match="is empty or too long"):
        shard_paths(["{0..99999999}.tar"], tmp_path)
