"""Names to cards and code: one lazy registry, discovery of card folders, plug-ins.

Nothing here imports torch: code is named as `module:attribute` and imported when asked for.
Sources of cards, later ones win over nothing (a name that stands twice is an error):
the shipped cards, `./.dune_bench/`, every `--include DIR`, entry points of group `dune_bench`.
"""

from __future__ import annotations

import fnmatch
import importlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dune_bench.errors import UsageError
from dune_bench.registry.cards import EncoderCard, TaskCard, load_card, read_mapping
from dune_bench.registry.folders import CARD, CHECKPOINTS, card_of_folder, has_card, id_of_place
from dune_bench.registry.suggest import did_you_mean

ENTRY_POINTS = "dune_bench"
"""Entry-point group: each names a callable that takes a `Registry` and adds to it."""

ADAPTERS = {
    "timm": "dune_bench.encoders.timm:TimmEncoder",
    "dune": "dune_bench.encoders.dune:DuneEncoder",
    "mast3r": "dune_bench.encoders.mast3r:Mast3rEncoder",
    "multihmr": "dune_bench.encoders.multihmr:MultiHmrEncoder",
    "file": "dune_bench.encoders.file:FileEncoder",
    "random": "dune_bench.encoders.random:RandomEncoder",
    "pixels": "dune_bench.encoders.pixels:PixelsEncoder",
    "position": "dune_bench.encoders.position:PositionEncoder",
    "efficientnet_lite": "dune_bench.encoders.efficientnet_lite:EfficientNetLiteEncoder",
    "onnx_vit": "dune_bench.encoders.onnx_vit:OnnxVitEncoder",
}
CHECKPOINT_CARD = "dune_bench.encoders.dune_files:checkpoint_card"
"""What makes a card from a checkpoint file: it has to look at the tensors."""
PROBES = {
    "semseg": "dune_bench.probes.semseg:SemsegProbe",
    "depth": "dune_bench.probes.depth:DepthProbe",
    "hmr": "dune_bench.probes.hmr:HmrProbe",
    "correspondence": "dune_bench.probes.correspondence:CorrespondenceProbe",
    "recon3d": "dune_bench.probes.recon3d:Recon3dProbe",
    "reloc": "dune_bench.probes.reloc:RelocProbe",
}
REDUCTIONS = {
    "semseg": "dune_bench.metrics.reductions:semseg",
    "depth": "dune_bench.metrics.reductions:depth",
    "correspondence": "dune_bench.metrics.reductions:correspondence",
    "recon3d": "dune_bench.metrics.reductions:recon3d",
    "reloc": "dune_bench.metrics.reductions:reloc",
    "hmr": "dune_bench.metrics.reductions:hmr",
}
"""Probe -> its reduction as a function that imports no torch: see `dune_bench.metrics.reductions`."""
DATASETS = {
    "minirooms@1": "dune_bench.data.minirooms.dataset:MiniRooms",
    "minirooms-people@1": "dune_bench.data.minirooms.people:MiniRoomsPeople",
    "smplx-people@1": "dune_bench.data.smplx_people:SmplxPeople",
}


def cards_root() -> Path:
    """The folder with `encoders/` and `tasks/`: in a wheel `dune_bench/_cards`, in an editable
    install or a bare checkout the repository itself."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "_cards", package.parent):
        if (root / "tasks" / "suites.yaml").is_file():
            return root
    raise UsageError(f"no cards beside {package}: the installation is damaged, reinstall dune-bench")


def resolve(target: str) -> Any:
    """Imports `module:attribute`.  Raises UsageError if it is not there."""
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{target}: {error}") from error


@dataclass
class Registry:
    """All names known to one process.

    encoders, tasks: cards by id.  adapters, probes, reductions, datasets: `module:attribute` by name.
    origins: card id -> file or plug-in it came from.  broken: plug-in -> reason.
    """

    encoders: dict[str, EncoderCard] = field(default_factory=dict)
    tasks: dict[str, TaskCard] = field(default_factory=dict)
    suites: dict[str, str] = field(default_factory=dict)
    adapters: dict[str, str] = field(default_factory=lambda: dict(ADAPTERS))
    probes: dict[str, str] = field(default_factory=lambda: dict(PROBES))
    reductions: dict[str, str] = field(default_factory=lambda: dict(REDUCTIONS))
    datasets: dict[str, str] = field(default_factory=lambda: dict(DATASETS))
    origins: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add_folder(self, root: Path) -> None:
        """Adds `root/encoders/*.yaml`, `root/tasks/**/*.yaml` and `root/tasks/suites.yaml`."""
        for path in sorted((root / "encoders").glob("*.yaml")):
            self.add_encoder(load_card(path, EncoderCard), str(path))
        for path in sorted((root / "tasks").rglob("*.yaml")):
            if path.name == "suites.yaml":
                self.suites.update(_load_suites(path))
            else:
                self.add_task(load_card(path, TaskCard), str(path))

    def add_encoder(self, card: EncoderCard, origin: str) -> None:
        self._claim("encoder", card.id, origin)
        self.encoders[card.id] = card

    def add_task(self, card: TaskCard, origin: str) -> None:
        self._claim("task", card.id, origin)
        self.tasks[card.id] = card

    def _claim(self, kind: str, name: str, origin: str) -> None:
        known = self.encoders if kind == "encoder" else self.tasks
        if name in known:
            raise UsageError(f"{origin}: {kind} {name!r} is already defined in {self.origins[name]}")
        self.origins[name] = origin

    def add_plugins(self) -> None:
        """Runs every entry point; a broken one warns once, is remembered, and is left out."""
        for point in metadata.entry_points(group=ENTRY_POINTS):
            before = self._snapshot()
            try:
                point.load()(self)
            # A plug-in is foreign code: whatever it raises must not take the command down.
            except Exception as error:  # noqa: BLE001
                self._restore(before)
                self.broken[point.name] = f"{type(error).__name__}: {error}"
                warnings.warn(f"plug-in {point.name!r} is broken and left out: {error}", stacklevel=2)

    def _snapshot(self) -> dict[str, Mapping[str, Any]]:
        names = ("encoders", "tasks", "suites", "adapters", "probes", "reductions", "datasets", "origins")
        return {name: dict(getattr(self, name)) for name in names}

    def _restore(self, snapshot: Mapping[str, Mapping[str, Any]]) -> None:
        for name, content in snapshot.items():
            setattr(self, name, dict(content))

    def encoder(self, name: str) -> EncoderCard:
        """The card of an encoder.

        name: a card's id; `timm:NAME`; a Python file, `path/to/file.py[:attribute]`; a folder with
        `encoder.yaml` and its weights; or a checkpoint file in DUNE's layout (imports torch).
        Raises UsageError with the nearest names, TaskError for a damaged checkpoint or one of something else.
        """
        if name in self.encoders:
            return self.encoders[name]
        if name.startswith("timm:"):
            return EncoderCard(id=name, kind="timm", arch={"name": name.removeprefix("timm:")})
        if has_card(name):
            return card_of_folder(Path(name))
        if name.endswith(CHECKPOINTS):
            card: EncoderCard = resolve(CHECKPOINT_CARD)(Path(name))
            return card
        path, _, attribute = name.partition(":")
        if path.endswith(".py"):
            if not Path(path).is_file():
                raise UsageError(f"encoder file {path} does not exist")
            arch = {"path": str(Path(path).resolve()), "attribute": attribute or "encoder"}
            return EncoderCard(id=id_of_place(name), kind="file", arch=arch)
        if Path(name).is_dir():
            raise UsageError(f"encoder {name}: no {CARD} in it: is the training finished?")
        if "/" in name:
            what = "is a file, not a folder" if Path(name).exists() else "no such folder"
            raise UsageError(f"encoder {name}: {what}")
        raise UsageError(f"unknown encoder {name!r}{did_you_mean(name, self.encoders)}")

    def makes_encoder(self, name: str) -> bool:
        """Whether a name without a card stands for an encoder by its form."""
        file = name.endswith(CHECKPOINTS) or name.partition(":")[0].endswith(".py")
        return file or name.startswith("timm:") or has_card(name)

    def task(self, name: str) -> TaskCard:
        if name not in self.tasks:
            raise UsageError(f"unknown task {name!r}{did_you_mean(name, self.tasks)}")
        return self.tasks[name]

    def select_tasks(self, selection: str, suite: str) -> list[TaskCard]:
        """Tasks by `all`, probe name, or glob over ids, comma-separated, in the order of ids.

        `all` and probe names select within the suite; an id or glob selects among all tasks.
        Raises UsageError for a word that selects nothing, and for a suite without tasks.
        """
        if suite not in self.suites:
            raise UsageError(f"unknown suite {suite!r}{did_you_mean(suite, self.suites)}")
        empty = not any(suite in task.suites for task in self.tasks.values())
        chosen: set[str] = set()
        for word in filter(None, (part.strip() for part in selection.split(","))):
            found = {
                task.id
                for task in self.tasks.values()
                if (suite in task.suites and word in ("all", task.probe)) or fnmatch.fnmatch(task.id, word)
            }
            if not found and empty and word in ("all", *self.probes):
                raise UsageError(f"suite {suite!r} has no tasks yet")
            if not found:
                raise UsageError(self._nothing(word, suite))
            chosen |= found
        if not chosen:
            raise UsageError("--tasks is empty: name tasks, probes, or all")
        return [self.tasks[name] for name in sorted(chosen)]

    def _nothing(self, word: str, suite: str) -> str:
        """What to say of a word that selects no task."""
        if word in self.probes:
            others = sorted(
                {name for task in self.tasks.values() if task.probe == word for name in task.suites}
            )
            there = f": its tasks are in {', '.join(others)}" if others else ""
            return f"no task matches {word!r} in suite {suite!r}{there}"
        names = [*self.tasks, *self.probes, "all"]
        return f"no task matches {word!r}{did_you_mean(word, names)}"

    def adapter(self, kind: str) -> Any:
        return resolve(self._target("encoder kind", kind, self.adapters))

    def probe(self, name: str) -> Any:
        return resolve(self._target("probe", name, self.probes))

    def reduction(self, probe: str) -> Any:
        """The probe's reduction without torch."""
        return resolve(self._target("reduction of probe", probe, self.reductions))

    def dataset(self, name: str) -> Any:
        return resolve(self._target("dataset", name, self.datasets))

    def _target(self, what: str, name: str, table: Mapping[str, str]) -> str:
        if name not in table:
            raise UsageError(f"unknown {what} {name!r}{did_you_mean(name, table)}")
        return table[name]

    def protocols(self) -> Iterator[tuple[str, str]]:
        """(probe, protocol) pairs that some task uses."""
        yield from sorted({(task.probe, task.protocol_name) for task in self.tasks.values()})


def _load_suites(path: Path) -> dict[str, str]:
    """suites.yaml: name -> description."""
    raw = read_mapping(path)
    if not all(isinstance(v, str) for v in raw.values()):
        raise UsageError(f"{path}: suites are a mapping of name to description")
    return raw


_registered: list[EncoderCard] = []


def register_encoder(card: EncoderCard) -> None:
    """Adds an encoder card to every registry this process builds from now on.

    Raises UsageError if the name is taken.
    """
    known = load_registry()
    if card.id in known.encoders:
        origin = known.origins[card.id]
        raise UsageError(f"register_encoder: encoder {card.id!r} is already defined in {origin}")
    _registered.append(card)
    load_registry.cache_clear()


@cache
def load_registry(include: tuple[Path, ...] = ()) -> Registry:
    """The registry of this process with the given extra folders.  Raises UsageError."""
    registry = Registry()
    registry.add_folder(cards_root())
    local = Path(".dune_bench")
    if local.is_dir():
        registry.add_folder(local)
    for folder in include:
        if not folder.is_dir():
            raise UsageError(f"--include {folder}: no such folder")
        registry.add_folder(folder)
    registry.add_plugins()
    for card in _registered:
        registry.add_encoder(card, "register_encoder")
    unknown = {s for t in registry.tasks.values() for s in t.suites} - set(registry.suites)
    if unknown:
        raise UsageError(f"suite {min(unknown)!r} is used by a task but not in any suites.yaml")
    return registry
