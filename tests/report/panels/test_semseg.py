"""The segmentation panel shows the labels, and as wrong exactly what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from dune_bench.data.samples import SegSample
from dune_bench.probes.grids import TokenGrid
from dune_bench.probes.semseg import SegPrediction
from dune_bench.report.panels.colours import WRONG, palette
from tests.report.panels.conftest import SIZE, Draw, image_ref, shown_of

NAMES = ("wall", "floor", "table")


def prediction(left: int, right: int) -> SegPrediction:
    """Class `left` in the left half of the image, `right` in the right one."""
    logits = np.zeros((3, 6, 8), np.float32)
    logits[left, :, :4], logits[right, :, 4:] = 9, 9
    return SegPrediction(logits, TokenGrid((6, 8), SIZE))


def sample() -> SegSample:
    """Wall everywhere, but ignored in the lower half."""
    labels = np.zeros(SIZE, np.uint8)
    labels[24:] = 255
    return SegSample("room/0", "room", image_ref(), labels)


def is_wrong(pixels: np.ndarray) -> np.ndarray:
    """Where a tile is the colour of errors, which is blended with the image."""
    return np.abs(pixels.astype(int) - WRONG).sum(-1) < 100


def test_error_marks_wrong_pixels_and_no_ignored_ones(draw: Draw) -> None:
    drawn = draw("semseg", shown_of(sample(), prediction(0, 1), classes=NAMES))
    wrong = is_wrong(drawn.pixels("error"))
    assert wrong[:24, 33:].all()
    assert not wrong[:24, :31].any()
    assert not wrong[24:].any()
    assert any(text.startswith("error: 50.0 % of pixels") for text in drawn.texts)


def test_legend_has_this_pictures_classes_and_their_iou(draw: Draw) -> None:
    drawn = draw("semseg", shown_of(sample(), prediction(0, 1), classes=NAMES))
    assert drawn.legend == ["wall  50 %", "floor  0 %", "ignored"]


def test_names_stand_on_large_regions_only(draw: Draw) -> None:
    drawn = draw("semseg", shown_of(sample(), prediction(0, 1), classes=NAMES))
    words = [text.get_text() for text in drawn.tile("prediction").texts]
    assert sorted(words) == ["floor", "wall"]
    assert [text.get_text() for text in drawn.tile("truth").texts] == ["wall"]


def test_photograph_has_no_truth_and_no_error(draw: Draw) -> None:
    drawn = draw("semseg", shown_of(sample(), prediction(0, 1), classes=NAMES, truth=False))
    assert not [text for text in drawn.texts if text.startswith(("truth", "error"))]
    assert drawn.legend == ["wall", "floor"]


def test_split_without_class_names_still_has_a_legend(draw: Draw) -> None:
    assert draw("semseg", shown_of(sample(), prediction(2, 2))).legend == ["0  0 %", "2  0 %", "ignored"]


def test_image_that_is_ignored_as_a_whole_is_no_crash(draw: Draw) -> None:
    nothing = SegSample("room/0", "room", image_ref(), np.full(SIZE, 255, np.uint8))
    drawn = draw("semseg", shown_of(nothing, prediction(0, 1), classes=NAMES))
    assert not is_wrong(drawn.pixels("error")).any()


@pytest.mark.parametrize("count", [0, 1, 14, 20, 150])
def test_every_class_has_a_colour_of_its_own(count: int) -> None:
    colours = palette(count)
    assert colours.shape == (count, 3)
    assert len({tuple(colour) for colour in colours}) == count
    np.testing.assert_array_equal(colours, palette(200)[:count])  # more classes move no colour
