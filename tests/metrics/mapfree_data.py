"""A small Map-free split on disk, and submissions to it."""

from __future__ import annotations

import zipfile
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "mapfree"
IDENTITY = "1 0 0 0 0 0 0"


def write_scene(root: Path, name: str, queries: int = 10, size: tuple[int, int] = (540, 720)) -> None:
    """A scene whose query i stands i/10 m to the right of the reference."""
    scene = root / name
    scene.mkdir(parents=True)
    frames = ["seq0/frame_00000.jpg", *(f"seq1/frame_{i:05d}.jpg" for i in range(queries))]
    camera = f"590 590 {size[0] / 2} {size[1] / 2} {size[0]} {size[1]}"
    (scene / "intrinsics.txt").write_text("".join(f"{frame} {camera}\n" for frame in frames))
    poses = [f"{frames[0]} {IDENTITY}", *(f"{f} 1 0 0 0 {-i / 10} 0 0" for i, f in enumerate(frames[1:]))]
    (scene / "poses.txt").write_text("# frame qw qx qy qz tx ty tz\n" + "\n".join(poses) + "\n")


def true_lines(root: Path, name: str, confidence: str = "5") -> str:
    """A perfect submission's file for a scene."""
    lines = (root / name / "poses.txt").read_text().splitlines()[2:]
    return "".join(f"{line} {confidence}\n" for line in lines)


def make_zip(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
