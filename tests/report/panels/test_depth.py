"""The depth panel: one scale for truth and prediction, the error's sign, and no value where none is."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps

from dune_bench.data.samples import DepthSample
from dune_bench.probes.depth import DepthPrediction
from dune_bench.probes.grids import TokenGrid
from dune_bench.report.panels.colours import BAD, DEPTH_MAP
from tests.report.panels.conftest import SIZE, Draw, K, image_ref, shown_of


def prediction(metres: float) -> DepthPrediction:
    return DepthPrediction(np.full((6, 8), np.log(metres), np.float32), TokenGrid((6, 8), SIZE), 0.1, 50)


def sample(depth: np.ndarray) -> DepthSample:
    return DepthSample("room/0", "room", image_ref(), depth.astype(np.float32), K)


def ramp() -> np.ndarray:
    """1 to 4 m from left to right, at half the image's size."""
    return np.tile(np.geomspace(1, 4, 32), (24, 1))


def test_invalid_truth_is_grey_and_not_zero_error(draw: Draw) -> None:
    depth = ramp()
    depth[:, :8], depth[:, 8:12], depth[:, 12:16] = np.nan, 0.0, 1e6
    drawn = draw("depth", shown_of(sample(depth), prediction(2.0)))
    for caption in ("truth", "error"):
        pixels = drawn.pixels(caption)
        np.testing.assert_allclose(pixels[:, :16], np.broadcast_to(BAD, (24, 16, 3)), atol=1e-6)
        assert (np.abs(pixels[:, 16:] - BAD).max(-1) > 0.05).mean() > 0.8


def test_too_far_is_orange_and_too_near_is_purple(draw: Draw) -> None:
    pixels = draw("depth", shown_of(sample(ramp()), prediction(2.0))).pixels("error")
    near_truth, far_truth = pixels[:, 0], pixels[:, -1]  # 1 m and 4 m, both predicted as 2 m
    assert (near_truth[:, 0] > near_truth[:, 2]).all()
    assert (far_truth[:, 2] > far_truth[:, 0]).all()


def test_truth_and_prediction_share_one_scale(draw: Draw) -> None:
    drawn = draw("depth", shown_of(sample(ramp()), prediction(2.0)))
    truth, found = drawn.pixels("truth"), drawn.pixels("prediction")
    column = int(np.argmin(np.abs(ramp()[0] - 2.0)))
    np.testing.assert_allclose(truth[0, column], found[0, 0], atol=0.05)
    assert not np.allclose(truth[0, 0], found[0, 0], atol=0.05)


def test_image_without_any_valid_depth_says_so(draw: Draw) -> None:
    drawn = draw("depth", shown_of(sample(np.full((24, 32), np.nan)), prediction(2.0)))
    assert drawn.texts.count("no valid depth") == 2


def test_photograph_shows_metres_alone(draw: Draw) -> None:
    drawn = draw("depth", shown_of(sample(np.full(SIZE, np.nan)), prediction(2.0), truth=False))
    assert len(drawn.sheet.figure.axes) == 3  # image, prediction, scale
    middle = colormaps[DEPTH_MAP](0.5)[:3]
    np.testing.assert_allclose(drawn.pixels("prediction")[0, 0], middle, atol=0.02)
