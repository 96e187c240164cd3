"""Statistics of a scene's queries in fixed shapes, and their metrics under weightings of the scenes.

AUC and precision pool the queries of all scenes and the medians are per scene, so a scene keeps one
row per query; scenes with fewer queries than the widest are padded, and `asked` says which rows are
queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import RelocScene
from dune_bench.errors import TaskError
from dune_bench.geometry.poses import geodesic_deg, invert, quaternion_from_rotation
from dune_bench.metrics.mapfree import VCRE_PX, FrameErrors, frame_errors, reduce_frames
from dune_bench.probes.base import Breakdown, Stats

Floats = NDArray[np.float64]
Answered = tuple[Floats | None, float]
"""T_query_ref (4, 4), or None, and its confidence."""

BINS = ("narrow", "medium", "wide")
FULL_ROTATION_DEG, FULL_BASELINE_M = 60.0, 2.5
"""Difficulty 1; that of a query is the larger of its rotation and its baseline in these, and the bins
are thirds."""
PX_DIAGONAL = 900.0
"""Diagonal of 540×720: the images that a threshold of 90 px is of."""
BLOCK_ITEMS = 2**21
_ERRORS = ("trans_m", "rot_deg", "vcre_px", "diagonal_px", "confidence", "answered")


def scene_rows(scene: RelocScene, answers: Sequence[Answered], width: int) -> dict[str, NDArray[Any]]:
    """Statistics (width,) of a scene's queries, in their order, then padding.

    trans_m, rot_deg, vcre_px, diagonal_px, confidence, answered: see `FrameErrors`; an unanswered
    query has the penalties.  asked: bool, false for padding.  rotation_deg, baseline_m: how far
    the query's true camera is from the reference's.  pose: (width, 7), the answer as quaternion and
    translation of T_query_ref.  Padding is NaN and false.  Raises TaskError for a NaN confidence.
    """
    if len(answers) > width:
        raise TaskError(f"sample {scene.id}: {len(answers)} queries do not fit into {width} rows")
    rows: dict[str, NDArray[Any]] = {name: np.full(width, np.nan) for name in _ERRORS}
    rows |= {"rotation_deg": np.full(width, np.nan), "baseline_m": np.full(width, np.nan)}
    rows |= {"answered": np.zeros(width, bool), "asked": np.zeros(width, bool)}
    rows["pose"] = np.full((width, 7), np.nan)
    for i, (query, (T_query_ref, confidence)) in enumerate(zip(scene.queries, answers, strict=True)):
        true = query.T_cam_world @ invert(scene.reference.T_cam_world)
        errors = frame_errors(T_query_ref, true, query.K, query.image.size, confidence)
        for name in _ERRORS:
            rows[name][i] = getattr(errors, name)[0]
        rows["asked"][i] = True
        rows["rotation_deg"][i] = geodesic_deg(true[:3, :3], np.eye(3))
        rows["baseline_m"][i] = np.linalg.norm(true[:3, 3])
        if T_query_ref is not None and errors.answered[0]:
            rows["pose"][i] = (*quaternion_from_rotation(T_query_ref[:3, :3]), *T_query_ref[:3, 3])
    return rows


def reduce_scenes(stats: Stats, weights: Floats) -> dict[str, Floats]:
    """Strict Map-free metrics under R weightings (R, n) of the n scenes; (R,) arrays.

    Metrics `@90px` are left out unless every image's diagonal is that of 540×720, of which 90 px is
    a tenth; `@0.1diag` means the same on any image.
    """
    return _reduce(stats, np.asarray(stats["asked"], bool), weights)


def bin_breakdowns(stats: Stats) -> list[Breakdown]:
    """Each metric, and the number of queries, by difficulty of the query."""
    difficulty = difficulties(stats)
    ones = np.ones((1, len(difficulty)))
    values: dict[str, dict[str, float | None]] = {}
    for i, name in enumerate(BINS):
        low = -np.inf if i == 0 else i / len(BINS)
        high = np.inf if i == len(BINS) - 1 else (i + 1) / len(BINS)
        chosen = (difficulty >= low) & (difficulty < high)
        values.setdefault("queries", {})[name] = float(chosen.sum())
        for metric, found in _reduce(stats, chosen, ones).items():
            defined = bool(np.isfinite(found[0]))
            values.setdefault(metric, {})[name] = float(found[0]) if defined else None
    return [Breakdown(metric, "difficulty", of_bin) for metric, of_bin in values.items()]


def difficulties(stats: Stats) -> Floats:
    """(n, width) float64: difficulty of each query, NaN for padding."""
    turned = stats["rotation_deg"] / FULL_ROTATION_DEG
    return np.asarray(np.maximum(turned, stats["baseline_m"] / FULL_BASELINE_M), np.float64)


def _reduce(stats: Stats, chosen: NDArray[np.bool_], weights: Floats) -> dict[str, Floats]:
    """Metrics of the chosen (n, width) queries, in blocks of weightings."""
    scene = np.broadcast_to(np.arange(len(chosen))[:, None], chosen.shape)[chosen]
    columns = {name: np.asarray(stats[name])[chosen] for name in _ERRORS}
    errors = FrameErrors(**columns, scene=scene)
    step = max(1, BLOCK_ITEMS // max(1, len(scene)))
    blocks = [
        reduce_frames(errors, weights[start : start + step][:, scene])
        for start in range(0, max(1, len(weights)), step)
    ]
    in_px = len(scene) > 0 and bool((errors.diagonal_px == PX_DIAGONAL).all())
    names = [name for name in blocks[0] if in_px or not name.endswith(f"@{VCRE_PX:g}px")]
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}
