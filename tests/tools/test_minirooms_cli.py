"""The generator's command line: wrong requests end in one line and the documented exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.minirooms.__main__ import main


def _render(out: Path, *more: str) -> int:
    arguments = ["render", "--train", "0", "--test", "0", "--furniture", str(out), "--out", str(out / "work")]
    return main([*arguments, *more])


@pytest.fixture
def no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.minirooms.__main__.render_rooms", lambda *arguments: None)


def test_two_recipes_are_not_mixed_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _render(tmp_path) == 0
    assert _render(tmp_path) == 0
    assert _render(tmp_path, "--seed", "2") == 2
    error = capsys.readouterr().err
    assert "use another --out" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("size", ["63", "32", "101"])
def test_odd_size_is_not_rendered(tmp_path: Path, size: str) -> None:
    assert _render(tmp_path, "--size", size) == 2


@pytest.mark.usefixtures("no_rendering")
def test_people_are_not_rendered_into_a_folder_of_rooms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _render(tmp_path) == 0
    assert _render(tmp_path, "--people", "1") == 2
    assert "minirooms-people@1" in capsys.readouterr().err


@pytest.mark.usefixtures("no_rendering")
def test_people_do_not_take_the_size_of_rooms(tmp_path: Path) -> None:
    assert _render(tmp_path, "--people", "1") == 0
    recipe = json.loads((tmp_path / "work" / "recipe.json").read_text())
    assert (recipe["name"], recipe["size"]) == ("minirooms-people@1", 336)
    assert _render(tmp_path, "--people", "1", "--size", "224") == 2


def test_people_and_rooms_are_not_asked_for_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        _render(tmp_path, "--people", "1", "--rooms", "1")
    assert ended.value.code == 2


@pytest.mark.parametrize("option", ["workers", "people", "rooms"])
def test_fewer_than_one_is_not_a_traceback_or_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert _render(tmp_path, f"--{option}", "0") == 2
    assert capsys.readouterr().err == f"error: --{option} 0: must be at least 1\n"
    assert not (tmp_path / "work").exists()


def test_packing_what_was_never_rendered_is_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [
        "--furniture",
        str(tmp_path),
        "--shards",
        str(tmp_path),
        "--attribution",
        str(tmp_path / "A.md"),
    ]
    assert main(["pack", "--out", str(tmp_path), *places]) == 2
    assert "recipe.json: not found; run `python -m tools.minirooms render" in capsys.readouterr().err


def test_a_damaged_shard_is_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "people.zip").write_bytes(b"no zip")
    assert main(["check", "--shards", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "a shard is damaged" in error
    assert error.count("\n") == 1


def test_missing_shards_are_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--shards", str(tmp_path)]) == 3
    assert "train.zip: not found" in capsys.readouterr().err


def test_unfinished_rooms_do_not_pile_up(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    rooms = tmp_path / "work" / "rooms"
    for pid in (ended.pid, os.getpid()):
        (rooms / f"train_000.{pid}.partial").mkdir(parents=True)
    assert _render(tmp_path) == 0
    assert [folder.name for folder in rooms.iterdir()] == [f"train_000.{os.getpid()}.partial"]
