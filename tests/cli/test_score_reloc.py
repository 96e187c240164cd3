"""`score-reloc`: the library's numbers; anything wrong with a zip is a warning or one line, never a crash."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from dune_bench.metrics.mapfree import score_reloc
from tests.cli.conftest import Command
from tests.metrics.mapfree_data import GOLDEN, make_zip, true_lines, write_scene

GOOD = "seq1/frame_00005.jpg 1 0 0 0 -0.5 0 0 2.5\n"


@pytest.fixture
def val(tmp_path: Path) -> Path:
    write_scene(tmp_path / "val", "s1")
    return tmp_path / "val"


def test_printed_json_is_the_official_programs_output(command: Command) -> None:
    answer = command(
        "score-reloc", str(GOLDEN / "submission.zip"), "--data", str(GOLDEN / "val"), "--mode", "compat",
        "--format", "json",
    )  # fmt: skip
    assert answer.code == 0
    content = json.loads(answer.out)
    want = score_reloc(GOLDEN / "submission.zip", GOLDEN / "val", "mapfree-compat")
    assert {row["id"]: row["value"] for row in content["metrics"]} == want.metrics
    expected = json.loads((GOLDEN / "expected.json").read_text())
    text = json.dumps(expected)
    for row in content["metrics"]:
        assert json.dumps(row["value"]) in text, row
    assert content["issues"]["total"] == want.issues.total > 0
    assert answer.err.count("warning: ") == len(want.issues.notes)


def test_table_has_every_metric_with_unit_and_counts(command: Command, val: Path) -> None:
    zipped = make_zip(Path("a.zip"), {"pose_s1.txt": true_lines(val, "s1")})
    answer = command("score-reloc", str(zipped), "--data", str(val))
    assert (answer.code, answer.err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in answer.out.splitlines()[2:]}
    assert rows["precision@25cm_5deg"] == ["100", "%", "↑"]
    assert rows["auc_vcre@0.1diag"] == ["1", "1", "↑"]
    assert rows["median_rot_deg"][1:] == ["deg", "↓"]
    assert answer.out.endswith("1 scene, 2 queries evaluated, 2 answered\n")


def test_every_query_can_be_evaluated(command: Command, val: Path) -> None:
    zipped = make_zip(Path("a.zip"), {"pose_s1.txt": true_lines(val, "s1")})
    answer = command("score-reloc", str(zipped), "--data", str(val), "--every", "1")
    assert "10 queries evaluated, 10 answered" in answer.out


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_nothing_answered_is_valid_json_without_nan(command: Command, val: Path, mode: str) -> None:
    zipped = make_zip(Path("a.zip"), {"pose_s1.txt": "garbage\n"})
    answer = command("score-reloc", str(zipped), "--data", str(val), "--mode", mode, "--format", "json")
    assert answer.code == 0
    assert "not one line of a.zip could be used" in answer.err
    rows = {row["id"]: row["value"] for row in json.loads(answer.out)["metrics"]}
    assert "NaN" not in answer.out
    assert rows["Average Median Rotation Error" if mode == "compat" else "median_rot_deg"] == (
        None if mode == "compat" else 180.0
    )


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (b"seq1/frame_00000.jpg 1 0 0 0 0 0 0\n", "pose_s1.txt:1: 8 fields"),
        (b"seq1/frame_00000.jpg 1 0 0 0 nan 0 0 1\n", "pose_s1.txt:1: a field is no finite number"),
        (b"seq1/frame_\xff.jpg 1 0 0 0 0 0 0 1\n", "pose_s1.txt:1: not UTF-8"),
        (GOOD.encode(), "pose_s1.txt:2: frame 'seq1/frame_00005.jpg' again"),
    ],
)
def test_bad_line_is_a_warning_with_its_number(
    command: Command, val: Path, text: bytes, warning: str
) -> None:
    zipped = make_zip(Path("a.zip"), {"pose_s1.txt": text + GOOD.encode()})
    answer = command("score-reloc", str(zipped), "--data", str(val))
    assert answer.code == 0
    assert answer.err.startswith(f"warning: {warning}")
    hit = "0 answered" if "again" in warning else "1 answered"
    assert hit in answer.out


def test_hostile_or_broken_archives_are_one_line_and_exit_2(command: Command, val: Path) -> None:
    text = Path("text.zip")
    text.write_text("no archive")
    whole = make_zip(Path("whole.zip"), {"pose_s1.txt": GOOD}).read_bytes()
    cut = Path("cut.zip")
    cut.write_bytes(whole[: len(whole) // 2])
    climbing = make_zip(Path("up.zip"), {"../pose_s1.txt": GOOD})
    absolute = make_zip(Path("root.zip"), {"/pose_s1.txt": GOOD})
    with zipfile.ZipFile("twice.zip", "w") as archive:
        archive.writestr("pose_s1.txt", GOOD)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("pose_s1.txt", GOOD)
    long = make_zip(Path("long.zip"), {"pose_s1.txt": b"\n" * 1_000_001})
    for path, reason in (
        (text, "not a readable zip"),
        (cut, "not a readable zip"),
        (Path("none.zip"), "cannot be read"),
        (climbing, "outside the archive"),
        (absolute, "outside the archive"),
        (Path("twice.zip"), "occurs twice"),
        (long, "more than 1000000 lines"),
    ):
        answer = command("score-reloc", str(path), "--data", str(val))
        assert (answer.code, answer.out) == (2, ""), path
        assert reason in answer.error


def test_a_million_bad_lines_are_a_few_warnings(command: Command, val: Path) -> None:
    zipped = make_zip(Path("a.zip"), {"pose_s1.txt": b"x\n" * 999_999 + GOOD.encode()})
    answer = command("score-reloc", str(zipped), "--data", str(val))
    assert answer.code == 0
    assert len(answer.err.splitlines()) < 30
    assert "1 answered" in answer.out


def test_wrong_requests_and_missing_or_damaged_truth_have_their_exit_codes(
    command: Command, val: Path
) -> None:
    zipped = str(make_zip(Path("a.zip"), {"pose_s1.txt": GOOD}))
    for arguments, code, reason in (
        (["--data", str(val), "--mode", "compat", "--every", "1"], 2, "leave out --every 1"),
        (["--data", str(val), "--format", "html"], 2, "--format html: table or json"),
        (["--data", "nowhere"], 3, "no such directory"),
        (["--data", str(val.parent)], 3, "no <scene>/poses.txt"),
    ):
        answer = command("score-reloc", zipped, *arguments)
        assert answer.code == code
        assert reason in answer.error
    (val / "s1" / "poses.txt").write_text("damaged\n")
    answer = command("score-reloc", zipped, "--data", str(val))
    assert answer.code == 1
    assert "damaged truth" in answer.error
    assert command("score-reloc", zipped).code == 2
    assert command("score-reloc", zipped, "--data", str(val), "--every", "0").code == 2
    assert command("score-reloc", zipped, "--data", str(val), "--mode", "official").code == 2
