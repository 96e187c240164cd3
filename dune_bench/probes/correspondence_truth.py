"""What is true of a pair of views: which points are asked, where they lie in view 2, and how far off
an answer is, in pixels and in metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import PairSample, View
from dune_bench.errors import TaskError
from dune_bench.geometry.cameras import Camera, project, scale_points, unproject
from dune_bench.geometry.matching import cell_centres
from dune_bench.geometry.sampling import sample_map, sample_nearest

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
EDGE_RATIO = 1.05
"""Depths of neighbouring pixels that differ by more than this factor belong to different surfaces."""


@dataclass(frozen=True)
class PairTruth:
    """Truth of the points of a lattice in view 1.

    asked: bool (n,), points that are on a surface which view 2 sees.  places2: float64 (n, 2), their
    pixels (x, y) in view 2.  points2: float64 (n, 3), metres in camera 2.  Rows not asked are NaN.
    """

    asked: Bools
    places2: Floats
    points2: Floats


def lattice(size: tuple[int, int], side: int) -> Floats:
    """(side², 2) points (x, y), row-major: centres of side × side equal cells of an original image of
    `size` (height, width).  They depend on no encoder's tokens."""
    return np.asarray(cell_centres((side, side), size).numpy())


def same_places(pair: PairSample, side: int) -> Floats:
    """The answers of the identity: each point of the lattice at the same place of view 2's image."""
    return lattice(pair.view2.image.size, side)


def pair_truth(pair: PairSample, points1: Floats, occlusion_m: float) -> PairTruth:
    """Where the surface under points1 (n, 2) of view 1 lies in view 2, and whether view 2 sees it.

    A point is asked if it falls into view 2, if it lies on one surface in either view (at a depth edge
    the truth is ambiguous), and if the surface that view 2 has there is no farther from it than
    `occlusion_m`.  Raises TaskError if a camera does not fit its image.
    """
    _check(pair.view1, pair.id)
    _check(pair.view2, pair.id)
    depth1, whole = _depth_at(pair.view1, points1)
    points = unproject(pair.view1.K, points1, np.where(whole, depth1, np.nan))
    T_2_1 = pair.view2.T_cam_world @ np.linalg.inv(pair.view1.T_cam_world)
    points2 = points @ T_2_1[:3, :3].T + T_2_1[:3, 3]
    places2, _ = project(pair.view2.K, points2)
    depth2, whole = _depth_at(pair.view2, places2)
    apart = np.linalg.norm(unproject(pair.view2.K, places2, depth2) - points2, axis=1)
    with np.errstate(invalid="ignore"):
        asked = whole & (apart <= occlusion_m)  # false where there is no such point: NaN
    hidden = ~asked[:, None]
    return PairTruth(asked, np.where(hidden, np.nan, places2), np.where(hidden, np.nan, points2))


def surface_at(view: View, places: Floats) -> Floats:
    """The surface seen at pixel places (n, 2) of a view: (n, 3) metres in its camera; NaN outside the
    image and where the depth is invalid."""
    places = np.where(np.isfinite(places).all(1, keepdims=True), places, np.nan)
    depth, _ = _depth_at(view, places)
    return unproject(view.K, places, depth)


def rotation_deg(pair: PairSample) -> float:
    """Angle of the rotation between the two cameras."""
    R = pair.view2.T_cam_world[:3, :3] @ pair.view1.T_cam_world[:3, :3].T
    # The sine and the cosine together: the arc cosine alone is blind near 0.
    sine = np.linalg.norm([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    return float(np.degrees(np.arctan2(sine, np.trace(R) - 1.0)))


def light_change(pair: PairSample) -> float:
    """How differently the two views were exposed: the largest ratio ≥ 1 between the gains that the
    renderer gave red, green and blue."""
    (gain1, red1, blue1), (gain2, red2, blue2) = pair.view1.exposure, pair.view2.exposure
    logs = np.log([gain1 / gain2, gain1 * red1 / (gain2 * red2), gain1 * blue1 / (gain2 * blue2)])
    return float(np.exp(np.abs(logs).max()))


def _depth_at(view: View, places: Floats) -> tuple[Floats, Bools]:
    """Depth (n,) at pixel places of the image, and whether it is of one surface.

    On one surface inverse depth is interpolated, which is exact on planes; at a depth edge, where
    interpolation would invent a point between two surfaces, the nearest pixel's depth holds.
    """
    size = (view.depth.shape[0], view.depth.shape[1])
    points = scale_points(places, view.image.size, size)
    depth = view.depth.astype(np.float64)
    valid = np.isfinite(depth) & (depth > 0)
    inverse = np.divide(1.0, depth, out=np.full(size, np.nan), where=valid)
    smooth = _one_surface(inverse, points)
    between, nearest = sample_map(inverse, points), sample_nearest(inverse, points)
    return 1.0 / np.where(smooth, between, nearest), smooth


def _one_surface(inverse: Floats, points: Floats) -> Bools:
    """Whether the four pixels around each point (n, 2) are valid and within EDGE_RATIO."""
    height, width = inverse.shape
    with np.errstate(invalid="ignore"):
        inside = ((points >= 0) & (points <= (width, height))).all(1)
    low = np.floor(points[inside] - 0.5).astype(np.int64)
    rows = np.clip(low[:, 1, None] + (0, 0, 1, 1), 0, height - 1)
    columns = np.clip(low[:, 0, None] + (0, 1, 0, 1), 0, width - 1)
    around = inverse[rows, columns]
    whole = np.zeros(len(points), dtype=bool)
    # A hole is NaN, and no comparison with NaN holds.
    whole[inside] = around.max(1) <= EDGE_RATIO * around.min(1)
    return whole


def _check(view: View, pair: str) -> None:
    try:
        Camera(view.K, view.image.size)
    except TaskError as error:
        raise TaskError(f"pair {pair}: view {view.id}: {error}") from error
