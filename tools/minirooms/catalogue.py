"""The furniture catalogue: Sweet Home 3D's freely licensed models, their classes and split pools.

Source: Debian package `sweethome3d-furniture` (five `.sh3f` zip files).  `Reallusion.sh3f` holds
people without body parameters and is never read.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dune_bench.errors import UnavailableError
from tools.minirooms.classes import FURNITURE_CLASSES, class_of

LIBRARIES = {
    "BlendSwap-CC-0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "BlendSwap-CC-BY": ("CC BY 3.0", "https://creativecommons.org/licenses/by/3.0/"),
    "KatorLegaz": ("CC BY 3.0 US", "https://creativecommons.org/licenses/by/3.0/us/"),
    "Scopia": ("CC BY 3.0", "https://creativecommons.org/licenses/by/3.0/"),
}
HELD_OUT_SHARE = 0.4
"""Share of each class's models that training rooms never use."""

# Looked at and left out: broken texture coordinates, arched windows (their panes are rectangles here),
# or things that do not stand for their class.
_DROPPED = frozenset(
    {
        "Scopia#vase1",
        "Scopia#aquarium",
        "Scopia#window_2x3_arched",
        "Scopia#window_2x4_arched",
        "Scopia#window_4x3_arched",
        "Scopia#saloon_table",
        "BlendSwap-CC-BY#wheelchair",
        "BlendSwap-CC-BY#abdominalBench",
        "BlendSwap-CC-0#rangeHood",
        "Scopia#japanese_style_screen",
        "Scopia#intercom_with_screen",
        "Scopia#kitchenHood",
        "BlendSwap-CC-BY#propane-stove",
        "BlendSwap-CC-0#technicalTable1",
        "BlendSwap-CC-0#technicalTable2",
    }
)
_SMALLEST = 0.13
"""Things smaller than this in every direction (m) would be a few pixels."""
_LINE = re.compile(r"^(\w+)#(\d+)\s*=\s*(.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Model:
    """One catalogue entry.  Sizes and heights in metres.

    id: `<library>#<name>`.  size: (width, depth, height) of its upright box, front towards -y.
    elevation: height of its underside above the floor.  top: height of its usable upper surface
    above its own underside, or None.  rotation: 3x3 row-major matrix applied to the file's y-up
    vertices first, or None.
    """

    id: str
    name: str
    label: str
    library: str
    creator: str
    path: str
    size: tuple[float, float, float]
    elevation: float
    top: float | None
    rotation: tuple[float, ...] | None = None


def _entry(library: str, row: dict[str, str]) -> Model | None:
    label = class_of(row["name"], row["category"])
    key = f"{library}#{row['id'].split('#')[-1]}"
    if label is None or key in _DROPPED:
        return None
    size = (float(row["width"]) / 100, float(row["depth"]) / 100, float(row["height"]) / 100)
    if max(size) < _SMALLEST or (label == "appliance" and size[2] < 0.06):
        return None
    top = float(row.get("dropOnTopElevation") or row["height"]) / 100
    rotation = tuple(float(x) for x in row["modelRotation"].split()) if row.get("modelRotation") else None
    return Model(
        id=key,
        name=row["name"],
        label=label,
        library=library,
        creator=row.get("creator", ""),
        path=row["model"].lstrip("/"),
        size=size,
        elevation=float(row.get("elevation") or 0) / 100,
        top=top if top > 0 else None,
        rotation=rotation,
    )


def parse_properties(library: str, text: str) -> list[Model]:
    """The used entries of one library's `PluginFurnitureCatalog.properties`, in file order."""
    rows: dict[int, dict[str, str]] = {}
    for key, number, value in _LINE.findall(text):
        rows.setdefault(int(number), {})[key] = value
    entries = (_entry(library, rows[number]) for number in sorted(rows))
    return [entry for entry in entries if entry is not None]


def load_catalogue(folder: Path) -> list[Model]:
    """All used models of the libraries in `folder`.  Raises UnavailableError if one is missing."""
    models: list[Model] = []
    for library in LIBRARIES:
        path = folder / f"{library}.sh3f"
        if not path.is_file():
            raise UnavailableError(
                f"{path}: not found; get the furniture with `apt-get download sweethome3d-furniture && "
                "dpkg -x sweethome3d-furniture_*.deb sh3d`, then pass "
                "--furniture sh3d/usr/share/sweethome3d/furniture"
            )
        with zipfile.ZipFile(path) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
        models += parse_properties(library, text)
    return models


@dataclass(frozen=True)
class Pools:
    """Models by class: `train` may occur in both splits, `held_out` only in test rooms."""

    train: dict[str, tuple[Model, ...]]
    held_out: dict[str, tuple[Model, ...]]


def split_pools(models: Iterable[Model], seed: int) -> Pools:
    """Splits each class's models (sorted by id, so the file order is irrelevant) by the seed.

    Raises UnavailableError if a furniture class has fewer than four models.
    """
    train: dict[str, tuple[Model, ...]] = {}
    held_out: dict[str, tuple[Model, ...]] = {}
    by_class: dict[str, list[Model]] = {}
    for model in models:
        by_class.setdefault(model.label, []).append(model)
    for number, label in enumerate((*FURNITURE_CLASSES, "opening")):
        members = sorted(by_class.get(label, []), key=lambda model: model.id)
        if len(members) < 4:
            raise UnavailableError(f"the catalogue has {len(members)} models of class {label}, 4 are needed")
        order = np.random.default_rng([seed, 7001, number]).permutation(len(members))
        # Kinds of use (on the floor, on the wall, ...) must be in both pools, so deal them in turn.
        ordered = sorted((members[i] for i in order), key=use_of)
        kept: list[Model] = []
        held: list[Model] = []
        for position, model in enumerate(ordered):
            due = int((position + 1) * HELD_OUT_SHARE + 0.5) > len(held)
            (held if due else kept).append(model)
        train[label], held_out[label] = tuple(kept), tuple(held)
    return Pools(train, held_out)


_SMALL_THINGS = {"lamp", "plant", "decoration", "appliance"}


def use_of(model: Model) -> str:
    """Where a model goes: `ceiling`, `wall`, `top` (on furniture), `door`, `window` or `floor`."""
    width, depth, height = model.size
    lowered = model.name.lower()
    if model.label == "opening":
        return "window" if model.elevation > 0.3 or "window" in lowered else "door"
    hangs = model.label == "lamp" and model.elevation > 1.6 and "wall" not in lowered
    if hangs or re.search(r"pendant|hanging|chandelier|ceiling|track|fluorescent", lowered):
        return "ceiling"
    if model.elevation > 0.8 or re.search(r"\bwall\b|cuckoo|dart|spotlight", lowered):
        return "wall"
    if model.label in _SMALL_THINGS and height < 0.69 and max(width, depth) < 0.8:
        return "top"
    return "floor"


class Picker:
    """Draws models for one room.  Test rooms take held-out and training models in turn per class."""

    def __init__(self, pools: Pools, split: str, rng: np.random.Generator) -> None:
        self._pools, self._held, self._rng = pools, split == "test", rng
        self._turn: dict[str, int] = {}

    def pick(self, label: str, accept: Sequence[str] = (), limit: float | None = None) -> Model | None:
        """One model of a class whose use is in `accept` (any if empty) and whose width and depth do
        not exceed `limit` metres; None if there is none."""

        def fits(model: Model) -> bool:
            return (not accept or use_of(model) in accept) and (limit is None or max(model.size[:2]) <= limit)

        turn = self._turn.setdefault(label, int(self._rng.integers(2)))
        self._turn[label] = turn + 1
        pools = [self._pools.train[label]]
        if self._held:
            pools.insert(turn % 2, self._pools.held_out[label])
        for pool in pools:
            candidates = [model for model in pool if fits(model)]
            if candidates:
                return candidates[int(self._rng.integers(len(candidates)))]
        return None
