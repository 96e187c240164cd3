"""Pictures on the page: the right ones, small enough, and a reason for each that is missing."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from dune_bench.report.board import Board
from dune_bench.report.html_data import collect_encoders
from dune_bench.report.html_page import html_page
from dune_bench.report.html_pictures import MAX_WIDTH, Pictures, read_pictures
from dune_bench.report.write import read_board, write_leaderboard
from dune_bench.results.store import safe_name
from tests.report.factory import make_result, task_info, write_results
from tests.report.pages import write_picture

DEPTH, SEMSEG = "depth/toy/convex@1", "semseg/toy/convex@1"
ROOM = 10**6


@pytest.fixture
def board(tmp_path: Path) -> Board:
    limited = make_result("vit", task=task_info(SEMSEG, limited=8))
    random = make_result("vit", weights="random", weights_digest="r")
    write_results(tmp_path, make_result("vit"), make_result("vit", task=task_info(DEPTH)), limited, random)
    return read_board(tmp_path)


def read(folder: Path, board: Board, room: int = ROOM) -> Pictures:
    return read_pictures(folder, board, collect_encoders(board), room)


def test_a_picture_stands_at_its_encoder_and_column(tmp_path: Path, board: Board) -> None:
    panels = tmp_path / "panels"
    write_picture(panels, "vit", safe_name(DEPTH), "a")
    write_picture(panels, safe_name("vit [random weights]"), safe_name(SEMSEG), "b")
    write_picture(panels, "vit", safe_name(f"{SEMSEG} (limit 8)"), "c")
    write_picture(panels, "vit", "pca", "d")
    found = read(panels, board)
    names = {column.name: place for place, column in enumerate(board.columns)}
    assert found.left_out == ()
    assert [(p.encoder, p.column, p.name) for p in found.found] == [
        (0, None, "d"),
        (0, names[DEPTH], "a"),
        (0, names[f"{SEMSEG} (limit 8)"], "c"),
        (1, names[SEMSEG], "b"),
    ]


def test_a_picture_of_nobody_or_nothing_is_named_with_its_reason(tmp_path: Path, board: Board) -> None:
    panels = tmp_path / "panels"
    write_picture(panels, "other", safe_name(DEPTH), "a")
    write_picture(panels, "vit", "semseg--toy--convex@2", "b")
    write_picture(panels, "vit", safe_name(DEPTH), "torn").write_bytes(b"no picture")
    found = read(panels, board)
    assert found.found == ()
    assert found.left_out == (
        "other/depth--toy--convex@1/a.png: no encoder of this report is named other",
        "vit/depth--toy--convex@1/torn.png: not readable as a picture (UnidentifiedImageError)",
        "vit/semseg--toy--convex@2/b.png: no column of this report is named semseg--toy--convex@2",
    )


def test_a_picture_is_not_given_to_one_of_two_checkpoints_of_a_name(tmp_path: Path) -> None:
    write_results(tmp_path, make_result("vit", weights_digest="a"), make_result("vit", weights_digest="b"))
    write_picture(tmp_path / "panels", "vit", safe_name(SEMSEG), "a")
    found = read(tmp_path / "panels", read_board(tmp_path))
    assert found.found == ()
    assert "2 encoders of this report are named vit" in found.left_out[0]


def test_every_task_gets_a_picture_before_one_gets_two(tmp_path: Path, board: Board) -> None:
    panels = tmp_path / "panels"
    for name in "abc":
        write_picture(panels, "vit", safe_name(DEPTH), name)
    write_picture(panels, "vit", safe_name(SEMSEG), "z")
    one = len(read(panels, board).found[0].data)
    found = read(panels, board, room=2 * one)
    assert sorted(picture.name for picture in found.found) == ["a", "z"]
    assert len(found.left_out) == 2
    assert all("the page would grow too large" in reason for reason in found.left_out)


def test_a_wide_picture_is_made_smaller_and_keeps_its_shape(tmp_path: Path, board: Board) -> None:
    write_picture(tmp_path / "panels", "vit", safe_name(DEPTH), "a", (2 * MAX_WIDTH, 1000))
    picture = read(tmp_path / "panels", board).found[0]
    assert picture.size == (MAX_WIDTH, 500)
    head, _, data = picture.data.partition(",")
    assert head == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (MAX_WIDTH, 500)


def test_pictures_never_make_the_page_too_large(tmp_path: Path, board: Board) -> None:
    for number in range(60):
        write_picture(tmp_path / "panels", "vit", safe_name(DEPTH), f"{number:02d}", (300, 300))
    bare = len(html_page(board).html.encode())
    limit = bare + 12_000
    page = html_page(board, tmp_path / "panels", max_bytes=limit)
    assert bare < len(page.html.encode()) <= limit
    assert page.notes


def test_the_runs_own_panels_are_taken_without_being_named(tmp_path: Path, board: Board) -> None:
    write_picture(tmp_path / "panels", "vit", safe_name(DEPTH), "a")
    write_picture(tmp_path / "panels", "nobody", safe_name(DEPTH), "a")
    written = write_leaderboard(tmp_path, ["html"], tmp_path)
    assert "data:image/webp" in (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert [note for note in written.notes if "nobody" in note] != []
