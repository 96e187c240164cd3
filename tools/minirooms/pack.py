"""Packs finished rooms into one ZIP per split: stored, in a fixed order, with fixed timestamps."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from dune_bench.errors import TaskError, UsageError
from tools.minirooms.classes import CLASSES
from tools.minirooms.generate import GENERATOR_VERSION, PEOPLE, SPLITS

SCHEMA = 1
PROCEDURAL = frozenset({"floor", "ceiling", "wall", "poster", "window pane", "ceiling panel"})
"""Models made from the room's seed, and people: they count as seen."""
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


def load_rooms(work: Path, split: str) -> list[dict[str, Any]]:
    """The records of a split's finished rooms, by id.  Raises UsageError if there is none."""
    folders = sorted(path for path in work.glob(f"{split}_*") if (path / "room.json").is_file())
    folders = [path for path in folders if not path.name.endswith(".partial")]
    if not folders:
        raise UsageError(f"{work}: no finished {split} rooms; run `python -m tools.minirooms render` first")
    return [json.loads((path / "room.json").read_text()) for path in folders]


def furniture_models(rooms: list[dict[str, Any]]) -> set[str]:
    """Catalogue ids that occur in the rooms."""
    return {o["model"] for room in rooms for o in room["objects"] if "#" in o["model"]}


def index_of(
    recipe: dict[str, Any], split: str, rooms: list[dict[str, Any]], trained: set[str]
) -> dict[str, Any]:
    """The `index.json` of a split; every object says whether training rooms have its model too."""
    names = rooms[0]["people"][0]["keypoint_names"]
    packed = []
    for room in rooms:
        objects = [{**o, "seen": "#" not in o["model"] or o["model"] in trained} for o in room["objects"]]
        people = [{k: v for k, v in person.items() if k != "keypoint_names"} for person in room["people"]]
        packed.append({**room, "objects": objects, "people": people})
    index = {
        "schema": SCHEMA,
        "name": recipe["name"],
        "split": split,
        "classes": list(CLASSES),
        "keypoint_names": names,
        "generator_version": GENERATOR_VERSION,
        "seed": recipe["seed"],
        "image_size": [recipe["size"], recipe["size"]],
        "rooms": packed,
    }
    # Of a shard of people the index is a fifth: numbers are kept to what they mean.
    return _rounded({**index, "depth": False}) if split == PEOPLE else index


def _rounded(value: Any) -> Any:
    """Nested numbers to 7 decimals: less than a micrometre or a thousandth of a pixel."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, 7) if isinstance(value, float) else value


def unseen_shares(test: list[dict[str, Any]], trained: set[str]) -> dict[str, tuple[int, int]]:
    """Per class: (models of test rooms that training never has, models of test rooms)."""
    by_class: dict[str, set[str]] = {}
    for room in test:
        for o in room["objects"]:
            if "#" in o["model"]:
                by_class.setdefault(CLASSES[o["class"]], set()).add(o["model"])
    return {label: (len(models - trained), len(models)) for label, models in sorted(by_class.items())}


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _FIXED_TIME)
    info.create_system, info.external_attr = 3, 0o644 << 16
    archive.writestr(info, data)


def write_shard(path: Path, index: dict[str, Any], work: Path) -> None:
    """Writes one split, atomically: index.json, then each room's views in order.

    Raises TaskError if a picture is not the one its room was recorded with.
    """
    partial = path.with_suffix(".partial")
    kinds = ("jpg", "objects.png", "depth") if index.get("depth", True) else ("jpg", "objects.png")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "index.json", json.dumps(index, separators=(",", ":"), sort_keys=True).encode())
        for room in index["rooms"]:
            for view in room["views"]:
                for suffix in kinds:
                    member = f"{room['id']}/{view['id']}.{suffix}"
                    data = (work / member).read_bytes()
                    if suffix == "jpg" and hashlib.sha256(data).hexdigest() != view["image_sha256"]:
                        raise TaskError(
                            f"{work / member}: not the picture of its room.json; delete its folder"
                        )
                    _add(archive, member, data)
    partial.replace(path)


def load_splits(work: Path) -> dict[str, list[dict[str, Any]]]:
    """Rooms of people, or training and test rooms.  Raises UsageError if there are none, or both."""
    if not any(work.glob(f"{PEOPLE}_*/room.json")):
        return {split: load_rooms(work, split) for split in SPLITS}
    if any(path for split in SPLITS for path in work.glob(f"{split}_*/room.json")):
        raise UsageError(f"{work}: rooms of people beside others; use another --out for each")
    return {PEOPLE: load_rooms(work, PEOPLE)}


def pack(recipe: dict[str, Any], work: Path, out: Path) -> list[Path]:
    """Packs all finished rooms of a recipe (its name, seed and size); returns the shards."""
    out.mkdir(parents=True, exist_ok=True)
    rooms = load_splits(work)
    trained = furniture_models(next(iter(rooms.values())))
    paths = []
    for split in rooms:
        path = out / f"{split}.zip"
        write_shard(path, index_of(recipe, split, rooms[split], trained), work)
        paths.append(path)
    return paths
