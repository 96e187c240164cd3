"""Views of a room that show its people: for learning bodies, where pairs of views do not matter."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError
from tools.minirooms.cameras import (
    F64,
    Camera,
    Cast,
    Photographer,
    covisible_share,
    project,
    rotation_between,
)
from tools.minirooms.classes import INDEX

BIN = "people"
_CANDIDATES, _TRIES = 6, 400
_IN_HEAD_M = 0.16
"""A head's middle lies inside it: its own surface may be this far in front."""
_QUALITY_WEIGHT = 0.1


def heads_seen(camera: Camera, cast: Cast, heads: F64, size: int) -> NDArray[np.bool_]:
    """(P,) whether a view shows the heads (P, 3), world: inside the image and hidden by nothing."""
    where, z = project(camera.K, camera.T_cam_world, heads)
    seen = (z > 0.05) & (where >= 0).all(axis=1) & (where < size).all(axis=1)
    if seen.any():
        surface, label = cast(camera.K, camera.T_cam_world, where[seen])
        seen[seen] = (label == INDEX["person"]) & (surface > z[seen] - _IN_HEAD_M)
    return seen


def people_views(photographer: Photographer, heads: F64, count: int) -> list[Camera]:
    """`count` views, each the one of six acceptable ones that shows most heads; a head that n views show
    already counts 1 / (1 + n).  heads: (P, 3), world.

    Rotation, baseline and covisibility are those to the first view.  Raises TaskError if the room offers
    too few views, or a view would show nobody.
    """
    views: list[Camera] = []
    shown = np.zeros(len(heads))
    for _ in range(count):
        best: tuple[float, Camera, NDArray[np.bool_]] | None = None
        for quality, camera in islice(photographer.acceptable(_TRIES), _CANDIDATES):
            seen = heads_seen(camera, photographer.cast, heads, photographer.size)
            worth = float((1 / (1 + shown))[seen].sum()) + _QUALITY_WEIGHT * quality
            if seen.any() and (best is None or worth > best[0]):
                best = worth, camera, seen
        if best is None:
            raise TaskError(f"{photographer.room.id}: no view shows anybody's head in {_TRIES} tries")
        shown += best[2]
        views.append(_beside(views[0] if views else best[1], best[1], photographer))
    return [replace(view, exposure=photographer.exposure()) for view in views]


def _beside(first: Camera, view: Camera, photographer: Photographer) -> Camera:
    covisible = (
        covisible_share(first, view, photographer.cast, photographer.size) if first is not view else 1.0
    )
    return replace(
        view,
        bin=BIN,
        covisible=covisible,
        rotation_deg=rotation_between(view.T_cam_world, first.T_cam_world),
        baseline_m=float(np.linalg.norm(view.centre - first.centre)),
    )
