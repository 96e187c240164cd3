"""Submissions that are malformed or hostile: a noted line or one clear error, never a crash."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dune_bench.errors import UsageError
from dune_bench.metrics import mapfree_format as form
from tests.metrics.mapfree_data import make_zip

GOOD = "seq1/frame_00005.jpg 1 0 0 0 0 0 0 2.5"
BOTH = pytest.mark.parametrize("mode", ["strict", "mapfree-compat"])


def parse(text: str | bytes, mode: str = "strict") -> tuple[dict[form.Key, form.Answer], form.Issues]:
    issues = form.Issues()
    data = text if isinstance(text, bytes) else text.encode()
    return form.parse_poses(data, "pose_s1.txt", mode, issues), issues  # type: ignore[arg-type]


@BOTH
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("seq1/frame_00001.jpg 1 0 0 0 0 0 0", "the confidence is missing"),
        ("seq1/frame_00001.jpg 1 0 0 0 0 0 0 1 1", "10 fields"),
        ("seq1/frame_00001.jpg  1 0 0 0 0 0 0 1", "10 fields"),
        ("seq1/frame_00001.jpg\t1 0 0 0 0 0 0 1", "8 fields"),
        ("seq1/frame_00001.jpg", "1 fields"),
        ("seq1/frame_00001.jpg 1 0 0 0 nan 0 0 1", "finite"),
        ("seq1/frame_00001.jpg 1 0 0 0 0 -inf 0 1", "finite"),
        ("seq1/frame_00001.jpg 1 0 0 0 0 1e999 0 1", "finite"),
        ("seq1/frame_00001.jpg 1 0 0 0 0 0 0 nan", "finite"),
        ("seq1/frame_00001.jpg 1 0 0 zero 0 0 0 1", "finite"),
        ("seq1/frame_00001.jpg 0 0 0 0 0 0 0 1", "quaternion"),
        ("seq1/frame_00001.jpg 1e-9 0 0 0 0 0 0 1", "quaternion"),
    ],
)
def test_bad_line_is_noted_with_its_number_and_left_out(mode: str, line: str, why: str) -> None:
    poses, issues = parse(f"# comment\n{line}\n\n{GOOD}\n", mode)
    assert [answer.confidence for answer in poses.values()] == [2.5]
    assert len(issues.notes) == 1
    assert issues.notes[0].startswith("pose_s1.txt:2: ")
    assert why in issues.notes[0]


@BOTH
def test_line_that_is_not_utf8_is_noted_and_the_rest_is_read(mode: str) -> None:
    poses, issues = parse(b"seq1/frame_0000\xff.jpg 1 0 0 0 0 0 0 1\n" + GOOD.encode() + b"\r\n", mode)
    assert len(poses) == 1
    assert "pose_s1.txt:1: not UTF-8" in issues.notes[0]


def test_byte_order_mark_does_not_cost_the_first_frame() -> None:
    """Editors of Windows write one; the official program takes it for a part of the first path."""
    text = GOOD + "\n" + GOOD.replace("00005", "00010")
    poses, issues = parse(b"\xef\xbb\xbf" + text.encode())
    assert list(poses) == ["seq1/frame_00005.jpg", "seq1/frame_00010.jpg"]
    assert issues.notes == ["pose_s1.txt:1: begins with a UTF-8 byte order mark, which is left out"]
    official, issues = parse(b"\xef\xbb\xbf" + text.encode(), "mapfree-compat")
    assert list(official) == [5, 10]
    assert not issues.notes


def test_utf16_file_has_no_poses_and_does_not_crash() -> None:
    poses, issues = parse((GOOD + "\n").encode("utf-16"))
    assert poses == {}
    assert issues.total >= 1


def test_repeated_frame_is_answered_by_neither_in_strict_and_by_the_last_in_compat() -> None:
    text = f"{GOOD}\nseq1/frame_00006.jpg 1 0 0 0 0 0 0 1\n" + f"{GOOD[:-3]}9\n" * 2
    strict, issues = parse(text)
    assert list(strict) == ["seq1/frame_00006.jpg"]
    assert issues.notes[0] == "pose_s1.txt:3: frame 'seq1/frame_00005.jpg' again"
    compat, noted = parse(text, "mapfree-compat")
    assert list(compat) == [5, 6]
    assert compat[5].confidence == 9
    assert noted.total == 2


def test_negative_confidence_is_refused_in_strict_only() -> None:
    text = GOOD[:-3] + "-1\n"
    assert parse(text)[0] == {}
    assert parse(text)[1].notes == ["pose_s1.txt:1: negative confidence"]
    assert parse(text, "mapfree-compat")[0][5].confidence == -1


def test_frame_number_is_the_official_slice() -> None:
    poses, issues = parse("seq0/frame_00007.jpg 1 0 0 0 0 0 0 1\nx 1 0 0 0 0 0 0 1\n", "mapfree-compat")
    assert list(poses) == [7]
    assert "no frame number" in issues.notes[0]


def test_notes_are_bounded_however_many_lines_are_bad() -> None:
    poses, issues = parse("garbage\n" * 50_000)
    assert poses == {}
    assert issues.total == 50_000
    assert len(issues.notes) == form.MAX_NOTES + 1


def test_more_than_a_million_lines_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="1000000 lines"):
        parse(b"\n" * (form.MAX_LINES + 1))


@given(data=st.binary(max_size=300), mode=st.sampled_from(["strict", "mapfree-compat"]))
def test_any_bytes_parse_without_a_crash(data: bytes, mode: str) -> None:
    poses, _ = parse(data + b"\n" + GOOD.encode(), mode)
    assert len(poses) <= 3


number = st.floats(-1e6, 1e6)
answers = st.builds(
    form.Answer,
    q=st.tuples(st.floats(0.1, 2), number, number, number),
    t=st.tuples(number, number, number),
    confidence=st.floats(0, 1e9),
)


@given(rows=st.dictionaries(st.integers(0, 99_999), answers, max_size=5))
def test_written_submission_reads_back_the_same_to_the_bit(rows: dict[int, form.Answer]) -> None:
    scenes = {"s00001": {f"seq1/frame_{k:05d}.jpg": a for k, a in rows.items()}, "empty": {}}
    with tempfile.TemporaryDirectory() as directory:
        first, second = Path(directory, "a.zip"), Path(directory, "b.zip")
        form.write_submission(first, scenes)
        form.write_submission(second, scenes)
        assert first.read_bytes() == second.read_bytes()
        issues = form.Issues()
        files = form.read_submission(first, issues)
        assert set(files) == {"s00001", "empty"}
        for mode in ("strict", "mapfree-compat"):
            read = form.parse_poses(files["s00001"], "f", mode, issues)  # type: ignore[arg-type]
            assert list(read.values()) == list(rows.values())
        assert issues.total == 0


@pytest.mark.parametrize(
    ("scene", "frame", "answer"),
    [
        ("../s", "seq1/frame_00000.jpg", form.Answer((1, 0, 0, 0), (0, 0, 0))),
        ("s", "seq1/frame 1.jpg", form.Answer((1, 0, 0, 0), (0, 0, 0))),
        ("s", "seq1/frame_1.jpg", form.Answer((1, 0, 0, 0), (float("nan"), 0, 0))),
        ("s", "seq1/frame_1.jpg", form.Answer((0, 0, 0, 0), (0, 0, 0))),
        ("s", "seq1/frame_1.jpg", form.Answer((1, 0, 0, 0), (0, 0, 0), -1.0)),
    ],
)
def test_writer_refuses_what_the_format_cannot_say(
    tmp_path: Path, scene: str, frame: str, answer: form.Answer
) -> None:
    with pytest.raises(UsageError):
        form.write_submission(tmp_path / "a.zip", {scene: {frame: answer}})


@pytest.mark.parametrize(
    "name",
    ["../pose_s1.txt", "/pose_s1.txt", "a/../../pose_s1.txt", "..\\pose_s1.txt", "C:\\pose_s1.txt", ".."],
)
def test_path_traversal_is_refused(tmp_path: Path, name: str) -> None:
    zipped = make_zip(tmp_path / "a.zip", {"pose_s2.txt": GOOD, name: GOOD})
    with pytest.raises(UsageError, match="outside the archive"):
        form.read_submission(zipped, form.Issues())


def test_repeated_member_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("pose_s1.txt", GOOD)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("pose_s1.txt", GOOD)
    with pytest.raises(UsageError, match="twice"):
        form.read_submission(tmp_path / "a.zip", form.Issues())


def test_other_members_are_noted_not_read(tmp_path: Path) -> None:
    zipped = make_zip(
        tmp_path / "a.zip",
        {"sub/pose_s1.txt": GOOD, "notes.md": "x", "pose_s2.txt": GOOD, "pose_.txt": GOOD, "dir/": ""},
    )
    issues = form.Issues()
    assert set(form.read_submission(zipped, issues)) == {"s2"}
    assert issues.total == 3
    assert "root" in issues.notes[0]


def test_damaged_archives_are_one_clear_line(tmp_path: Path) -> None:
    good = make_zip(tmp_path / "good.zip", {"pose_s1.txt": GOOD}).read_bytes()
    encrypted = bytearray(good)
    encrypted[good.index(b"PK\x01\x02") + 8] |= 1
    crc = good.replace(GOOD.encode(), GOOD.replace("1 0", "2 0").encode())
    method = bytearray(good)
    method[good.index(b"PK\x01\x02") + 10] = 99
    method[8] = 99
    name = good.replace(b"pose_s1.txt", b"pose_\xff1.txt")
    flagged = bytearray(name)
    flagged[name.index(b"PK\x01\x02") + 9] |= 8  # names are said to be UTF-8
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("pose_s1.txt", GOOD)
    lzma = bytearray(packed.read_bytes())
    lzma[52:60] = b"\xff" * 8
    cases = {
        "name": bytes(flagged),
        "lzma": bytes(lzma),
        "text": b"not a zip",
        "empty": b"",
        "cut": good[: len(good) // 2],
        "encrypted": bytes(encrypted),
        "crc": crc,
        "method": bytes(method),
    }
    for name, data in cases.items():
        path = tmp_path / f"{name}.zip"
        path.write_bytes(data)
        with pytest.raises(UsageError) as caught:
            form.read_submission(path, form.Issues())
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        form.read_submission(tmp_path / "none.zip", form.Issues())
    with pytest.raises(UsageError, match="cannot be read"):
        form.read_submission(tmp_path, form.Issues())


@given(cut=st.integers(0, 150), flip=st.integers(0, 150), bit=st.integers(0, 7))
def test_any_damage_is_a_usage_error_or_harmless(cut: int, flip: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = make_zip(Path(directory, "a.zip"), {"pose_s1.txt": GOOD})
        data = bytearray(path.read_bytes())
        data[flip % len(data)] ^= 1 << bit
        path.write_bytes(bytes(data[: len(data) - cut % 40]))
        try:
            files = form.read_submission(path, form.Issues())
        except UsageError:
            return
        assert len(files) <= 1


def test_zip_bomb_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pose_s1.txt", b"0" * 5000)
        archive.writestr("pose_s2.txt", b"0" * 5000)
    for limit, value in (("MAX_FILE_BYTES", 4999), ("MAX_ARCHIVE_BYTES", 9999), ("MAX_MEMBERS", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(form, limit, value)
            with pytest.raises(UsageError):
                form.read_submission(tmp_path / "a.zip", form.Issues())
    assert len(form.read_submission(tmp_path / "a.zip", form.Issues())) == 2
