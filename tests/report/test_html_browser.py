"""The HTML leaderboard in headless Chromium: it loads, sorts, filters, opens and draws, in silence.

Skipped only where there is no browser; DUNE_BENCH_BROWSER names one that must be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from dune_bench.report.shown import shown_encoders
from dune_bench.report.write import read_board, write_leaderboard
from tests.report.browser import Seen, open_browser
from tests.report.pages import NASTY, write_many, write_picture

SEMSEG = "semseg/minirooms/convex@1"
SHOWN = " ".join(NASTY.split())
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = write_many(tmp_path_factory.mktemp("runs"))
    write_picture(runs / "panels", "alpha", SEMSEG.replace("/", "--"), "room")
    write_leaderboard(runs, ["html"], runs)
    return runs / "leaderboard.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def open_page(browser: Browser, file: Path) -> Iterator[Open]:
    """Opens the page; afterwards nothing was said on the console and nothing asked for."""
    seen = Seen()
    contexts: list[BrowserContext] = []

    def opened(**options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        seen.listen(page)
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    seen.check(file)


def names(page: Page) -> list[str]:
    return page.locator("#results tbody tr:not([hidden]) th").all_inner_texts()


def heading(page: Page, text: str) -> Locator:
    return page.locator("#results thead button", has_text=text).first


def test_best_is_first_in_the_direction_of_the_metric(open_page: Open) -> None:
    page = open_page()
    up = ["gamma", SHOWN, "beta", "alpha"]
    heading(page, "semseg").click()
    assert names(page) == [*up, "alpha [random weights]"]
    assert page.locator("#results th[aria-sort=descending]").inner_text().startswith("semseg")
    heading(page, "semseg").click()
    assert names(page) == ["alpha [random weights]", *up[::-1]]
    heading(page, "depth").click()
    assert names(page) == [*up[::-1], "alpha [random weights]"]  # not measured is last
    assert page.locator("#results th[aria-sort=ascending]").inner_text().startswith("depth")
    assert "Sorted by depth/minirooms/convex@1, best first" in page.locator("#status").inner_text()
    heading(page, "Encoder").click()
    assert names(page) == [SHOWN, "alpha", "alpha [random weights]", "beta", "gamma"]


def test_filters_hide_rows_and_whole_columns_and_say_how_many_are_left(open_page: Open) -> None:
    page = open_page()
    page.fill("#find-encoder", "AL ph")
    assert names(page) == ["alpha", "alpha [random weights]"]
    page.check("#hide-random")
    assert names(page) == ["alpha"]
    page.fill("#find-column", "semseg")
    page.check("#hide-changed")
    visible = [t for t in page.locator("#results thead th").all() if t.is_visible()]
    assert len(visible) == 2  # the encoders and one task
    cells = page.locator("#results tbody tr:not([hidden]) td")
    assert [cell.is_visible() for cell in cells.all()].count(True) == 1
    assert "1 of 5 encoders, 1 of 5 columns" in page.locator("#status").inner_text()
    page.fill("#find-encoder", "nobody")
    assert names(page) == []
    assert "No encoder fits" in page.locator("#status").inner_text()
    page.fill("#find-encoder", "")
    page.uncheck("#hide-random")
    assert len(names(page)) == 5


def cell(page: Page, encoder: str, task: str) -> Locator:
    column = next(
        i for i, head in enumerate(page.locator("#results thead th").all()) if task in head.inner_text()
    )
    row = page.locator("#results tbody tr").filter(has=page.get_by_text(encoder, exact=True))
    return row.locator(":scope > *").nth(column)


def test_a_cell_opens_with_everything_behind_its_number(open_page: Open) -> None:
    page = open_page()
    cell(page, "alpha", "semseg").locator("button").click()
    dialog = page.get_by_role("dialog")
    text = dialog.inner_text()
    for part in (
        f"alpha on {SEMSEG}", "10.0 %", "[8.0, 12.0]", "higher is better", "from resampling whole rooms",
        "in 30 rooms", "delta1 (%) ↑", "Result key", "results/alpha/", "fingerprint", "torch 2.14.1", "1 M",
    ):  # fmt: skip
        assert part in text, part
    dialog.locator("summary", has_text="iou by class").click()
    assert re.search(r"wall\s+10\.0", dialog.inner_text())
    assert re.search(r"door\s+undefined", dialog.inner_text())
    assert dialog.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 40
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_the_table_works_without_a_mouse(open_page: Open) -> None:
    page = open_page()
    assert page.locator("#results [tabindex='0']").count() == 1  # one stop for the whole table
    page.locator("#results [tabindex='0']").focus()
    for key in ("ArrowRight", "Enter", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert dialog.evaluate("(dialog) => dialog.contains(document.activeElement)")
    page.keyboard.press("Escape")
    focused = """() => { const cell = document.activeElement.closest('td');
        return [cell.parentElement.rowIndex, cell.cellIndex]; }"""
    assert page.locator("#results").evaluate(focused) == [2, 1]
    page.keyboard.press("Control+End")
    assert page.locator("#results").evaluate(focused) == [5, 5]
    page.keyboard.press("Home")
    box = page.locator("#results tbody tr").last.locator("input")
    assert box.is_checked()
    page.keyboard.press("Space")  # the box at the row's name
    assert not box.is_checked()


def test_a_screen_reader_is_told_what_is_what(open_page: Open) -> None:
    page = open_page()
    expect(page.get_by_role("grid", name="Main metric of each encoder on each task")).to_be_visible()
    for role in ("banner", "main", "navigation"):
        assert page.get_by_role(role).count() == 1  # type: ignore[arg-type]
    for drawn in page.locator("figure svg[role=img]").all():
        ids = (drawn.get_attribute("aria-labelledby") or "").split()
        assert len(ids) == 2
        assert all(page.locator(f"#{name}").text_content() for name in ids)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, select, input')].filter(
             (e) => !e.innerText.trim() && !e.labels?.length).map((e) => e.outerHTML)"""
    )
    assert unnamed == []


def test_ticked_encoders_are_compared_by_shape_and_dashes_not_colour_alone(open_page: Open) -> None:
    page = open_page()
    for box in page.locator("#results tbody input").all():
        box.uncheck()
    assert "Tick an encoder" in page.locator("#radar-body").inner_text()
    for encoder in ("alpha", "beta"):
        page.locator("#results tbody tr").filter(has=page.get_by_text(encoder, exact=True)).locator(
            "input"
        ).check()
    assert page.locator("#radar-body .key li").all_inner_texts() == ["alpha", "beta"]
    lines = page.locator("#radar-body figure path.line")
    assert lines.count() == 2
    assert len({line.get_attribute("stroke-dasharray") for line in lines.all()}) == 2
    marks = page.locator("#radar-body .key path.mark").all()
    assert len({one.get_attribute("d") for one in marks}) == 2
    page.locator("#radar-body summary").click()
    assert "not measured" in page.locator("#radar-body table").inner_text()


def test_a_colour_stays_with_its_encoder_and_is_that_of_the_plots(open_page: Open, file: Path) -> None:
    page = open_page()
    board = read_board(file.parent)
    order = [SHOWN if "script" in board.labels[e] else board.labels[e] for e in shown_encoders(board)]
    assert page.locator("#radar-body .key li").all_inner_texts() == order
    style = "(one) => one.getAttribute('class')"
    mark = page.locator("#radar-body .key li", has_text="gamma").locator("path.mark")
    before = mark.evaluate(style)
    assert before == f"mark s{order.index('gamma')}"
    page.locator("#results tbody tr").filter(has=page.get_by_text(order[0], exact=True)).locator(
        "input"
    ).uncheck()
    assert mark.evaluate(style) == before


def test_the_breakdown_follows_the_metric_and_fits_its_values(open_page: Open) -> None:
    page = open_page()
    page.select_option("#choose-task", label=SEMSEG)
    part = page.locator("#task-breakdown")
    assert part.locator("option:checked").inner_text() == "iou by class"
    assert "100" not in part.locator("svg text").all_text_contents()  # no value is above 19
    assert "door" not in part.locator("svg text").all_text_contents()
    assert "not define it for these encoders: door." in part.inner_text()


def test_a_picture_can_be_seen_in_full_size(open_page: Open) -> None:
    page = open_page()
    page.select_option("#choose-task", label=SEMSEG)
    zoom = page.locator("#task-pictures button.zoom")
    zoom.click()
    assert zoom.get_attribute("aria-pressed") == "true"
    assert zoom.locator("img").evaluate("(image) => image.decode().then(() => image.clientWidth)") == 40


def test_a_radar_of_too_few_tasks_says_so(open_page: Open) -> None:
    page = open_page()
    page.fill("#find-column", "semseg")
    assert "A radar needs three tasks" in page.locator("#radar-body").inner_text()


def test_the_front_is_named_and_follows_cost_and_task(open_page: Open) -> None:
    page = open_page()
    page.select_option("#cost-task", label=SEMSEG)
    body = page.locator("#cost-body")
    assert f"On the front: alpha, beta, {SHOWN}, gamma." in body.inner_text()  # dearer and better
    page.select_option("#cost-axis", label="latency (ms per image)")
    assert "On the front: gamma." in body.inner_text()  # fastest and best
    assert "cpu, 2 threads, batch 8" in page.locator("#cost-machine").inner_text()
    assert "do not name the processor" in body.inner_text()
    assert "Without this cost, or measured elsewhere: alpha [random weights]." in body.inner_text()


def test_a_task_shows_every_metric_class_and_picture(open_page: Open) -> None:
    page = open_page()
    page.select_option("#choose-task", label=SEMSEG)
    task = page.locator("#task")
    assert task.locator("#task-chart svg path.mark").count() == 5
    page.select_option("#choose-metric", label="delta1 (%) ↑")
    assert "delta1 (%) ↑" in task.locator("#task-about").inner_text()
    assert task.locator("#task-chart svg path.mark").count() == 4  # random weights have no delta1
    task.get_by_text("All metrics as a table").click()
    expect(task.locator("#task-table table")).to_contain_text("50.0 [48.0, 52.0]")
    assert task.locator("#task-breakdown svg[role=img] text", has_text="wall").count() == 1
    task.get_by_text("Predictions on single samples").click()
    expect(task.locator("#task-pictures img")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_marks_stand_out_from_the_page(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    colours = page.evaluate(
        """() => { const style = getComputedStyle(document.documentElement);
          return Object.fromEntries(['page', 'panel', 'text', 'quiet', 'link', 'brand', 'axis', 'mark',
            's0', 's1', 's2', 's3', 's4', 's5'].map(
              (name) => [name, style.getPropertyValue('--' + name).trim()]));
        }"""
    )

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(name: str, ground: str) -> float:
        low, high = sorted((luminance(colours[name]), luminance(colours[ground])))
        return (high + 0.05) / (low + 0.05)

    for ground in ("page", "panel"):
        for name in ("text", "quiet", "link", "brand"):
            assert contrast(name, ground) >= 4.5, name  # WCAG 2.2, 1.4.3
    for name in ("axis", "mark", *(f"s{number}" for number in range(6))):
        assert contrast(name, "page") >= 3.0, name  # WCAG 2.2, 1.4.11
    assert (luminance(colours["page"]) < 0.1) == (scheme == "dark")


def test_a_theme_can_be_chosen_against_the_systems(open_page: Open) -> None:
    page = open_page(color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    assert page.evaluate(ground) == light
    page.click("#theme")
    assert page.locator("#theme").inner_text() == "Theme: dark"
    assert page.evaluate(ground) != light


def test_a_phone_scrolls_tables_not_the_page(open_page: Open) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    wide, view = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide == view == 360
    assert "scroll the table sideways" in page.locator("#wider").inner_text()
    cell(page, "alpha", "depth").locator("button").tap()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    box = dialog.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    page.keyboard.press("Escape")
    page.select_option("#choose-task", label=SEMSEG)
    drawn = page.locator("#task-chart svg text").all_text_contents()
    assert "alpha [random weights]" in drawn  # never without its brand
    heights = "() => [...document.querySelectorAll('svg text')].map((e) => e.getBoundingClientRect().height)"
    assert min(height for height in page.evaluate(heights) if height) >= 9  # CSS pixels


def test_without_scripts_the_numbers_are_there(browser: Browser, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert "10.0 [8.0, 12.0]" in " ".join(page.locator("#results").inner_text().split())
    assert not page.locator("#radar").is_visible()
    assert "Sorting, charts" in page.locator("body").inner_text()
    context.close()
