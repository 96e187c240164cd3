"""Recipes: all that decides a distillation, as YAML, and changes of it from the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from dune_bench.distill.dropping import check_dropping
from dune_bench.distill.groups import DataSection
from dune_bench.distill.losses import LossWeights
from dune_bench.distill.mixing import parse_mix
from dune_bench.distill.objective import Dropping
from dune_bench.distill.projectors import ProjectorConfig, TransformerConfig
from dune_bench.distill.teachers import TeacherSpec
from dune_bench.distill.weighting import Weighting
from dune_bench.encoders.vit import VitConfig
from dune_bench.engine.recipe import Recipe
from dune_bench.engine.tracking import Tracker
from dune_bench.errors import UsageError
from dune_bench.registry.cards import Card, load_card, parse_card, read_mapping
from dune_bench.registry.lookup import cards_root
from dune_bench.registry.suggest import did_you_mean

IMAGENET_IMAGES = 1_281_167
"""Images of what DUNE calls an epoch, whatever the data."""
ORIGINAL: Mapping[str, Mapping[str, Any]] = {
    "dropping": {"counts": "process", "draw": "process"},
    "data": {"truncated": True},
}
"""What `preset: dune-cvpr25` sets where a recipe says nothing: where the original program depends on how a
batch is shared out over processes (PROTOCOLS §6.1, §6.3, §9)."""
_MOVES_NOTHING = {"description": True, "trackers": True, "evaluate": True, "log": True, "training": True}


class StudentSection(Card):
    """arch: shape of DUNE's ViT, or `timm: NAME`.  image_size: pixels of a side, a multiple of the patch.
    init: file or folder of a student to start from.  init_parts: all of it, or the encoder alone."""

    arch: VitConfig | None = None
    timm: str | None = None
    image_size: PositiveInt
    init: str | None = None
    init_parts: Literal["all", "encoder"] = "all"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.arch is None) == (self.timm is None):
            raise ValueError("name exactly one of arch, timm")
        if self.arch is not None and self.image_size % self.arch.patch:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of the patch, {self.arch.patch} pixels"
            )
        if self.init_parts == "encoder" and self.init is None:
            raise ValueError("init_parts says what of `init` is taken: name a checkpoint there")
        return self


class NormSection(Card):
    """Share of a batch in the moving statistics of the teachers: a cosine from start to end."""

    start: float = Field(default=1.0, ge=0, le=1)
    end: float = Field(default=1e-3, ge=0, le=1)


class Training(Card):
    """Optimiser and schedule; the defaults are the published ones.

    batch_size: images of a step over all processes.  steps, or epochs of `epoch_images` images each (an even
    number of steps, as published).  base_lr: for a batch of `lr_batch`; the rate is in proportion to the
    batch.  warmup: share of the steps, from rate 0.  The rest as in the engine's recipe.
    """

    batch_size: PositiveInt
    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    epoch_images: PositiveInt = IMAGENET_IMAGES
    base_lr: PositiveFloat = 3e-4
    lr_batch: PositiveInt = 256
    warmup: float = Field(default=0.2, ge=0, lt=1)
    min_lr: float = Field(default=1e-6, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    eps: PositiveFloat = 1e-15
    weight_decay: float = Field(default=3e-2, ge=0)
    clip_norm: PositiveFloat | None = 1.0
    clip: Literal["global", "per_tensor"] = "per_tensor"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    accumulate: PositiveInt = 1
    workers: int = Field(default=0, ge=0)
    checkpoint_every: PositiveInt = 1000
    log_every: PositiveInt = 10

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("name exactly one of steps, epochs")
        self.engine()
        return self

    def engine(self) -> Recipe:
        """The same for the engine.  Raises pydantic's ValidationError (a ValueError)."""
        steps = self.steps
        if steps is None:
            steps = math.ceil((self.epochs or 0) * self.epoch_images / self.batch_size)
            steps += steps % 2
        own = {"steps", "epochs", "epoch_images", "base_lr", "lr_batch", "warmup"}
        return Recipe(
            steps=steps,
            lr=self.base_lr * self.batch_size / self.lr_batch,
            warmup_steps=int(self.warmup * steps),
            **self.model_dump(exclude=own),
        )


class Evaluation(Card):
    """Tasks that the student is run on while it trains.

    every: steps.  mode: `subprocess` goes on training meanwhile; `inline` waits for the numbers.
    """

    every: PositiveInt
    tasks: str = "all"
    suite: str = "mini"
    limit: PositiveInt | None = None
    mode: Literal["subprocess", "inline"] = "subprocess"


class LogSection(Card):
    """gradient_conflict_every: steps between measurements of the angles between the teachers' gradients
    (None: never), on the first `gradient_conflict_images` images."""

    gradient_conflict_every: PositiveInt | None = None
    gradient_conflict_images: PositiveInt = 8


class DistillRecipe(Card):
    """A distillation.

    preset: `clean`, where the sharing out of a batch over processes changes nothing; `dune-cvpr25`, as the
    original (`ORIGINAL`).  ema: decay of the average of the student's weights, which is then what is
    exported, or null.  seed: of first weights, order, augmentation and dropping.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9][\w.:+-]*$")
    description: str = ""
    preset: Literal["clean", "dune-cvpr25"] = "clean"
    seed: int = Field(default=0, ge=0)
    student: StudentSection
    projectors: ProjectorConfig = Field(default_factory=TransformerConfig)
    teachers: tuple[TeacherSpec, ...] = Field(min_length=1)
    data: DataSection
    loss: LossWeights = Field(default_factory=LossWeights)
    weighting: Weighting = Field(default_factory=Weighting)
    dropping: Dropping = Field(default_factory=Dropping)
    teacher_norm: NormSection = Field(default_factory=NormSection)
    training: Training
    ema: float | None = Field(default=None, gt=0, lt=1)
    evaluate: Evaluation | None = None
    log: LogSection = Field(default_factory=LogSection)
    trackers: tuple[Tracker, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_the_original(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("preset") != "dune-cvpr25":
            return raw
        filled = dict(raw)
        for section, values in ORIGINAL.items():
            given = raw.get(section, {})
            if section == "data" and isinstance(given, Mapping) and not _balanced(given):
                continue
            if isinstance(given, Mapping):
                filled[section] = {**values, **given}
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) != len(names):
            raise ValueError(f"a teacher stands twice among {', '.join(names)}: give one another name")
        homes = {teacher.name: teacher.home_group for teacher in self.teachers}
        groups = parse_mix(self.data.mix).groups or tuple(self.data.groups)
        rule = self.dropping
        try:
            check_dropping(rule.method, rule.probability, homes, groups)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self

    def identity(self) -> dict[str, Any]:
        """What moves a weight, JSON-able; the engine knows the training's own numbers."""
        return self.model_dump(mode="json", exclude=_MOVES_NOTHING)


def _balanced(data: Mapping[str, Any]) -> bool:
    return str(data.get("mix", "teacher_balanced")).startswith("teacher_balanced")


def recipes() -> dict[str, Path]:
    """The recipes that ship, by name."""
    folder = cards_root() / "encoders" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name: str, changes: Sequence[str] = (), unlabelled: str | None = None) -> DistillRecipe:
    """A recipe that ships, or a YAML file, with `key=value` changes.

    changes: keys with dots (`training.steps=100`, `teachers.0.weights=random`), values as YAML.  unlabelled:
    a folder of renders for every MiniRooms source.  Raises UsageError for an unknown recipe or key.
    """
    known = recipes()
    path = known.get(name)
    if path is None:
        path = Path(name).expanduser()
        if (path.suffix in (".yaml", ".yml") or "/" in name) and not path.exists():
            raise UsageError(f"recipe {name}: no such file")
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            raise UsageError(f"no recipe {name!r}{did_you_mean(name, known)}; or name a YAML file")
    if not changes and unlabelled is None:
        return load_card(path, DistillRecipe)
    raw = read_mapping(path)
    for change in changes:
        apply_change(raw, change)
    if unlabelled is not None:
        _add_renders(raw, unlabelled)
    return parse_card(raw, DistillRecipe, str(path))


def apply_change(raw: dict[str, Any], change: str) -> None:
    """Sets one `key.key=value` in place.  Raises UsageError if it cannot be meant."""
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"{change!r}: write a change of the recipe as key=value, training.steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{change!r}: the value is not YAML: {' '.join(str(error).split())}") from error
    # YAML 1.1 reads 1e-4 as text.
    if isinstance(value, str) and (number := _number(value)) is not None:
        value = number
    place: Any = raw
    for part in parts[:-1]:
        place = _inside(place, part, change)
    if isinstance(place, list):
        place[_index(place, parts[-1], change)] = value
    else:
        place[parts[-1]] = value


def _number(text: str) -> float | None:
    try:
        return float(text) if text.strip()[:1] in "+-.0123456789" else None
    except ValueError:
        return None


def _inside(place: Any, part: str, change: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, change)]
    found = place.get(part)
    if found is None:
        # A section that the recipe leaves to its defaults; unknown ones are refused with the whole.
        found = place[part] = {}
    if not isinstance(found, dict | list):
        raise UsageError(f"{change!r}: {part} is a value ({found!r}) and holds no keys")
    return found


def _index(place: list[Any], part: str, change: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        raise UsageError(f"{change!r}: {part!r} is no number of this list: 0 to {len(place) - 1}")
    return int(part)


def _add_renders(raw: Mapping[str, Any], folder: str) -> None:
    groups = raw.get("data", {}).get("groups", {}) if isinstance(raw.get("data"), dict) else {}
    sources = [s for g in groups.values() if isinstance(g, dict) for s in g.get("sources", ())]
    rooms = [s for s in sources if isinstance(s, dict) and s.get("kind") == "minirooms"]
    if not rooms:
        raise UsageError("--unlabelled: the recipe has no source of kind minirooms to add renders to")
    for source in rooms:
        source["unlabelled"] = folder
