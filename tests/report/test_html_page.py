"""The HTML leaderboard as a file: complete, self-contained, safe to open, not too large."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dune_bench.errors import TaskError, UsageError
from dune_bench.report.html_page import MAX_BYTES, html_page
from dune_bench.report.write import read_board, write_leaderboard
from dune_bench.results.schema import Result
from tests.report.factory import make_result, metric, task_info, write_results
from tests.report.pages import NASTY, TASKS, many_results, value_of, write_many

VOID = {"meta", "link", "input", "br", "img", "wbr"}


class Parsed(HTMLParser):
    """Elements with their attributes, text by element id, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: dict[str, str] = {}
        self.texts: list[str] = []
        self._script: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self._script = dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.texts.append(data)

    def json(self, name: str) -> Any:
        return json.loads(self.scripts[name])

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]


def page(tmp_path: Path, *results: Result) -> str:
    write_results(tmp_path, *results)
    write_leaderboard(tmp_path, ["html"], tmp_path)
    return (tmp_path / "leaderboard.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    return html_page(read_board(write_many(tmp_path_factory.mktemp("runs")))).html


def test_the_page_is_well_formed_and_its_ids_are_unique(many: str) -> None:
    parsed = Parsed(many)
    assert parsed.open == []
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for a in parsed.named("a")}
    assert {f"#{name}" for name in ids} >= targets
    assert {a[key] for _, a in parsed.elements for key in ("aria-labelledby",) if key in a} <= {
        *ids,
        "cell-title",
    }


def test_nothing_is_asked_of_anybody(many: str) -> None:
    parsed = Parsed(many)
    assert [
        t for t, a in parsed.elements if any(k in a and not str(a[k]).startswith("data:") for k in ("src",))
    ] == []
    assert {a["href"] for a in parsed.named("link")} == {"data:,"}
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\(", many)
    policy = next(a["content"] for a in parsed.named("meta") if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_a_name_cannot_break_out_of_the_page(many: str) -> None:
    parsed = Parsed(many)
    assert parsed.named("img") == []
    assert [a for _, a in parsed.elements if any(name.startswith("on") for name in a)] == []
    names = [encoder["name"] for encoder in parsed.json("board")["encoders"]]
    shown = " ".join(NASTY.split())
    assert shown in names
    assert shown in "".join(parsed.texts)  # exactly as it is, in the table


def test_every_result_is_in_the_table_with_unit_interval_and_direction(many: str) -> None:
    head = many.partition("<thead>")[2].partition("</thead>")[0]
    head = head.replace("<wbr>", "").replace("\N{NO-BREAK SPACE}", " ")
    for heading in ("miou (%) ↑", "rmse_m (m) ↓", "recall@10px (%) ↑", "pa_pve_mm@miss150mm (mm) ↓"):
        assert heading in head
    rows = many.partition("<tbody>")[2].partition("</tbody>")[0].strip().splitlines()
    assert sum(row.count("<td><button") for row in rows) == len(
        [result for result in many_results() if result.status == "ok"]
    )
    alpha = next(row for row in rows if "<bdi>alpha</bdi>" in row)
    semseg = f"{value_of(0, 0):.1f} <small>[8.0, 12.0]</small></button></td>"
    assert f'<td><button type="button" tabindex="-1">{semseg}' in alpha
    assert alpha.count("not measured") == 1
    gamma = next(row for row in rows if "<bdi>gamma</bdi>" in row)
    assert "<b>19.0</b>" in gamma  # the best of its column
    assert gamma.count("†") == len(TASKS)  # trained on the data


def test_other_measurements_are_other_columns_with_their_brand(many: str) -> None:
    board = Parsed(many).json("board")
    names = [column["name"] for column in board["columns"]]
    assert sorted(names) == sorted([*TASKS, "semseg/minirooms/convex@1 (limit 8)"])
    assert [c["changed"] for c in board["columns"]].count(True) == 1
    assert "alpha [random weights]" in [encoder["name"] for encoder in board["encoders"]]
    assert many.count('<span class="brand">limit 8</span>') == 1


def test_what_was_measured_is_said_without_a_script(many: str) -> None:
    table = many.partition('id="measured"')[2].partition("</section>")[0]
    assert "Mean over classes of the intersection over union" in table
    assert "Lower is better." in table
    assert "test 10 samples in 30 rooms" in table
    assert "<b>no intervals</b> (too few rooms)" in table


def test_what_is_left_out_is_said_with_its_reason(many: str) -> None:
    part = many.partition('id="left-out"')[2].partition("</section>")[0]
    assert "<li>results/alpha/broken.json: not readable as JSON" in part  # no folder of this machine
    assert "bad &lt;/script&gt;" in part
    assert "<p hidden>" in part  # "Nothing: …"


def test_nothing_left_out_is_said_too(tmp_path: Path) -> None:
    part = page(tmp_path, make_result()).partition('id="left-out"')[2]
    assert "<p >Nothing" in part
    assert part.count("<div hidden>") == 3


def test_undefined_and_no_interval_are_neither_zero_nor_empty(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        make_result("a", metrics=(metric(None),)),
        make_result("b", metrics=(metric(5.0, ci95=None),)),
    )
    assert ">undefined</button>" in text
    assert "5.0" in text
    cells = Parsed(text).json("board")["columns"][0]["cells"]
    assert {(cell[1], cell[2], cell[3]) for cell in cells} == {(None, None, None), (5.0, None, None)}


def test_values_of_a_column_keep_what_the_results_say(tmp_path: Path) -> None:
    value = 100 / 3
    text = page(tmp_path, make_result(metrics=(metric(value, n=7, n_failed=2),)))
    detail = Parsed(text).json("details-0")[0]
    assert detail["metrics"] == [pytest.approx([value, value - 2, value + 2, 7, 2], rel=1e-8)]
    assert len(detail["key"]) == 64
    assert detail["file"].startswith("results/vit/")
    assert "2 failed" in text


def test_folders_of_the_command_line_stay_private(tmp_path: Path) -> None:
    result = make_result()
    argv = (
        "/home/me/bin/dune-bench",
        "run",
        "--weights=/secret/a/w.pth",
        "--runs",
        "/secret/runs",
        "--tasks",
        "a/b",
    )
    made = result.provenance.model_copy(update={"argv": argv})
    text = page(tmp_path, result.model_copy(update={"provenance": made}))
    assert "secret" not in text
    assert "dune-bench run --weights=…/w.pth --runs …/runs --tasks a/b" in text


def test_same_results_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    results = many_results()
    for folder, order in (("one", results), ("two", results[::-1])):
        write_results(tmp_path / folder, *order)
        write_leaderboard(tmp_path / folder, ["html"], tmp_path / folder)
    one, two = ((tmp_path / folder / "leaderboard.html").read_bytes() for folder in ("one", "two"))
    assert one == two


def test_a_change_of_one_result_is_a_change_of_few_lines(tmp_path: Path) -> None:
    results = many_results()
    before = page(tmp_path / "one", *results)
    changed = results[0].model_copy(update={"metrics": (metric(11.0), results[0].metrics[1])})
    after = page(tmp_path / "two", changed, *results[1:])
    assert 1 <= len(set(after.splitlines()) - set(before.splitlines())) <= 3


def test_a_page_that_grows_too_large_drops_details_and_says_so(tmp_path: Path) -> None:
    write_results(tmp_path, *many_results())
    board = read_board(tmp_path)
    whole = html_page(board).html
    assert len(whole.encode()) < MAX_BYTES
    smaller = html_page(board, max_bytes=len(whole.encode()) - 1).html
    assert len(smaller.encode()) < len(whole.encode())
    assert "the solver's choices and the timings of each result, for the page's size" in smaller.replace(
        "&#x27;", "'"
    )
    assert "choices" not in Parsed(smaller).json("details-0")[0]
    with pytest.raises(TaskError, match=r"more than 5,000: report fewer results, or use --format csv"):
        html_page(board, max_bytes=5000)


def test_a_folder_of_pictures_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_results(tmp_path, make_result())
    with pytest.raises(UsageError, match=r"--panels .*nowhere.*dune-bench panel"):
        write_leaderboard(tmp_path, ["html"], tmp_path, tmp_path / "nowhere")
    assert not (tmp_path / "leaderboard.html").exists()


def test_only_failures_make_a_page_too(tmp_path: Path) -> None:
    text = page(tmp_path, make_result(status="failed", error="NaN", task=task_info()))
    assert "No result is here" in text
    assert Parsed(text).json("board")["columns"] == []
