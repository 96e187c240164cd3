"""Measures packed shards and prints a table: is the truth right, is the data spread as intended?"""

from __future__ import annotations

import collections
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dune_bench.errors import UnavailableError
from tools.minirooms import truth
from tools.minirooms.cameras import BINS, MIN_CLASSES, MIN_COVISIBLE
from tools.minirooms.classes import CLASSES, IGNORE

_LEAST_UNSEEN = 0.3
_LIMITS = {"reprojection_px": 0.5, "wall_mm": 1.0, "wall_deg": 1.0}


class Table:
    """Rows of (what, measured, wanted, holds)."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, bool]] = []

    def add(self, what: str, measured: str, wanted: str = "", holds: bool = True) -> None:
        """One line; `wanted` is empty for mere statistics."""
        self.rows.append((what, measured, wanted, holds))

    def show(self) -> int:
        """Prints all rows; returns 1 if any does not hold."""
        for what, measured, wanted, holds in self.rows:
            mark = "" if not wanted else ("ok" if holds else "FAILS")
            print(f"{what:34} {measured:44} {wanted:18} {mark}")
        return int(any(not holds for *_, holds in self.rows))


def _open(folder: Path, split: str) -> zipfile.ZipFile:
    path = folder / f"{split}.zip"
    if not path.is_file():
        raise UnavailableError(f"{path}: not found; run `python -m tools.minirooms pack` first")
    return zipfile.ZipFile(path)


class _Gathered:
    """Measures of one split, pooled over its views."""

    def __init__(self) -> None:
        self.reprojection: list[np.ndarray[Any, Any]] = []
        self.wall_mm: list[np.ndarray[Any, Any]] = []
        self.wall_deg: list[np.ndarray[Any, Any]] = []
        self.keypoints = [0, 0]
        self.offsets: collections.Counter[tuple[int, int]] = collections.Counter()
        self.classes_in_view: list[int] = []
        self.pixels = np.zeros(256, np.int64)
        self.brightness: list[float] = []
        self.burnt: list[float] = []
        self.far_m: list[float] = []

    def room(self, archive: zipfile.ZipFile, room: dict[str, Any]) -> None:
        labels = np.full(256, IGNORE, np.uint8)
        for row in room["objects"]:
            labels[row["index"]] = row["class"]
        views = [truth.read_view(archive, room["id"], record) for record in room["views"]]
        for view in views:
            if view is not views[0]:
                self.reprojection += [truth.reprojection_errors(views[0], view)]
                self.reprojection += [truth.reprojection_errors(view, views[0])]
            millimetres, degrees = truth.wall_flatness(view, room["objects"])
            self.wall_mm.append(millimetres)
            self.wall_deg.append(degrees)
            hits, total = truth.keypoints_on_mask(view, room)
            self.keypoints = [self.keypoints[0] + hits, self.keypoints[1] + total]
            self.offsets[truth.edge_offset(view)] += 1
            counts = np.bincount(labels[view.objects].ravel(), minlength=256)
            self.pixels += counts
            self.classes_in_view.append(int((counts[:IGNORE] > 0.002 * view.size**2).sum()))
            grey = view.image.mean(axis=2) / 255
            self.brightness.append(float(grey.mean()))
            self.burnt.append(float((grey > 0.97).mean()))
            self.far_m.append(float(view.depth.max()))


def _truth_rows(table: Table, split: str, got: _Gathered) -> None:
    errors = np.concatenate(got.reprojection)
    share = float((errors < _LIMITS["reprojection_px"]).mean())
    text = f"{100 * share:.2f} % below 0.5 px, p99 {np.quantile(errors, 0.99):.3f}"
    table.add(f"{split}: reprojection", text, ">= 99 %", share >= 0.99)
    p99 = float(np.quantile(np.concatenate(got.wall_mm), 0.99))
    table.add(f"{split}: walls off plane, p99", f"{p99:.2f} mm", "<= 1 mm", p99 <= _LIMITS["wall_mm"])
    p99 = float(np.quantile(np.concatenate(got.wall_deg), 0.99))
    table.add(f"{split}: wall normals, p99", f"{p99:.2f} deg", "<= 1 deg", p99 <= _LIMITS["wall_deg"])
    hits, total = got.keypoints
    table.add(f"{split}: visible key points on mask", f"{hits} of {total}", ">= 99 %", hits >= 0.99 * total)
    near = sum(n for (dx, dy), n in got.offsets.items() if max(abs(dx), abs(dy)) <= 1)
    views = sum(got.offsets.values())
    text = f"{near} of {views} views within 1 px, {got.offsets[0, 0]} at 0"
    table.add(f"{split}: label edges on image edges", text, ">= 98 %", near >= 0.98 * views)


def _spread_rows(table: Table, split: str, rooms: list[dict[str, Any]], got: _Gathered) -> None:
    queries = [view for room in rooms for view in room["views"][1:]]
    bins = collections.Counter(view["bin"] for view in queries)
    text = ", ".join(f"{name} {bins[name]}" for name in BINS)
    table.add(f"{split}: bins", text, "balanced", max(bins.values()) - min(bins[n] for n in BINS) <= 2)
    for key, low, high in (
        ("rotation_deg", 5, 60),
        ("baseline_m", 0.2, 2.5),
        ("covisible_with_reference", MIN_COVISIBLE, 1),
    ):
        values = np.array([view[key] for view in queries])
        text = f"{values.min():.2f} ... {np.median(values):.2f} ... {values.max():.2f}"
        table.add(
            f"{split}: {key}", text, f"{low} ... {high}", bool(values.min() >= low and values.max() <= high)
        )
    least = min(got.classes_in_view)
    table.add(
        f"{split}: classes in a view", f"{least} ... {max(got.classes_in_view)}", ">= 4", least >= MIN_CLASSES
    )
    low, high = min(got.brightness), max(got.brightness)
    table.add(
        f"{split}: mean brightness", f"{low:.2f} ... {high:.2f}", "0.15 ... 0.8", low > 0.15 and high < 0.8
    )
    table.add(
        f"{split}: burnt-out pixels",
        f"at most {100 * max(got.burnt):.1f} %",
        "<= 15 %",
        max(got.burnt) <= 0.15,
    )
    table.add(f"{split}: farthest depth", f"{max(got.far_m):.2f} m")
    people = [len(room["people"]) for room in rooms]
    table.add(
        f"{split}: people in a room",
        f"{min(people)} ... {max(people)}",
        "2 ... 4",
        min(people) >= 2 and max(people) <= 4,
    )
    seen = [p["visible_fraction"] for room in rooms for view in room["views"] for p in view["people"]]
    text = f"{sum(f > 0.1 for f in seen)} of {len(seen)}, {sum(f > 0.6 for f in seen)} above 0.6"
    table.add(f"{split}: people visible above 0.1", text)
    shares = got.pixels[: len(CLASSES)] / got.pixels.sum()
    for start in range(0, len(CLASSES), 5):
        names = range(start, min(start + 5, len(CLASSES)))
        table.add(f"{split}: pixels", "  ".join(f"{CLASSES[k]} {100 * shares[k]:.1f}%" for k in names))
    table.add(
        f"{split}: every class occurs",
        f"{int((shares > 0).sum())}",
        f"{len(CLASSES)}",
        bool((shares > 0).all()),
    )


def check_shards(folder: Path) -> int:
    """Prints the table of both splits; returns 0 if everything holds, else 1."""
    table = Table()
    models: dict[str, dict[str, set[str]]] = {}
    size = 0
    for split in ("train", "test"):
        with _open(folder, split) as archive:
            rooms = json.loads(archive.read("index.json"))["rooms"]
            got = _Gathered()
            for room in rooms:
                got.room(archive, room)
                for row in room["objects"]:
                    if "#" in row["model"]:
                        models.setdefault(CLASSES[row["class"]], {}).setdefault(split, set()).add(
                            row["model"]
                        )
        size += (folder / f"{split}.zip").stat().st_size
        table.add(f"{split}: rooms, views", f"{len(rooms)}, {sum(len(r['views']) for r in rooms)}")
        _truth_rows(table, split, got)
        _spread_rows(table, split, rooms, got)
    for label, by_split in sorted(models.items()):
        test = by_split.get("test", set())
        unseen = len(test - by_split.get("train", set()))
        wanted = f">= {100 * _LEAST_UNSEEN:.0f} %"
        table.add(
            f"unseen models: {label}", f"{unseen} of {len(test)}", wanted, unseen >= _LEAST_UNSEEN * len(test)
        )
    table.add("size", f"{size / 1e6:.2f} MB")
    return table.show()
