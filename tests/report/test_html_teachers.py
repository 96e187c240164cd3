"""The teachers' section of the HTML page: there when asked for, complete, and nobody's markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dune_bench.report.html_teachers import section
from dune_bench.report.teachers_text import HEADER, cells
from dune_bench.report.write import write_leaderboard
from tests.report.pages import NASTY
from tests.report.paired_runs import depth, write
from tests.report.test_teachers import student, tables, usual


class Reader(HTMLParser):
    """Body rows of tables as text, the scopes of their headings, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.scopes: list[str | None] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag == "th":
            self.scopes.append(dict(attrs).get("scope"))

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and "table" in self.tags:
            self.rows[-1][-1] += data.strip("\n")


def page_of(runs: Path, *, teachers: bool) -> str:
    write_leaderboard(runs, ["html"], runs, teachers=teachers)
    return (runs / "leaderboard.html").read_text(encoding="utf-8")


def test_the_section_is_there_only_with_teachers(tmp_path: Path) -> None:
    usual(tmp_path)
    without, with_them = page_of(tmp_path, teachers=False), page_of(tmp_path, teachers=True)
    assert 'id="teachers"' not in without
    assert 'href="#teachers"' not in without
    assert with_them.count('<section id="teachers"') == with_them.count('href="#teachers"') == 1
    assert not (tmp_path / "teachers.md").exists()


def test_every_cell_of_the_table_is_on_the_page(tmp_path: Path) -> None:
    table = usual(tmp_path)
    found = Reader(section([table]).split("</table>")[0])
    assert found.rows == [list(HEADER), *(line for row in table.rows for line in cells(row))]
    assert found.scopes == ["col"] * len(HEADER) + ["row"] * (len(found.rows) - 1)
    assert "caption" in found.tags


def test_best_teacher_ranks_and_what_is_left_out_are_named(tmp_path: Path) -> None:
    text = section([usual(tmp_path)])
    assert "<b><bdi>near</bdi></b> (best)" in text
    assert "Mean rank over the panel" in text
    assert re.search(r"<h4>Left out</h4>\n<ul>\n<li>.*absent: not measured", text)


def test_published_numbers_stay_below_the_measured_table(tmp_path: Path) -> None:
    write(tmp_path, student(depth("dune_vitb_paper"), ("dinov2reg_vitl14",)), depth("dinov2reg_vitl14", 0.1))
    measured, elsewhere = section(tables(tmp_path)).split("<h4>Published elsewhere</h4>")
    assert "0.358" in elsewhere
    assert "0.358" not in measured


@pytest.mark.parametrize("place", ["student", "teacher"])
def test_names_with_markup_are_shown_not_run(tmp_path: Path, place: str) -> None:
    names = {"student": "pupil", "teacher": "near"} | {place: NASTY}
    write(tmp_path, student(depth(names["student"]), (names["teacher"],)), depth(names["teacher"], 0.1))
    text = section(tables(tmp_path))
    tags = set(Reader(text).tags)
    assert not tags & {"script", "img"}
    assert "&lt;/script&gt;" in text
