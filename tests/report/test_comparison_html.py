"""The page of a comparison: each picture on its side, commands for those missing, nobody's markup."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import dune_bench
from dune_bench.report.comparison_html import comparison_page, missing_pictures
from dune_bench.report.format import column_name
from dune_bench.results.store import safe_name
from tests.report.pages import NASTY
from tests.report.paired_runs import NEW, depth, digest, write


def picture(runs: Path, encoder: str, task: str, sample: str) -> None:
    path = runs / "panels" / safe_name(encoder) / safe_name(task) / f"{safe_name(sample)}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), "red").save(path)


def test_a_picture_stands_with_its_own_encoder_and_the_missing_one_has_a_command(tmp_path: Path) -> None:
    write(tmp_path, depth("a"), depth("b", 0.3, noise=1))
    comparison = dune_bench.compare("a", "b", tmp_path, worst=2)
    (task,) = comparison.tasks
    first, second = task.worst
    picture(tmp_path, "b", column_name(task.task), first.id)
    page = comparison_page(comparison, tmp_path)
    assert page.count("<img ") == 1
    assert page.count("No picture yet") == 3
    start = page.index("<figcaption>B: b")
    assert 'src="data:image/webp' in page[start : page.index("</figure>", start)]
    commands = page.split("Pictures not made yet")[1]
    assert f"panel a --task {task.task.id} --samples {first.id},{second.id} " in commands
    assert f"panel b --task {task.task.id} --samples {second.id} " in commands
    assert comparison_page(comparison, tmp_path) == page


def test_a_broken_picture_is_named_not_fatal(tmp_path: Path) -> None:
    write(tmp_path, depth("a"), depth("b", 0.3, noise=1))
    comparison = dune_bench.compare("a", "b", tmp_path, worst=1)
    task = comparison.tasks[0]
    picture(tmp_path, "a", column_name(task.task), task.worst[0].id)
    next(tmp_path.glob("panels/*/*/*.png")).write_bytes(b"no picture")
    assert "Not readable as a picture" in comparison_page(comparison, tmp_path)


def test_names_with_markup_are_shown_not_run(tmp_path: Path) -> None:
    write(tmp_path, depth("a"), depth(NASTY, 0.3, noise=1))
    page = comparison_page(dune_bench.compare("a", NASTY, tmp_path), tmp_path)
    assert "<script" not in page
    assert "<img" not in page


def test_two_checkpoints_of_one_name_do_not_show_each_others_pictures(tmp_path: Path) -> None:
    write(tmp_path, depth("a", weights_digest="one"), depth("a", 0.3, weights_digest="two", started=NEW))
    one, two = (f"a@{digest(weights)[:8]}" for weights in ("one", "two"))
    comparison = dune_bench.compare(one, two, tmp_path, worst=1)
    picture(tmp_path, "a", column_name(comparison.tasks[0].task), comparison.tasks[0].worst[0].id)
    page = comparison_page(comparison, tmp_path)
    assert "<img" not in page
    assert len(missing_pictures(comparison, tmp_path)) == 2
    for side in (comparison.first, comparison.second):
        name = f"a@{str(side.encoder.digest)[:7]}"
        picture(tmp_path, name, column_name(comparison.tasks[0].task), comparison.tasks[0].worst[0].id)
        entries = missing_pictures(comparison, tmp_path)
        assert comparison_page(comparison, tmp_path).count("<img ") == 2 - len(entries)
    assert entries == ()
