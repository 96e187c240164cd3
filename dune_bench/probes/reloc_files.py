"""Relocalization answers and truth as files in the Map-free layout.

Made from what a result already stores, so that nothing is computed again:

    result_stats = ResultStore(runs).arrays(path, result)
    write_answers(Path("submission.zip"), result_stats["id"], result_stats)
    write_truth(Path("truth"), samples)     # then: dune-bench score-reloc submission.zip --data truth

samples: those of the result.  After `run --limit` these are not all of the split, and a scene with truth but
without a file of answers counts as failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.samples import RelocScene, View
from dune_bench.errors import TaskError
from dune_bench.geometry.poses import invert, quaternion_from_rotation
from dune_bench.metrics.mapfree_format import Answer, write_submission

REFERENCE = "seq0/frame_00000.jpg"


def scene_name(sample_id: str) -> str:
    """A scene's id as the format can say it: without slashes."""
    return sample_id.replace("/", "_")


def query_frame(index: int) -> str:
    """The official path of a scene's query number `index`, from 0."""
    return f"seq1/frame_{index:05d}.jpg"


def answers_of(ids: Sequence[str], stats: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Answer]]:
    """Answers by scene and frame from the statistics of `RelocProbe.score`, stacked (n, …).

    ids: of the n scenes.  A scene without any answer is there, empty; an unanswered query is not.
    Raises TaskError if two scenes would have one name.
    """
    scenes: dict[str, dict[str, Answer]] = {}
    for row, sample_id in enumerate(map(str, ids)):
        name = scene_name(sample_id)
        if name in scenes:
            raise TaskError(f"two scenes would be called {name!r} in the submission")
        scenes[name] = {}
        for i in np.flatnonzero(stats["answered"][row]):
            w, x, y, z, *t = (float(v) for v in stats["pose"][row][i])
            confidence = float(stats["confidence"][row][i])
            scenes[name][query_frame(int(i))] = Answer((w, x, y, z), (t[0], t[1], t[2]), confidence)
    return scenes


def write_answers(path: Path, ids: Sequence[str], stats: Mapping[str, NDArray[Any]]) -> None:
    """Writes the official submission zip; arguments as `answers_of`.  Every scene has its file."""
    write_submission(path, answers_of(ids, stats))


def write_truth(directory: Path, scenes: Iterable[RelocScene]) -> None:
    """Writes `<scene>/poses.txt` and `<scene>/intrinsics.txt` as Map-free has them: the world is the
    reference's camera.  Raises TaskError for a camera with skew, which the format cannot say."""
    for scene in scenes:
        folder = directory / scene_name(scene.id)
        folder.mkdir(parents=True, exist_ok=True)
        world = invert(scene.reference.T_cam_world)
        frames = [REFERENCE, *(query_frame(i) for i in range(len(scene.queries)))]
        views = (scene.reference, *scene.queries)
        lines = [_line(f, _pose(view, world)) for f, view in zip(frames, views, strict=True)]
        (folder / "poses.txt").write_text("".join(lines), encoding="utf-8")
        lines = [_line(f, _camera(view)) for f, view in zip(frames, views, strict=True)]
        (folder / "intrinsics.txt").write_text("".join(lines), encoding="utf-8")


def _pose(view: View, T_world_reference: NDArray[np.float64]) -> list[float]:
    T = view.T_cam_world @ T_world_reference
    return [*quaternion_from_rotation(T[:3, :3]).tolist(), *T[:3, 3].tolist()]


def _camera(view: View) -> list[float]:
    K, (height, width) = view.K, view.image.size
    if K[0, 1] != 0:
        raise TaskError(f"view {view.id}: intrinsics with skew have no place in intrinsics.txt")
    return [K[0, 0], K[1, 1], K[0, 2], K[1, 2], width, height]


def _line(frame: str, numbers: Iterable[float]) -> str:
    return " ".join([frame, *(repr(float(number)) for number in numbers)]) + "\n"
