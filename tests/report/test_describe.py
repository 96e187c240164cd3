"""Reports that leave a reader to guess what the data is, what an encoder is, or what a head was fitted on."""

from __future__ import annotations

from pathlib import Path

from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.lookup import load_registry
from dune_bench.report.board import Board, make_board
from dune_bench.report.conditions import data_text, facts
from dune_bench.report.describe import described
from dune_bench.report.html_page import html_page
from dune_bench.report.markdown import markdown
from dune_bench.results.schema import BreakdownResult, Result
from tests.report.factory import digest, make_result, metric, task_info

PIXELS = load_registry().encoders["pixels"]
RELOC = load_registry().tasks["reloc/minirooms/match-depth@1"]


def board_of(*results: Result) -> Board:
    found = [(Path("r") / f"{i}.json", result) for i, result in enumerate(results)]
    return described(make_board(found, [], Path("r")), load_registry())


def pixels(card: EncoderCard = PIXELS) -> Result:
    result = make_result("pixels", weights="none", task=task_info(dataset="minirooms@1"))
    known = card.fingerprint()
    encoder = result.encoder.model_copy(update={"card_fingerprint": known, "digest": digest("")})
    return result.model_copy(update={"encoder": encoder})


def reloc(**changes: object) -> Result:
    scenes = {"split_sizes": {"test": 30}, "groups": {"test": 30}, "upstream": {"depth_head": digest("head")}}
    task = task_info(RELOC.id, dataset="minirooms@1", **(scenes | changes))
    queries = BreakdownResult(metric="queries", by="difficulty", values={"narrow": 60.0, "wide": 90.0})
    return make_result(task=task, breakdowns=(queries,))


def test_a_report_says_that_the_data_is_rendered() -> None:
    board = board_of(pixels())
    assert "rendered by a program, not photographs" in markdown(board)
    how = html_page(board).html.partition('id="how"')[2].partition("</section>")[0]
    assert "rendered by a program, not photographs" in how


def test_an_encoder_without_weights_has_a_description_and_no_digest_of_nothing() -> None:
    board = board_of(pixels())
    assert f"- pixels: {PIXELS.description}" in markdown(board)
    page = html_page(board).html
    assert f"<dd>{PIXELS.description}</dd>" in page
    assert "no weights</small>" in page
    assert digest("")[:8] not in page


def test_a_card_that_changed_since_does_not_describe_the_result() -> None:
    changed = PIXELS.model_copy(update={"arch": {"patch": 7}})
    assert board_of(pixels(changed)).descriptions.encoders == {}


def test_data_of_a_plug_in_that_is_not_here_needs_no_description() -> None:
    assert board_of(make_result(task=task_info(dataset="elsewhere@3"))).descriptions.datasets == {}


def test_training_data_of_a_head_that_a_task_builds_on_is_named() -> None:
    sizes = {"split_sizes": {"train": 420, "test": 180}, "groups": {"train": 70, "test": 30}}
    depth = make_result(task=task_info(RELOC.requires["depth_head"], dataset="minirooms@1", **sizes))
    user = reloc(protocol_fingerprint=RELOC.protocol_fingerprint())
    board = board_of(depth, user)
    column = next(c for c in board.columns if c.task.probe == "reloc")
    assert data_text(board, column).endswith(
        "builds on a depth head fitted by depth/minirooms/convex@1 (train 420 samples in 70 rooms)"
    )
    assert "train 420" in dict(facts(board, column))["Data"]


def test_a_head_of_an_unknown_protocol_is_not_kept_quiet() -> None:
    board = board_of(reloc())
    assert data_text(board, board.columns[0]).endswith("; builds on a fitted depth_head")


def test_queries_are_counted_not_scenes() -> None:
    board = board_of(reloc())
    assert "test 150 queries in 30 rooms" in markdown(board)
    assert "30 samples" not in markdown(board)


def test_an_interval_of_no_width_does_not_read_as_certainty() -> None:
    nothing = make_result(metrics=(metric(0.0, ci95=(0.0, 0.0), n_failed=3),))
    board = board_of(nothing)
    text, page = markdown(board), html_page(board).html
    assert "| vit | 0.0 ‡ (3 failed) |" in text
    assert "that is not certainty" in text
    assert "(n failed): so many samples got no answer" in text
    assert "[0.0, 0.0]" not in page
    assert "<div ><dt>‡</dt>" in page
    assert "‡" not in markdown(board_of(make_result()))
