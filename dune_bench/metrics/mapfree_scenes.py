"""Truth of the Map-free layout: `DIR/<scene>/{intrinsics,poses}.txt` (PROTOCOLS §5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import TaskError, UnavailableError
from dune_bench.geometry.cameras import check_intrinsics
from dune_bench.metrics.mapfree_format import Answer, Issues, Key, Mode, parse_poses

REFERENCE_PREFIX = "seq0/"


@dataclass(frozen=True)
class FrameCamera:
    """K: float32 (3, 3) pixels, as the official program holds it.  size: (height, width)."""

    K: NDArray[np.float32]
    size: tuple[int, int]


@dataclass(frozen=True)
class SceneTruth:
    """One scene.  poses, cameras: by frame, keyed as `mode` keys them; the poses in file order, the
    camera of the file's last line last."""

    name: str
    poses: dict[Key, Answer]
    cameras: dict[Key, FrameCamera]


def read_scenes(directory: Path, mode: Mode) -> list[SceneTruth]:
    """Every scene of a directory, by name.  Raises UnavailableError if there is none, TaskError,
    naming file and line, for truth that cannot be read: an evaluation must not skip it."""
    if not directory.is_dir():
        raise UnavailableError(f"{directory}: no such directory; give the one that holds the scenes")
    names = sorted(path.parent.name for path in directory.glob("*/poses.txt"))
    if not names:
        raise UnavailableError(f"{directory}: no <scene>/poses.txt; is it the split's own directory (val)?")
    return [read_scene(directory / name, mode) for name in names]


def read_scene(directory: Path, mode: Mode) -> SceneTruth:
    """One scene.  Errors as in `read_scenes`."""
    issues = Issues()
    file = directory / "poses.txt"
    poses = parse_poses(_read(file), str(file), mode, issues, with_confidence=False)
    if issues.notes:
        raise TaskError(f"damaged truth, get the data again: {issues.notes[0]}")
    cameras = _read_cameras(directory / "intrinsics.txt", mode)
    lost = [key for key in poses if key not in cameras]
    if lost:
        raise TaskError(f"{directory / 'intrinsics.txt'}: no line for frame {lost[0]!r} of poses.txt")
    return SceneTruth(directory.name, poses, cameras)


def evaluated_frames(truth: SceneTruth, mode: Mode, every: int = 5) -> list[Key]:
    """Every fifth frame, in file order.  `strict` first takes out the reference (`seq0/`), which in
    the official program shares its number, and so its place, with a query."""
    keys = [key for key in truth.poses if mode != "strict" or not str(key).startswith(REFERENCE_PREFIX)]
    return keys[::every]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TaskError(f"{file}: cannot be read ({error.strerror or error})") from error


def _read_cameras(file: Path, mode: Mode) -> dict[Key, FrameCamera]:
    """Lines `path fx fy cx cy W H`."""
    cameras: dict[Key, FrameCamera] = {}
    for number, line in enumerate(_read(file).decode("utf-8", errors="replace").split("\n"), 1):
        if not line.strip() or "#" in line:
            continue
        path, *texts = line.split()
        try:
            fx, fy, cx, cy, width, height = (float(text) for text in texts)
            key: Key = path if mode == "strict" else int(path[-9:-4])
        except ValueError as error:
            raise TaskError(f"{file}:{number}: expected 'path fx fy cx cy W H'") from error
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32)
        try:
            check_intrinsics(K.astype(np.float64))
        except TaskError as error:
            raise TaskError(f"{file}:{number}: {error}") from error
        if not (width.is_integer() and height.is_integer() and min(width, height) > 0):
            raise TaskError(f"{file}:{number}: the size {texts[4]} × {texts[5]} is not in whole pixels")
        cameras.pop(key, None)  # a later line of the same key is the last line
        cameras[key] = FrameCamera(K, (int(height), int(width)))
    return cameras
