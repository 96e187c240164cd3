"""Training data from stored teacher tokens: no teacher in memory.

Which crop an image has at a step follows from the pick's seed; the crop itself from the store's seed, the
image and the crop's number.  The format: `stored_format`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dune_bench.data.images import decode_image
from dune_bench.distill.augment import Augmentation, augmented, one_thread
from dune_bench.distill.batch import DistillBatch, Tokens
from dune_bench.distill.data import DistillData, loss_seed
from dune_bench.distill.stored_format import (
    CROPS,
    SHARDS,
    TOKENS,
    VIEWS,
    Manifest,
    TeacherEntry,
    check_file,
    crop_seed,
    read_manifest,
    read_row,
    small,
    unpacked,
)
from dune_bench.distill.teachers import Teacher, TeacherSpec
from dune_bench.engine.data import Pick, derived_seed
from dune_bench.errors import TaskError, UsageError
from dune_bench.registry.suggest import did_you_mean

MOST_DIFFERENT = 3
"""Levels of 255 by which a crop made again may differ, in means over a sixteenth, from the one stored."""
_CROP = 3
"""A stream of seeds beside those of `DistillData`."""


@dataclass(frozen=True)
class StoredTeacher:
    """A teacher that is not in memory: what the loss needs to know of it."""

    name: str
    width: int
    has_cls: bool
    home: str | None
    stored: Mapping[str, Any]

    def tokens(self, images: Tensor, student_patch: int) -> Tokens:
        """Raises TaskError: its tokens come with the batch."""
        raise TaskError(f"teacher {self.name}: is stored, but the batch came without its tokens")

    def identity(self) -> dict[str, Any]:
        """As of the teacher that was stored, and how."""
        return dict(self.stored)


class StoredData:
    """`TrainingData` of a store: as `DistillData`, with the tokens of its teachers.

    images: the pictures, if the crops are to be made again; their groups and numbers are the store's.
    teachers: names of those to read; None: all.

    Raises UnavailableError for a store or a shard that is not there, TaskError for a damaged one, UsageError
    for other images or a teacher that is not in it.
    """

    def __init__(
        self, folder: Path, images: DistillData | None = None, teachers: Sequence[str] | None = None
    ) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        known = {teacher.name: teacher for teacher in self.manifest.teachers}
        for name in teachers or ():
            if name not in known:
                raise UsageError(f"{folder}: holds nothing of teacher {name!r}{did_you_mean(name, known)}")
        self._teachers = [known[name] for name in (known if teachers is None else teachers)]
        self._homes = {teacher.name: teacher.spec.home_group for teacher in self._teachers}
        self._statistics = {t.name: (torch.tensor(t.mean), torch.tensor(t.std)) for t in self._teachers}
        self._images = _fitting(images, self.manifest, folder)
        self._ends = np.cumsum(list(self.manifest.groups.values()), dtype=np.int64)
        for shard in self.manifest.shards:
            for part in (CROPS, *(teacher.name for teacher in self._teachers)):
                check_file(folder, shard.files[part])

    def __len__(self) -> int:
        return self.manifest.total

    @property
    def lengths(self) -> Mapping[str, int]:
        """Images of each group, as `mixing.pick_order` takes them."""
        return self.manifest.groups

    @property
    def teachers(self) -> tuple[StoredTeacher, ...]:
        """In place of the live ones, for `Objective`."""
        return tuple(
            StoredTeacher(
                t.name,
                t.width,
                t.has_cls,
                self._homes[t.name],
                t.identity | {"stored": {"dtype": t.dtype, "crops": self.manifest.crops}},
            )
            for t in self._teachers
        )

    def set_homes(self, homes: Mapping[str, str | None]) -> None:
        """Home groups of the teachers where a recipe has others than the store: no token depends on them."""
        self._homes = {**self._homes, **homes}

    def batch(self, picks: Sequence[Pick]) -> DistillBatch:
        """Crops (B, 3, S, S), groups, seeds of the loss, and the tokens of all teachers: a function of the
        picks.  Raises TaskError for rows that are damaged and images that are not those stored."""
        size = self.manifest.image_size
        with one_thread():
            views = [self._view(pick) for pick in picks]
        return DistillBatch(
            torch.stack(views) if views else torch.zeros(0, 3, size, size),
            torch.tensor([self._group(pick.index) for pick in picks], dtype=torch.int64),
            torch.tensor([loss_seed(pick) for pick in picks], dtype=torch.int64),
            {teacher.name: self._tokens(teacher, picks) for teacher in self._teachers} if picks else {},
        )

    def describe(self, picks: Sequence[Pick]) -> Sequence[str]:
        """`group/source: image (crop N)`."""
        return [f"{self._id(pick.index)} (crop {self.crop(pick)})" for pick in picks]

    def crop(self, pick: Pick) -> int:
        """Which of an image's crops stands at a pick."""
        return derived_seed(pick.seed, _CROP) % self.manifest.crops

    def _tokens(self, teacher: TeacherEntry, picks: Sequence[Pick]) -> Tokens:
        rows = [self._read(teacher.name, pick, TOKENS) for pick in picks]
        content = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return unpacked(content, *self._statistics[teacher.name])

    def _view(self, pick: Pick) -> Tensor:
        size = self.manifest.image_size
        row = self._read(CROPS, pick, VIEWS)
        if self._images is None:
            name = self.describe([pick])[0]
            pixels = decode_image(row["png"].numpy().tobytes(), name)
            if pixels.shape != (size, size, 3):
                raise TaskError(f"{name}: the stored crop has {pixels.shape[0]}×{pixels.shape[1]} pixels")
            return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255).contiguous()
        seed = crop_seed(self.manifest.seed, pick.index, self.crop(pick))
        view = augmented(self._images.image(pick.index), size, self.manifest.augmentation, seed)
        difference = int((small(view).int() - row["small"][0].int()).abs().max())
        if difference > MOST_DIFFERENT:
            raise TaskError(
                f"{self._id(pick.index)}: the image here is not the one whose tokens are in {self.folder} "
                f"({difference} levels of 255 apart): take the images that were stored, in their order"
            )
        return view

    def _read(self, part: str, pick: Pick, names: Sequence[str]) -> dict[str, Tensor]:
        """The tensors of one row, (1, …).  Raises TaskError."""
        number, place = divmod(pick.index, self.manifest.shard_images)
        row = place * self.manifest.crops + self.crop(pick)
        file = self.manifest.shards[number].files[part]
        return read_row(self.folder / SHARDS / file.name, row, names)

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _id(self, index: int) -> str:
        number, place = divmod(index, self.manifest.shard_images)
        return self.manifest.shards[number].ids[place]


def open_store(
    folder: Path,
    specs: Sequence[TeacherSpec],
    *,
    image_size: int,
    patch: int,
    augmentation: Augmentation,
    images: DistillData | None = None,
    loaded: Iterable[Teacher] = (),
) -> StoredData:
    """A store for a training, after a look at whether it is of the same teachers at the same tokens.

    specs: the recipe's teachers.  image_size, patch: pixels, of the student.  images: as of `StoredData`.
    loaded: teachers in memory, whose weights are then compared.  Raises as `StoredData`, and UsageError for a
    store of another teacher, grid or augmentation.
    """
    data = StoredData(folder, images, [spec.name for spec in specs])
    there = data.manifest
    if (there.image_size, there.patch) != (image_size, patch):
        raise UsageError(
            f"{folder}: is for crops of {there.image_size} px and patches of {there.patch} px, "
            f"{there.grid}×{there.grid} tokens; the student has {image_size} px and {patch} px"
        )
    if there.augmentation != augmentation:
        raise UsageError(f"{folder}: was made with another augmentation; set the recipe's data.augmentation")
    entries = {teacher.name: teacher for teacher in there.teachers}
    for spec in specs:
        _check_spec(entries[spec.name].spec, spec, folder)
    data.set_homes({spec.name: spec.home_group for spec in specs})
    for teacher in loaded:
        if teacher.name in entries:
            check_identity(entries[teacher.name], teacher, folder)
    return data


def check_identity(entry: TeacherEntry, teacher: Teacher, folder: Path) -> None:
    """Raises UsageError if a loaded teacher is not the stored one, with what differs."""
    old, new = entry.identity, teacher.identity()
    if old == new:
        return
    a, b = (_digest(identity) for identity in (old, new))
    what = f"weights {a}, not {b}" if a != b else "other settings (view, class token, precision or adapter)"
    raise UsageError(f"{folder}: was made with another teacher {entry.name}: {what}; name another store")


def _fitting(images: DistillData | None, manifest: Manifest, folder: Path) -> DistillData | None:
    if manifest.images == "stored":
        return None
    if images is None:
        raise UsageError(f"{folder}: its crops are to be made from the images: name them in the recipe")
    if list(images.lengths.items()) != list(manifest.groups.items()):
        here, there = (", ".join(f"{n} {c}" for n, c in g.items()) for g in (images.lengths, manifest.groups))
        raise UsageError(f"{folder}: was made from other images: {there}; here: {here}")
    return images


def _check_spec(there: TeacherSpec, here: TeacherSpec, folder: Path) -> None:
    for field in ("source", "view", "cls"):
        a, b = getattr(there, field), getattr(here, field)
        if a != b:
            raise UsageError(f"{folder}: teacher {here.name} was stored with {field} {a}, not {b}")
    if (there.weights == "random") != (here.weights == "random"):
        raise UsageError(
            f"{folder}: teacher {here.name} was stored with weights {there.weights}, not {here.weights}"
        )


def _digest(identity: Mapping[str, Any]) -> str:
    encoder = identity.get("encoder")
    digest = encoder.get("weights_digest") if isinstance(encoder, Mapping) else None
    return str(digest)[:7] if digest else "unknown"
