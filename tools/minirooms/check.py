"""Measures packed shards and prints tables: is the truth right, is the data spread as intended?"""

from __future__ import annotations

import collections
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.errors import UnavailableError
from tools.minirooms import counts, truth
from tools.minirooms.cameras import BINS, MIN_CLASSES, MIN_COVISIBLE
from tools.minirooms.classes import IGNORE
from tools.minirooms.generate import SPLITS
from tools.minirooms.tables import Section, spread

_LEAST_UNSEEN = 0.3
_LEAST_OF_VIEW = 0.002
"""A class counts as shown by a view from this share of its pixels on."""
BURNT, BURNT_SHARE = 0.97, 0.15
"""Mean of a pixel's colours from which it is burnt out; share of such pixels that spoils a view."""


@dataclass(frozen=True)
class Check:
    """One line: what was measured, where, what is wanted, and whether it holds."""

    what: str
    split: str
    measured: str
    wanted: str
    holds: bool


class Gathered:
    """Measures of one split, pooled over its views."""

    def __init__(self, classes: int) -> None:
        self.reprojection: list[NDArray[np.float64]] = []
        self.wall_mm: list[NDArray[np.float64]] = []
        self.wall_deg: list[NDArray[np.float64]] = []
        self.keypoints = [0, 0]
        self.offsets: collections.Counter[tuple[int, int]] = collections.Counter()
        self.classes_in_view: list[float] = []
        self.pixels = np.zeros(classes, np.int64)
        self.views_with = np.zeros(classes, np.int64)
        self.brightness: list[float] = []
        self.burnt: list[float] = []
        self.far_m: list[float] = []

    def room(self, archive: zipfile.ZipFile, room: dict[str, Any]) -> None:
        """Adds every view of a room; both directions between the reference and each query."""
        labels = np.full(256, IGNORE, np.uint8)
        for row in room["objects"]:
            labels[row["index"]] = row["class"]
        views = [truth.read_view(archive, room["id"], record) for record in room["views"]]
        for view in views[1:]:
            self.reprojection += [truth.reprojection_errors(views[0], view)]
            self.reprojection += [truth.reprojection_errors(view, views[0])]
        for view in views:
            millimetres, degrees = truth.wall_flatness(view, room["objects"])
            self.wall_mm.append(millimetres)
            self.wall_deg.append(degrees)
            hits, total = truth.keypoints_on_mask(view, room)
            self.keypoints = [self.keypoints[0] + hits, self.keypoints[1] + total]
            self.offsets[truth.edge_offset(view)] += 1
            self._picture(view, labels)

    def _picture(self, view: truth.ViewData, labels: NDArray[np.uint8]) -> None:
        found = np.bincount(labels[view.objects].ravel(), minlength=256)[: len(self.pixels)]
        self.pixels += found
        shown = found > _LEAST_OF_VIEW * view.size**2
        self.views_with += shown
        self.classes_in_view.append(float(shown.sum()))
        grey = view.image.mean(axis=2) / 255
        self.brightness.append(float(grey.mean()))
        self.burnt.append(float((grey > BURNT).mean()))
        self.far_m.append(float(view.depth.max()))


def truth_checks(split: str, got: Gathered) -> list[Check]:
    """Is the ground truth right?"""
    errors = np.concatenate(got.reprojection)
    share = float((errors < 0.5).mean())
    walls_mm = float(np.quantile(np.concatenate(got.wall_mm), 0.99))
    walls_deg = float(np.quantile(np.concatenate(got.wall_deg), 0.99))
    hits, total = got.keypoints
    near = sum(n for (dx, dy), n in got.offsets.items() if max(abs(dx), abs(dy)) <= 1)
    views = sum(got.offsets.values())
    text = f"{100 * share:.2f} % of {len(errors):,} points (p99 {np.quantile(errors, 0.99):.2f} px)"
    return [
        Check("covisible points re-projected within 0.5 px", split, text, "≥ 99 %", share >= 0.99),
        Check("wall points off their plane, p99", split, f"{walls_mm:.2f} mm", "≤ 1 mm", walls_mm <= 1),
        Check("wall normals off, p99", split, f"{walls_deg:.2f}°", "≤ 1°", walls_deg <= 1),
        Check(
            "visible key points on their person",
            split,
            f"{hits} of {total}",
            "≥ 99 %",
            total > 0 and hits >= 0.99 * total,
        ),
        Check(
            "views whose label edges lie on image edges ± 1 px",
            split,
            f"{near} of {views} ({got.offsets[0, 0]} at 0)",
            "≥ 98 %",
            near >= 0.98 * views,
        ),
    ]


def spread_checks(split: str, rooms: Sequence[dict[str, Any]], got: Gathered) -> list[Check]:
    """Is the data spread as intended?"""
    found = [view for room in rooms for view in room["views"][1:]]
    bins = collections.Counter(view["bin"] for view in found)
    even = max(bins[n] for n in BINS) - min(bins[n] for n in BINS) <= 2
    checks = [Check("queries by bin", split, ", ".join(f"{n} {bins[n]}" for n in BINS), "balanced", even)]
    people = [float(len(room["people"])) for room in rooms]
    for what, values, low, high, digits in (
        ("rotation to the reference, degrees", [v["rotation_deg"] for v in found], 5, 60, 1),
        ("baseline to the reference, m", [v["baseline_m"] for v in found], 0.2, 2.5, 2),
        ("covisible share", [v["covisible_with_reference"] for v in found], MIN_COVISIBLE, 1, 2),
        ("classes in a view", got.classes_in_view, MIN_CLASSES, len(got.pixels), 0),
        ("mean brightness of a view", got.brightness, 0.15, 0.8, 2),
        ("people in a room", people, 2, 4, 0),
    ):
        holds = bool(min(values) >= low and max(values) <= high)
        checks.append(Check(what, split, spread(values, digits), f"{low} … {high}", holds))
    hot = sum(share > BURNT_SHARE for share in got.burnt)
    text = f"{hot} of {len(got.burnt)} (worst {100 * max(got.burnt):.0f} %)"
    what = f"views of which more than {100 * BURNT_SHARE:.0f} % is burnt out"
    checks.append(Check(what, split, text, "≤ 1 %", hot <= 0.01 * len(got.burnt)))
    checks.append(Check("farthest depth, m", split, f"{max(got.far_m):.2f}", "", True))
    shown = int((got.pixels > 0).sum())
    every = shown == len(got.pixels)
    return [*checks, Check("classes that occur", split, str(shown), str(len(got.pixels)), every)]


def unseen_checks(furniture: dict[str, tuple[int, int, int]]) -> list[Check]:
    """Does each class have enough test furniture that training never shows?"""
    wanted = f"≥ {100 * _LEAST_UNSEEN:.0f} %"
    return [
        Check(f"{name}: test models never in training", "test", f"{unseen} of {test}", wanted, holds)
        for name, (_, test, unseen) in furniture.items()
        if test
        for holds in [unseen >= _LEAST_UNSEEN * test]
    ]


def section(title: str, checks: Sequence[Check], splits: Sequence[str] = SPLITS) -> Section:
    """Splits side by side, one row for each thing measured."""
    rows = []
    for what in dict.fromkeys(check.what for check in checks):
        same = {check.split: check for check in checks if check.what == what}
        cells = [same[split].measured if split in same else "–" for split in splits]
        held = all(check.holds for check in same.values())
        wanted = next(iter(same.values())).wanted
        rows.append((what, *cells, wanted, ("ok" if held else "FAILS") if wanted else ""))
    return Section(title, ("check", *splits, "wanted", ""), tuple(rows))


def check_shards(folder: Path, markdown: bool = False) -> int:
    """Prints all tables of both splits; returns 0 if everything holds, else 1.

    Raises UnavailableError if a shard is not there.
    """
    splits: dict[str, list[dict[str, Any]]] = {}
    got: dict[str, Gathered] = {}
    index: dict[str, Any] = {}
    for split in SPLITS:
        with open_shard(folder, split) as archive:
            index = json.loads(archive.read("index.json"))
            splits[split], got[split] = index["rooms"], Gathered(len(index["classes"]))
            for room in index["rooms"]:
                got[split].room(archive, room)
    exact = [check for split in SPLITS for check in truth_checks(split, got[split])]
    even = [check for split in SPLITS for check in spread_checks(split, splits[split], got[split])]
    even += unseen_checks(counts.furniture_by_class(splits, index["classes"]))
    sizes = {split: (folder / f"{split}.zip").stat().st_size for split in SPLITS}
    pixels = {split: got[split].pixels for split in SPLITS}
    views_with = {split: got[split].views_with for split in SPLITS}
    sections = [
        counts.contents(splits, sizes),
        counts.class_rows(splits, index["classes"], pixels, views_with),
        counts.queries(splits),
        counts.covisibility(splits),
        counts.light(splits),
        *counts.people(splits, index["keypoint_names"]),
        section("Is the truth right?", exact),
        section("Is it spread as intended?", even),
    ]
    print("\n\n".join(section.markdown() if markdown else section.text() for section in sections))
    return int(any(not check.holds for check in (*exact, *even)))


def open_shard(folder: Path, split: str) -> zipfile.ZipFile:
    path = folder / f"{split}.zip"
    if not path.is_file():
        raise UnavailableError(f"{path}: not found; run `python -m tools.minirooms pack` first")
    return zipfile.ZipFile(path)
