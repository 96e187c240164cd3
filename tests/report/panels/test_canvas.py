"""The sheet: tiles where they belong, text as it is written, no state between panels."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dune_bench.errors import UnavailableError
from dune_bench.report.panels.canvas import CAPTION, DPI, GAP, HEAD, MARGIN, Canvas, tile_size
from dune_bench.report.panels.shown import PANELS, Value, drawer
from tests.report.panels.conftest import image_ref, shown_of

RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)


def sheet(heading: str = "heading") -> Canvas:
    made = Canvas(heading, "below", [[3.0, 2.0]], [2.0], [0.5])
    made.picture(0, 1, "caption", RED, (40, 60))
    return made


def pixels(made: Canvas) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(made.png())).convert("RGB")).astype(int)


def test_picture_fills_its_tile_and_nothing_else() -> None:
    made = sheet()
    picture = pixels(made)
    np.testing.assert_allclose(picture.shape[:2], np.array([made.height, made.width]) * DPI, atol=1)
    rows, columns = np.nonzero((picture == (255, 0, 0)).all(-1))
    left, top = MARGIN + 3.0 + GAP, HEAD + CAPTION
    expected = np.array([left, left + 2.0, top, top + 2.0]) * DPI
    found = (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1)
    np.testing.assert_allclose(found, expected, atol=1.5)
    assert len(rows) > 0.98 * 4.0 * DPI**2


def test_same_sheet_twice_has_the_same_bytes() -> None:
    assert sheet().png() == sheet().png()


@pytest.mark.parametrize("name", ["my_$x$_run", "100 $", "写真.jpg", r"\alpha $\frac"])
def test_any_name_is_drawn_as_text(name: str) -> None:
    """Dollars are no mathematics, and other scripts no warning."""
    assert not np.array_equal(pixels(sheet(name)), pixels(sheet("")))


def test_long_subheading_goes_on_in_further_lines_and_loses_no_word() -> None:
    parts = [f"part number {i}" for i in range(12)]
    made = Canvas("heading", "  ·  ".join(parts), [[3.0]], [2.0], [0.0])
    lines = [text.get_text() for text in made.figure.texts[1:]]
    assert len(lines) > 2
    assert "  ·  ".join(lines).split("  ·  ") == parts
    assert made.height > Canvas("heading", "short", [[3.0]], [2.0], [0.0]).height


def test_heading_of_a_narrow_sheet_is_not_cut_off() -> None:
    made = Canvas(
        "dinov2_vits14_saliency  ·  reloc/minirooms/pnp-direct@1 (limit 36)", "", [[4.0]], [2.0], [0.0]
    )
    made.png()  # places the text
    titles = [text for text in made.figure.texts if text.get_weight() == "bold"]
    assert [text.get_text() for text in titles] == [
        "dinov2_vits14_saliency",
        "reloc/minirooms/pnp-direct@1 (limit 36)",
    ]
    assert max(text.get_window_extent().x1 for text in titles) <= made.width * DPI
    assert made.height > Canvas("heading", "", [[4.0]], [2.0], [0.0]).height


@pytest.mark.parametrize("size", [(448, 448), (720, 540), (300, 3000), (3000, 300)])
def test_tiles_keep_the_shape_of_the_image(size: tuple[int, int]) -> None:
    width, height = tile_size(size)
    np.testing.assert_allclose(height / width, size[0] / size[1])
    assert width <= 3.4 + 1e-9
    assert height <= 3.8 + 1e-9


def test_subheading_tells_units_and_undefined_values() -> None:
    values = (Value("rmse_m", 0.5461, "m"), Value("abs_rel", 0.2, "1"), Value("miou", float("nan"), "%"))
    text = shown_of(image_ref("x"), None, values=values, place="worst of 60", notes=("a note",)).subheading()
    assert text == "x  ·  worst of 60  ·  rmse_m 0.546 m, abs_rel 0.200, miou undefined  ·  a note"


def test_probe_without_a_panel_is_one_clear_line() -> None:
    with pytest.raises(UnavailableError, match=r"probe 'knn' has no panel: there are panels for semseg, "):
        drawer("knn")


def test_panels_import_no_torch_and_no_pyplot() -> None:
    root = Path(__file__).parents[3]
    files = sorted((root / "dune_bench/report/panels").glob("*.py"))
    names = ["dune_bench.report.panels." + path.stem for path in files if path.stem != "__init__"]
    assert {target.partition(":")[0] for target in PANELS.values()} <= set(names)
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'matplotlib.pyplot', 'trimesh'} & set(sys.modules), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
