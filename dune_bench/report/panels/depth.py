"""Panel of metric depth: image, truth, prediction on one scale, and the signed error in metres."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FixedLocator, StrMethodFormatter
from numpy.typing import NDArray

from dune_bench.data.samples import DepthSample
from dune_bench.metrics.depth import valid_depth
from dune_bench.report.panels.canvas import SCALE, Canvas, label, show, tile_size
from dune_bench.report.panels.colours import BAD, DEPTH_MAP, SIGNED_MAP
from dune_bench.report.panels.shown import Panel, Shown

if TYPE_CHECKING:
    from dune_bench.probes.depth import DepthPrediction

Floats = NDArray[np.float64]
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100)


def draw(shown: Shown) -> Panel:
    """Four tiles; pixels without a valid truth are grey.  Without truth two tiles."""
    sample = cast(DepthSample, shown.sample)
    prediction = cast("DepthPrediction", shown.prediction)
    size = sample.image.size
    tile = tile_size(size)
    tiles = 4 if shown.truth else 2
    sheet = Canvas(shown.heading, shown.subheading(), [[tile[0]] * tiles], [tile[1]], [SCALE])
    sheet.picture(0, 0, "image", sample.image.read(), size)
    if not shown.truth:
        found = prediction.depth(size)
        scale = _log_scale(found)
        _map(sheet, 1, "prediction", found, scale, size)
        sheet.scale(0, (1, 1), scale, "depth (m)", **_ticks(scale))
        return Panel(sheet.png())
    found = prediction.depth((sample.depth.shape[0], sample.depth.shape[1]))
    valid = valid_depth(sample.depth, prediction.low, prediction.high)
    truth = np.where(valid, sample.depth, np.nan).astype(np.float64)
    scale = _log_scale(truth if valid.any() else found)
    _map(sheet, 1, "truth", truth, scale, size)
    _map(sheet, 2, "prediction", found, scale, size)
    sheet.scale(0, (1, 2), scale, "depth (m)", **_ticks(scale), extend="both")
    error = found - truth
    signed = ScalarMappable(Normalize(*_symmetric(error)), colormaps[SIGNED_MAP].with_extremes(bad=BAD))
    _map(sheet, 3, "error: prediction − truth", error, signed, size)
    sheet.scale(0, (3, 3), signed, "too near  ←  error (m)  →  too far", extend="both")
    return Panel(sheet.png())


def _map(
    sheet: Canvas, column: int, caption: str, values: Floats, scale: ScalarMappable, size: tuple[int, int]
) -> None:
    axes = sheet.tile(0, column, caption)
    show(axes, scale.to_rgba(np.ma.masked_invalid(values))[..., :3], size)
    if not np.isfinite(values).any():
        label(axes, size[1] / 2, size[0] / 2, "no valid depth")


def _log_scale(depth: Floats) -> ScalarMappable:
    """From the 1st to the 99th percentile: a few far pixels must not flatten the rest."""
    low, high = np.nanpercentile(depth, (1, 99))
    if high < 1.05 * low:  # a wall alone: a scale needs some width
        low, high = low / 1.05, high * 1.05
    return ScalarMappable(LogNorm(low, high), colormaps[DEPTH_MAP].with_extremes(bad=BAD))


def _ticks(scale: ScalarMappable) -> dict[str, Any]:
    """Round metres, at most about eight."""
    low, high = scale.get_clim()
    ticks = [tick for tick in _TICKS if low is not None and high is not None and low <= tick <= high]
    ticks = ticks[:: 1 + len(ticks) // 9] or [low, high]
    return {
        "ticks": FixedLocator(ticks),
        "format": StrMethodFormatter("{x:g}"),
    }


def _symmetric(error: Floats) -> tuple[float, float]:
    """Zero in the middle; the limit is the 95th percentile of the absolute error, at least 5 cm."""
    finite = np.abs(error[np.isfinite(error)])
    limit = max(0.05, float(np.percentile(finite, 95))) if finite.size else 0.05
    return -limit, limit
