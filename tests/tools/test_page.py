"""Blocks of pages are filled whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tools.page import main

PAGE = "# Title\n\n<!-- begin: a -->\nold\n<!-- end: a -->\n\nrest\n"


def _fill(monkeypatch: pytest.MonkeyPatch, page: Path, block: str, content: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(content))
    return main([str(page), block])


def test_text_around_a_block_is_not_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    for _ in range(2):
        assert _fill(monkeypatch, page, "a", "\nnew | table\n") == 0
        assert page.read_text() == PAGE.replace("old\n", "\nnew | table\n\n")


@pytest.mark.parametrize(
    ("page_text", "block", "content", "words"),
    [
        (PAGE, "b", "new", "must have"),
        (PAGE, "a", " \n", "did the command fail"),
        (PAGE + PAGE, "a", "new", "once"),
        (PAGE.replace("begin", "x").replace("end", "begin").replace("x", "end"), "a", "new", "in this order"),
    ],
)
def test_page_is_not_spoiled(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    page_text: str,
    block: str,
    content: str,
    words: str,
) -> None:
    page = tmp_path / "page.md"
    page.write_text(page_text)
    assert _fill(monkeypatch, page, block, content) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert page.read_text() == page_text
