"""What is in packed shards: rooms, classes, furniture, queries, light and people, from their indices."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.minirooms.cameras import BINS
from tools.minirooms.tables import Section, histogram, spread

Rooms = Sequence[Mapping[str, Any]]
COVISIBLE_EDGES = (0.30, 0.45, 0.60, 0.75)
STOP_EDGES = (0.25, 0.5, 1.0)
VISIBLE_EDGES = (0.005, 0.1, 0.3, 0.6, 0.9)
_HEAD = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")


def stops(room: Mapping[str, Any], view: Mapping[str, Any]) -> float:
    """How much lighter or darker than the reference a view was exposed, in stops (powers of two)."""
    return abs(math.log2(view["exposure"][0] / room["views"][0]["exposure"][0]))


def white_shift(room: Mapping[str, Any], view: Mapping[str, Any]) -> float:
    """The larger change of the red and blue gains against the reference, as a factor minus 1."""
    ratios = (view["exposure"][k] / room["views"][0]["exposure"][k] for k in (1, 2))
    return max(max(ratio, 1 / ratio) - 1 for ratio in ratios)


def contents(splits: Mapping[str, Rooms], bytes_of: Mapping[str, int]) -> Section:
    """Rooms, views, objects, people, megabytes."""
    rows = []
    for split, rooms in splits.items():
        furniture = [sum("#" in o["model"] for o in room["objects"]) for room in rooms]
        people = [len(room["people"]) for room in rooms]
        rows.append(
            (
                split,
                str(len(rooms)),
                str(sum(len(room["views"]) for room in rooms)),
                spread([float(n) for n in furniture], 0),
                f"{sum(people)} ({min(people)} … {max(people)} a room)",
                f"{bytes_of[split] / 1e6:.2f}",
            )
        )
    return Section("Contents", ("split", "rooms", "views", "furniture a room", "people", "MB"), tuple(rows))


def furniture_by_class(
    splits: Mapping[str, Rooms], classes: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    """Per class with furniture: (models in training rooms, models in test rooms, of these never in
    training)."""
    models: dict[str, dict[str, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))
    for split, rooms in splits.items():
        for room in rooms:
            for row in room["objects"]:
                if "#" in row["model"]:
                    models[classes[row["class"]]][split].add(row["model"])
    return {
        name: (len(by["train"]), len(by["test"]), len(by["test"] - by["train"]))
        for name in classes
        if (by := models.get(name)) is not None
    }


def class_rows(
    splits: Mapping[str, Rooms],
    classes: Sequence[str],
    pixels: Mapping[str, NDArray[np.int64]],
    views_with: Mapping[str, NDArray[np.int64]],
) -> Section:
    """Pixels and views of each class, and its furniture models.

    pixels, views_with: per split, counts by class (K,).
    """
    furniture = furniture_by_class(splits, classes)
    rows = []
    for k, name in enumerate(classes):
        shares = [100 * pixels[split][k] / pixels[split].sum() for split in splits]
        views = [str(int(views_with[split][k])) for split in splits]
        train, test, unseen = furniture.get(name, (0, 0, 0))
        models = (str(train), str(test), f"{unseen} ({100 * unseen / test:.0f} %)") if test else ("–",) * 3
        rows.append((name, *(f"{share:.1f} %" for share in shares), *views, *models))
    header = ["class", *(f"pixels {s}" for s in splits), *(f"views {s}" for s in splits)]
    header += ["models train", "models test", "never in training"]
    return Section("Classes", tuple(header), tuple(rows))


def queries(splits: Mapping[str, Rooms]) -> Section:
    """Pairs of reference and query by bin: least … median … greatest of how they differ."""
    rows = []
    for split, rooms in splits.items():
        for name in BINS:
            found = [(room, v) for room in rooms for v in room["views"][1:] if v["bin"] == name]
            rows.append(
                (
                    split,
                    name,
                    str(len(found)),
                    spread([v["rotation_deg"] for _, v in found], 1),
                    spread([v["baseline_m"] for _, v in found]),
                    spread([v["covisible_with_reference"] for _, v in found]),
                    spread([stops(room, v) for room, v in found]),
                )
            )
    header = ("split", "bin", "pairs", "rotation °", "baseline m", "covisible", "exposure, stops")
    return Section("Pairs of reference and query", header, tuple(rows))


def covisibility(splits: Mapping[str, Rooms]) -> Section:
    """How many pairs share how much."""
    header = ("split", "0.15–0.30", "0.30–0.45", "0.45–0.60", "0.60–0.75", "0.75–1")
    return _histograms(
        "Covisible share of the reference",
        header,
        splits,
        COVISIBLE_EDGES,
        lambda room, v: v["covisible_with_reference"],
    )


def light(splits: Mapping[str, Rooms]) -> Section:
    """How many pairs differ by how much light, and the shift of their white balance."""
    rows = []
    for split, rooms in splits.items():
        pairs = [(room, v) for room in rooms for v in room["views"][1:]]
        counts = histogram([stops(room, v) for room, v in pairs], STOP_EDGES)
        shift = spread([100 * white_shift(room, v) for room, v in pairs], 0)
        rows.append((split, *(str(n) for n in counts), f"{shift} %"))
    header = ("split", "< 0.25 stops", "0.25–0.5", "0.5–1", "≥ 1", "white balance")
    return Section("Change of light against the reference", header, tuple(rows))


def _histograms(
    title: str, header: tuple[str, ...], splits: Mapping[str, Rooms], edges: tuple[float, ...], value: Any
) -> Section:
    rows = []
    for split, rooms in splits.items():
        counts = histogram([value(room, v) for room in rooms for v in room["views"][1:]], edges)
        rows.append((split, *(str(n) for n in counts)))
    return Section(title, header, tuple(rows))


def people(splits: Mapping[str, Rooms], keypoint_names: Sequence[str]) -> list[Section]:
    """Who there is, and how much of them the views show."""
    head = [keypoint_names.index(name) for name in _HEAD]
    who, shown = [], []
    for split, rooms in splits.items():
        everyone = [person for room in rooms for person in room["people"]]
        actions = collections.Counter(person["action"] for person in everyone)
        listed = [f"{name} {actions[name]}" for name in sorted(actions)]
        heights = [person["height_m"] for person in everyone]
        small = sum(height < 1.5 for height in heights)
        who.append((split, str(len(everyone)), ", ".join(listed), spread(heights), str(small)))
        seen = [p for room in rooms for view in room["views"] for p in view["people"]]
        counts = histogram([p["visible_fraction"] for p in seen], VISIBLE_EDGES)
        heads = sum(any(p["keypoint_visible"][k] for k in head) for p in seen)
        shown.append((split, *(str(n) for n in counts), str(heads)))
    fractions = ("not at all", "< 0.1", "0.1–0.3", "0.3–0.6", "0.6–0.9", "≥ 0.9")
    return [
        Section("People", ("split", "people", "actions", "height m", "below 1.5 m"), tuple(who)),
        Section(
            "People in views, by the visible share of the body",
            ("split", *fractions, "head visible"),
            tuple(shown),
        ),
    ]
