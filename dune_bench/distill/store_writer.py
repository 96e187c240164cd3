"""`cache-teachers`: writes the tokens of a recipe's teachers, of some crops of every image, to a store.

A shard is written whole or not at all, and a store is finished when its manifest is there: started again, the
same command goes on with the shards that are missing, and gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dune_bench.distill.augment import augmented, one_thread
from dune_bench.distill.batch import Tokens
from dune_bench.distill.broken import FILE as BROKEN
from dune_bench.distill.broken import BrokenImages
from dune_bench.distill.data import DistillData
from dune_bench.distill.groups import DataGroup, open_groups
from dune_bench.distill.recipe import DistillRecipe
from dune_bench.distill.stored_format import (
    CROPS,
    MANIFEST,
    SHARDS,
    Manifest,
    Plan,
    Shard,
    ShardFile,
    TeacherEntry,
    crop_seed,
    decide,
    packed,
    packed_views,
    read_manifest,
)
from dune_bench.distill.student import patch_of
from dune_bench.distill.teachers import Teacher, TeacherSpec, load_teachers
from dune_bench.encoders.load import pick_device
from dune_bench.engine.data import Pick
from dune_bench.engine.runner import SupportsUpdate
from dune_bench.errors import BenchError, TaskError, UsageError
from dune_bench.registry.lookup import Registry, load_registry
from dune_bench.results.store import write_atomic

PLAN, LOCK = "plan.json", ".lock"
TRIAL_IMAGES = 16
"""Evenly spread images by which the statistics and the type of tokens are decided."""
_DECIDED = frozenset({"dtype", "error", "mean", "std", "spec", "licence"})
_KEEP = {"mode": "json", "exclude": {"shards"}}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreOptions:
    """crops: of each image.  tokens: how patch tokens are stored.  images: whether training makes the crops
    again from the pictures, or finds them in the store.  shard_images: images of a shard.  batch: crops that
    the teachers see at once.  check: read what is there and hold it against its SHA-256."""

    crops: int = 1
    tokens: Literal["auto", "float16", "int8"] = "auto"
    images: Literal["remade", "stored"] = "remade"
    shard_images: int = 64
    batch: int = 16
    check: bool = False


@dataclass(frozen=True)
class Written:
    """A finished store.  made: shards that were made now.  broken: a note on unreadable images, or None."""

    manifest: Manifest
    made: int
    broken: str | None

    def bytes_per_image(self, part: str) -> float:
        """Of a teacher, or of `crops`."""
        return sum(s.files[part].size for s in self.manifest.shards) / self.manifest.total


def write_store(
    recipe: DistillRecipe,
    folder: Path,
    options: StoreOptions,
    *,
    base: Path | None = None,
    device: str = "auto",
    offline: bool = False,
    progress: SupportsUpdate | None = None,
    teachers: Sequence[Teacher] | None = None,
    groups: Sequence[DataGroup] | None = None,
    registry: Registry | None = None,
) -> Written:
    """Writes the store, or what is missing of it.

    base: what the data's relative paths are relative to (default: the working folder).  teachers,
    groups: in place of those that the recipe would load and open, in its order.

    Raises UsageError for a folder that holds another store or that another process writes to, a teacher whose
    weights have no digest, and what a recipe can have wrong; UnavailableError for data or weights that are
    not here; TaskError for tokens that are not finite, or a disk that is full.
    """
    device = str(pick_device(device))
    if groups is None:
        groups = open_groups(recipe.data.groups, base or Path())
    broken = BrokenImages(folder / BROKEN, sum(map(len, groups)), recipe.data.max_broken)
    data = DistillData(groups, recipe.student.image_size, recipe.data.augmentation, broken)
    registry = registry or load_registry()
    if teachers is None:
        kinds: Any = {"device": device, "dtype": recipe.training.dtype, "registry": registry}
        teachers = load_teachers(recipe.teachers, offline=offline, **kinds)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            writer = _Writer(recipe, folder, options, data, teachers, torch.device(device), registry)
            manifest, made = writer.run(progress)
    except Timeout as error:
        raise UsageError(f"{folder}: another process writes to this store: wait for it") from error
    return Written(manifest, made, broken.note())


class _Writer:
    def __init__(
        self,
        recipe: DistillRecipe,
        folder: Path,
        options: StoreOptions,
        data: DistillData,
        teachers: Sequence[Teacher],
        device: torch.device,
        registry: Registry,
    ) -> None:
        self.folder, self.options, self.data, self.device = folder, options, data, device
        self.teachers, self.workers = teachers, recipe.training.workers
        section = recipe.student
        patch = patch_of(section.arch or str(section.timm))
        if section.image_size % patch:
            raise UsageError(
                f"student.image_size {section.image_size} is not a multiple of the patch, {patch}"
            )
        self.plan = Plan(
            recipe=recipe.id,
            image_size=section.image_size,
            patch=patch,
            grid=section.image_size // patch,
            augmentation=recipe.data.augmentation,
            seed=recipe.seed,
            crops=options.crops,
            images=options.images,
            groups=dict(data.lengths),
            shard_images=options.shard_images,
            teachers=tuple(
                _entry(spec, teacher, registry)
                for spec, teacher in zip(recipe.teachers, teachers, strict=True)
            ),
        )

    def run(self, progress: SupportsUpdate | None) -> tuple[Manifest, int]:
        plan = self._begun()
        for unfinished in (self.folder / SHARDS).glob(".*"):
            unfinished.unlink()
        if plan is None:
            self.plan = self._decided()
            write_atomic(self.folder / PLAN, _json(self.plan))
        else:
            self.plan = plan
        known = self._finished()
        missing = [n for n in range(len(self.plan.shard_starts)) if n not in known]
        done = len(known)
        for number, shard in self._made(missing):
            known[number] = shard
            write_atomic(self._note(number), _json(shard))
            done += 1
            if progress is not None:
                progress.update(min(done * self.plan.shard_images, self.plan.total), self.plan.total)
        content = self.plan.model_dump(**_KEEP)  # type: ignore[arg-type]
        manifest = Manifest(**content, shards=tuple(known[n] for n in sorted(known)))
        write_atomic(self.folder / MANIFEST, _json(manifest))
        for number in known:
            self._note(number).unlink(missing_ok=True)
        (self.folder / PLAN).unlink(missing_ok=True)
        return manifest, len(missing)

    def _begun(self) -> Plan | None:
        """What the folder's store was begun as, None for an empty folder.  Raises UsageError for another."""
        path = self.folder / (MANIFEST if (self.folder / MANIFEST).is_file() else PLAN)
        if not path.is_file():
            return None
        try:
            if path.name == MANIFEST:
                there = Plan(**read_manifest(self.folder).model_dump(**_KEEP))  # type: ignore[arg-type]
            else:
                there = Plan.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise TaskError(f"{path}: damaged: remove {self.folder} and begin anew") from error
        _check_same(there, self.plan, self.options.tokens, self.folder)
        return there

    def _decided(self) -> Plan:
        """The plan with statistics, types and errors of the trial images."""
        total = self.plan.total
        count = min(TRIAL_IMAGES, total)
        indices = [n * total // count for n in range(count)]
        views = [crops_of(self.data, self.plan, index)[0] for index in indices]
        entries = []
        for teacher, entry in zip(self.teachers, self.plan.teachers, strict=True):
            parts = [self._tokens(teacher, part) for part in _cut(views, self.options.batch)]
            patch = torch.cat([tokens.patch for tokens in parts])
            entries.append(decide(entry, patch, self.options.tokens))
        return self.plan.model_copy(update={"teachers": tuple(entries)})

    def _finished(self) -> dict[int, Shard]:
        """Shards whose files are all there, whole as far as their size says, or their sum if asked."""
        manifest = self.folder / MANIFEST
        noted: dict[int, Shard] = {}
        if manifest.is_file():
            noted = dict(enumerate(read_manifest(self.folder).shards))
        else:
            for number in range(len(self.plan.shard_starts)):
                if self._note(number).is_file():
                    try:
                        noted[number] = Shard.model_validate_json(self._note(number).read_bytes())
                    except ValidationError:
                        logger.warning("%s is damaged: this shard is made again", self._note(number))
        return {n: shard for n, shard in noted.items() if all(map(self._whole, shard.files.values()))}

    def _whole(self, file: ShardFile) -> bool:
        path = self.folder / SHARDS / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        if not self.options.check:
            return True
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256

    def _made(self, numbers: Sequence[int]) -> Iterator[tuple[int, Shard]]:
        """Makes and writes these shards, one after the other."""
        wanted = [index for number in numbers for index in self.plan.shard_range(number)]
        loader = DataLoader(
            _Crops(self.data, self.plan),
            sampler=wanted,
            batch_size=None,
            collate_fn=_as_is,
            num_workers=self.workers,
            generator=torch.Generator(),
        )
        stream = iter(loader)
        for number in numbers:
            images = self.plan.shard_range(number)
            packs: dict[str, list[dict[str, Tensor]]] = {teacher.name: [] for teacher in self.teachers}
            views: list[Tensor] = []
            waiting: list[Tensor] = []
            for index in images:
                found = next(stream)
                if isinstance(found, BenchError):
                    raise found
                views += list(found)
                waiting += list(found)
                while len(waiting) >= self.options.batch or (waiting and index == images[-1]):
                    self._pack(waiting[: self.options.batch], packs)
                    waiting = waiting[self.options.batch :]
            content = {CROPS: packed_views(views, self.plan.images == "stored")}
            content |= {
                n: {k: torch.cat([p[k] for p in parts]) for k in parts[0]} for n, parts in packs.items()
            }
            files = {part: self._write(part, number, tensors) for part, tensors in content.items()}
            ids = self.data.describe([Pick(index, 0) for index in images])
            yield number, Shard(ids=tuple(ids), files=files)

    def _pack(self, views: Sequence[Tensor], packs: Mapping[str, list[dict[str, Tensor]]]) -> None:
        for teacher, entry in zip(self.teachers, self.plan.teachers, strict=True):
            statistics = torch.tensor(entry.mean), torch.tensor(entry.std)
            try:
                packs[teacher.name].append(packed(self._tokens(teacher, views), entry.dtype, *statistics))
            except TaskError as error:
                raise TaskError(f"teacher {teacher.name}: {error}") from error

    def _tokens(self, teacher: Teacher, views: Sequence[Tensor]) -> Tokens:
        tokens = teacher.tokens(torch.stack(list(views)).to(self.device), self.plan.patch)
        return Tokens(tokens.patch.float().cpu(), None if tokens.cls is None else tokens.cls.float().cpu())

    def _write(self, part: str, number: int, tensors: Mapping[str, Tensor]) -> ShardFile:
        name = f"{part}-{number:06d}.safetensors"
        data = save({key: tensor.contiguous() for key, tensor in tensors.items()})
        write_atomic(self.folder / SHARDS / name, data)
        return ShardFile(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def _note(self, number: int) -> Path:
        return self.folder / SHARDS / f"{number:06d}.json"


class _Crops(Dataset[Tensor | BenchError]):
    """Crops of images.  An error travels as a value, as in the engine."""

    def __init__(self, data: DistillData, plan: Plan) -> None:
        self._data, self._plan = data, plan

    def __getitem__(self, index: int) -> Tensor | BenchError:
        try:
            return crops_of(self._data, self._plan, index)
        except BenchError as error:
            return error


def crops_of(data: DistillData, plan: Plan, index: int) -> Tensor:
    """float32 (crops, 3, S, S) of an image; of 8 bits if they are to be stored: teachers see what the student
    will."""
    image, seeds = data.image(index), [crop_seed(plan.seed, index, crop) for crop in range(plan.crops)]
    with one_thread():
        views = torch.stack([augmented(image, plan.image_size, plan.augmentation, seed) for seed in seeds])
    return (views * 255).round() / 255 if plan.images == "stored" else views


def _entry(spec: TeacherSpec, teacher: Teacher, registry: Registry) -> TeacherEntry:
    """Before anything is decided.  Raises UsageError for weights without a digest."""
    if teacher.encoder.weights_digest is None:
        raise UsageError(
            f"teacher {teacher.name}: its weights have no digest, so nobody could tell what was stored: "
            "give its encoder a weights_digest"
        )
    licences = {source.licence for source in registry.encoder(spec.source).weights}
    return TeacherEntry(
        name=teacher.name,
        spec=spec,
        identity=teacher.identity(),
        licence="; ".join(sorted(licences)) if licences and spec.weights == "auto" else "not stated",
        width=teacher.width,
        has_cls=teacher.has_cls,
        dtype="int8",
        error=0.0,
        mean=(),
        std=(),
    )


def _check_same(there: Plan, here: Plan, tokens: str, folder: Path) -> None:
    """Raises UsageError with the first thing that differs."""
    names = [[teacher.name for teacher in plan.teachers] for plan in (there, here)]
    problem = f"teachers {', '.join(names[0])}, not {', '.join(names[1])}" if names[0] != names[1] else None
    for old, new in zip(there.teachers, here.teachers, strict=False):
        a, b = (t.model_dump(mode="json", exclude=set(_DECIDED)) for t in (old, new))
        if problem is None and a != b:
            digests = [str(t.identity["encoder"]["weights_digest"])[:7] for t in (old, new)]
            what = f"weights {digests[0]}, not {digests[1]}" if digests[0] != digests[1] else "other settings"
            problem = f"another teacher {old.name} ({what})"
        if problem is None and tokens not in ("auto", old.dtype):
            problem = f"{old.dtype} tokens of {old.name}, not {tokens}"
    a, b = (p.model_dump(mode="json", exclude={"teachers", "recipe"}) for p in (there, here))
    for field in a:
        if problem is None and a[field] != b[field]:
            problem = f"{field} {a[field]}, not {b[field]}"
    if problem is not None:
        raise UsageError(f"{folder}: holds a store of {problem}; name another --out")


def _json(card: Plan | Shard) -> bytes:
    return (json.dumps(card.model_dump(mode="json"), ensure_ascii=False) + "\n").encode()


def _cut(views: Sequence[Tensor], size: int) -> Iterator[Sequence[Tensor]]:
    for start in range(0, len(views), size):
        yield views[start : start + size]


def _as_is(found: Any) -> Any:
    return found
