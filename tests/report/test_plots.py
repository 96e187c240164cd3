"""Static plots: all there, readable as files, and never a wrong name or a crossed machine."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from dune_bench.errors import UnavailableError
from dune_bench.report.board import Entry
from dune_bench.report.plot_column import _one_machine, draw_column, pareto_front
from dune_bench.report.plot_radar import radar_axes
from dune_bench.report.plot_style import MISSING, MOST_STYLED, clean, styles
from dune_bench.report.plots import pdf_file, png_files
from dune_bench.report.shown import MOST_SHOWN, shown_encoders
from dune_bench.report.write import read_board, write_leaderboard
from dune_bench.results.schema import Cost, Result
from tests.report.factory import make_result, metric, task_info, write_results
from tests.report.pages import TASKS, many_results, write_many


def test_every_column_and_the_radar_are_drawn(tmp_path: Path) -> None:
    files = png_files(read_board(write_many(tmp_path)))
    assert len(files) == len(TASKS) + 2  # and the limited column
    assert "radar.png" in files
    for content in files.values():
        image = Image.open(io.BytesIO(content))
        assert image.width > 1000
        assert len(image.convert("L").histogram()) > 1
        assert image.convert("L").getextrema()[0] < 60  # something is drawn


def test_no_text_runs_off_the_page_and_no_metric_is_shortened(tmp_path: Path) -> None:
    identity = "pve_mm@miss350mm"
    task = task_info("hmr/minirooms/ridge@1", dataset="minirooms@1")
    write_results(tmp_path, make_result(task=task, metrics=(metric(250.0, id=identity, unit="mm"),)))
    board = read_board(tmp_path)
    figure = draw_column(board, board.columns[0], {})
    assert figure is not None
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    lines = [text for text in figure.texts if text.get_text()]
    assert any(text.get_text().startswith(f"{identity} (mm)") for text in lines)
    width = figure.bbox.width
    assert max(text.get_window_extent().x1 for text in lines) < width


def test_names_of_neighbours_do_not_cover_each_other(tmp_path: Path) -> None:
    for place, encoder in enumerate(("first", "second", "third")):
        cost = Cost(parameters=1000 + place)
        write_results(tmp_path, make_result(encoder, cost=cost, metrics=(metric(40.0 + place / 100),)))
    write_results(tmp_path, make_result("far", cost=Cost(parameters=10**9), metrics=(metric(60.0),)))
    board = read_board(tmp_path)
    figure = draw_column(board, board.columns[0], styles(shown_encoders(board)))
    assert figure is not None
    FigureCanvasAgg(figure).draw()
    boxes = [text.get_window_extent() for text in figure.axes[1].texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_there_is_a_style_for_every_encoder_that_is_shown() -> None:
    assert MOST_SHOWN == MOST_STYLED


def test_the_same_board_gives_the_same_bytes(tmp_path: Path) -> None:
    write_results(tmp_path, make_result("a"), make_result("b"))
    board = read_board(tmp_path)
    assert png_files(board) == png_files(board)
    assert pdf_file(board) == pdf_file(board)


def test_the_pdf_has_a_page_for_each_plot(tmp_path: Path) -> None:
    write_results(tmp_path, *many_results())
    board = read_board(tmp_path)
    written = write_leaderboard(tmp_path, ["pdf"], tmp_path)
    assert written.paths == (tmp_path / "leaderboard.pdf",)
    content = written.paths[0].read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page ") == len(board.columns) + 1


def test_no_defined_value_is_said_instead_of_an_empty_plot(tmp_path: Path) -> None:
    write_results(tmp_path, make_result(metrics=(metric(None),)))
    with pytest.raises(UnavailableError, match="no result has a primary metric"):
        png_files(read_board(tmp_path))


def test_an_axis_is_directed_and_where_all_are_equal_there_is_none(tmp_path: Path) -> None:
    down = {"id": "rmse_m", "unit": "m", "higher_is_better": False}
    depth = task_info("depth/toy/convex@1")
    write_results(
        tmp_path,
        make_result("a", task=depth, metrics=(metric(1.0, **down),)),
        make_result("b", task=depth, metrics=(metric(2.0, **down),)),
        make_result("a", metrics=(metric(5.0),)),
        make_result("b", metrics=(metric(5.0),)),
    )
    (axis,) = radar_axes(read_board(tmp_path))
    assert (axis.worst, axis.best) == (2.0, 1.0)
    assert axis.radius(1.0) == 1.0 > axis.radius(2.0) > 0


def priced(cost: float, value: float, **changes: object) -> tuple[float, Entry]:
    result: Result = make_result(
        metrics=(metric(value),),
        cost=Cost(latency_ms=cost, batch_size=8),
        **changes,  # type: ignore[arg-type]
    )
    return cost, Entry("x.json", result)


def test_the_front_is_what_nobody_beats_in_both() -> None:
    points = [
        priced(1, 10.0),
        priced(2, 30.0),
        priced(3, 20.0),
        priced(4, 40.0),
        priced(4, 35.0),
        priced(5, 40.0),
    ]

    def front(up: bool) -> list[tuple[float, float]]:
        return [(c, e.result.metrics[0].value or 0.0) for c, e in pareto_front(points, up)]

    assert front(True) == [(1, 10.0), (2, 30.0), (4, 40.0)]
    assert front(False) == [(1, 10.0)]


def test_latencies_of_two_machines_are_never_in_one_plot() -> None:
    made = make_result().provenance
    here = [priced(1, 10.0), priced(2, 20.0)]
    elsewhere = [priced(3, 30.0, provenance=made.model_copy(update={"device": "cuda"}))]
    kept, where = _one_machine([*here, *elsewhere])
    assert kept == here
    assert where.startswith("cpu, 2 threads, batch 8")


def test_a_name_is_drawn_as_it_is_and_never_as_a_formula(tmp_path: Path) -> None:
    write_results(tmp_path, make_result("$\\frac{$ _x_"), make_result("$\\bad$"))
    assert png_files(read_board(tmp_path))  # a formula with an error would raise


def test_a_character_that_the_font_lacks_is_a_box_not_a_warning() -> None:
    assert clean("a\u65e5b\nc") == f"a{MISSING}b c"
    assert clean("x" * 100, 10) == "x" * 9 + "…"


def test_a_name_that_is_too_long_keeps_its_brand() -> None:
    assert clean("dune_vitb_of_a_long_name [random weights]", 20) == "dune_vitb_… [random]"
    assert clean("a_long_name (weights 1234567)", 24) == "a_lon… (weights 1234567)"
    assert clean("vit [random weights]", 20) == "vit [random weights]"


def test_tables_and_pages_do_not_wait_for_matplotlib(tmp_path: Path) -> None:
    write_results(tmp_path, make_result())
    code = (
        "import sys; from pathlib import Path; from dune_bench.report.write import write_leaderboard as w; "
        f"r = Path({str(tmp_path)!r}); w(r, ['md', 'csv', 'html'], r); "
        "print(sorted({'torch', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = code.replace("['md', 'csv', 'html']", "['png', 'pdf']")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['matplotlib']"
