"""The format of stored teacher tokens.


A store is a folder.  `manifest.json` (`Manifest`) says of what it is; `shards/NAME-000000.safetensors` hold
consecutive images, a file for each teacher and one, `crops`, of the student's input.  An image has `crops`
rows in them, one after the other.  Tensors of a teacher's file, R rows of N tokens of C channels:

    patch  float16 (R, N, C), or int8 (R, N, C) with
    scale  float32 (R, N): token = patch · scale · std + mean, std and mean (C,) from the manifest
    cls    float32 (R, C), if the class token is taught
    crc    int64 (R,), CRC-32 of the row's bytes, in this order

and of `crops`: `small` uint8 (R, 3, 4, 4), by which a crop is known again; with `images: stored` the crops
themselves as PNG files, `png` uint8 (all bytes) and `ends` int64 (R,); `crc`.

Files are mapped into memory; a row is read when it is asked for, and checked against its sum.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dune_bench.distill.augment import Augmentation
from dune_bench.distill.batch import Tokens
from dune_bench.distill.losses import LossWeights, image_losses
from dune_bench.distill.teacher_norm import SMALLEST_STD
from dune_bench.distill.teachers import TeacherSpec
from dune_bench.engine.data import derived_seed
from dune_bench.errors import TaskError, UnavailableError, first_problem
from dune_bench.registry.cards import Card

MANIFEST, SHARDS, CROPS = "manifest.json", "shards", "crops"
AGAIN = "copy it again, or run cache-teachers again with --check"
_SMALL, _OPEN = 4, 64
_BEFORE_IMAGES = 3
"""A stream of seeds beside those of `DistillData`."""

MOST_ERROR = 1e-3
"""`auto` stores int8 if a student that says exactly what is stored has no greater loss than this: under a
hundredth of what trained students reach."""

TokenType = Literal["float16", "int8"]
TOKENS = ("patch", "scale", "cls")
VIEWS = ("small", "png")


class TeacherEntry(Card):
    """A teacher of a store.

    spec: as the recipe named it.  identity: of its encoder, weights digest included, view and precision.
    error: the loss of a student that says exactly what is stored, against the tokens before storing, in the
    space normalised by mean and std, (C,), which are of some trial images.
    """

    name: str
    spec: TeacherSpec
    identity: dict[str, Any]
    licence: str
    width: PositiveInt
    has_cls: bool
    dtype: TokenType
    error: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Plan(Card):
    """All that decides what is in the shards.

    recipe: its id.  image_size: pixels of the crops' sides.  patch: the student's, pixels.  grid: tokens of a
    side.  seed: of the crops.  groups: images by group, in the order of their numbers.  images: `remade` from
    the pictures, or `stored`.
    """

    format: Literal[1] = 1
    recipe: str
    image_size: PositiveInt
    patch: PositiveInt
    grid: PositiveInt
    augmentation: Augmentation
    seed: NonNegativeInt
    crops: PositiveInt
    images: Literal["remade", "stored"]
    groups: dict[str, PositiveInt] = Field(min_length=1)
    shard_images: PositiveInt
    teachers: tuple[TeacherEntry, ...] = Field(min_length=1)

    @property
    def total(self) -> int:
        return sum(self.groups.values())

    @property
    def parts(self) -> tuple[str, ...]:
        """Files of a shard."""
        return (CROPS, *(teacher.name for teacher in self.teachers))

    @property
    def shard_starts(self) -> range:
        """First image of each shard."""
        return range(0, self.total, self.shard_images)

    def shard_range(self, number: int) -> range:
        """Images of a shard."""
        first = number * self.shard_images
        return range(first, min(first + self.shard_images, self.total))


class ShardFile(Card):
    """size: bytes."""

    name: str
    size: PositiveInt
    sha256: str


class Shard(Card):
    """ids: `group/source: image` of each image.  files: by part."""

    ids: tuple[str, ...]
    files: dict[str, ShardFile]


class Manifest(Plan):
    """A finished store."""

    shards: tuple[Shard, ...]

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(file.size for shard in self.shards for file in shard.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 of all that a training from the store depends on, wherever its folder is."""
        content = self.model_dump(mode="json", exclude={"recipe"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def crop_seed(seed: int, image: int, crop: int) -> int:
    """What makes a stored crop from its image."""
    return derived_seed(seed, _BEFORE_IMAGES, image, crop)


def small(view: Tensor) -> Tensor:
    """uint8 (3, 4, 4): means over sixteenths of float (3, S, S) in [0, 1]."""
    return (F.adaptive_avg_pool2d(view, _SMALL) * 255).round().to(torch.uint8)


def packed(tokens: Tokens, dtype: TokenType, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Raw tokens of R rows as they are stored, with their sums; on the CPU.

    mean, std: float32 (C,), of `int8`.  Raises TaskError for tokens beyond the range of float16.
    """
    patch = tokens.patch.detach().float().cpu()
    content = {}
    if dtype == "float16":
        content["patch"] = patch.half()
        if not content["patch"].isfinite().all():
            raise TaskError(f"tokens up to {float(patch.abs().max()):.3g} do not fit float16: store int8")
    else:
        standard = (patch - mean) / std.clamp(min=SMALLEST_STD)
        scale = standard.abs().amax(-1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        content["patch"] = (standard / scale[..., None]).round().clamp(-127, 127).to(torch.int8)
        content["scale"] = scale
    if tokens.cls is not None:
        content["cls"] = tokens.cls.detach().float().cpu()
    content["crc"] = torch.tensor([_sum(_row(content, row)) for row in range(len(patch))], dtype=torch.int64)
    return content


def unpacked(content: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> Tokens:
    """float32 tokens of what `packed` gave."""
    patch = content["patch"].float()
    if "scale" in content:
        patch = patch.mul_(content["scale"][..., None]).mul_(std.clamp(min=SMALLEST_STD)).add_(mean)
    return Tokens(patch, content.get("cls"))


def decide(entry: TeacherEntry, patch: Tensor, wanted: Literal["auto", "float16", "int8"]) -> TeacherEntry:
    """The entry with statistics of these raw patch tokens, float32 (B, N, C), and how they are stored."""
    flat = patch.flatten(0, 1)
    std, mean = torch.std_mean(flat, 0, correction=0)
    errors = {
        kind: storing_error(patch, kind, mean, std)
        for kind in cast(tuple[TokenType, ...], ("float16", "int8"))
        if wanted in (kind, "auto")
        and (kind == "int8" or patch.abs().max() <= torch.finfo(torch.float16).max)
    }
    if not errors:
        raise TaskError(f"teacher {entry.name}: tokens do not fit float16: store int8")
    kind: TokenType = "int8" if errors.get("int8", torch.inf) <= MOST_ERROR or len(errors) == 1 else "float16"
    if wanted == "float16":
        kind = "float16"
    facts = {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
    return entry.model_copy(update={"dtype": kind, "error": errors[kind], **facts})


def storing_error(patch: Tensor, dtype: TokenType, mean: Tensor, std: Tensor) -> float:
    """Loss, with DUNE's weights, of a student that says what is stored of these tokens (B, N, C) and nothing
    else, after normalising both by mean and std (C,)."""
    back = unpacked(packed(Tokens(patch), dtype, mean, std), mean, std).patch
    scale = std.clamp(min=SMALLEST_STD)
    said, exact = (Tokens((tokens - mean) / scale) for tokens in (back, patch))
    return float(image_losses(said, exact, LossWeights()).mean())


def read_manifest(folder: Path) -> Manifest:
    """Raises UnavailableError if there is none, TaskError if it is damaged or of a newer format."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UnavailableError(
            f"{folder}: no finished store of teacher tokens ({MANIFEST} cannot be read: {error.strerror}): "
            "run dune-bench cache-teachers, again if it was stopped"
        ) from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise TaskError(
            f"{path}: not a manifest that this version reads: {first_problem(error, 'content')}"
        ) from error
    whole = len(manifest.shards) == len(manifest.shard_starts) and all(
        set(shard.files) == set(manifest.parts) and len(shard.ids) == len(manifest.shard_range(number))
        for number, shard in enumerate(manifest.shards)
    )
    if not whole:
        raise TaskError(f"{path}: damaged: its shards do not hold {manifest.total} images: {AGAIN}")
    return manifest


def check_file(folder: Path, file: ShardFile) -> None:
    """Raises UnavailableError if a shard's file is missing, TaskError if it has another size."""
    path = folder / SHARDS / file.name
    if not path.is_file():
        raise UnavailableError(f"{path}: this shard is missing: copy it here, or run cache-teachers again")
    if (size := path.stat().st_size) != file.size:
        raise TaskError(f"{path}: damaged ({size} bytes of {file.size}): {AGAIN}")


def png(view: Tensor) -> bytes:
    """A float (3, S, S) in [0, 1] whose values are of 8 bits, as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray((view * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()).save(stream, "PNG")
    return stream.getvalue()


def packed_views(views: Sequence[Tensor], stored: bool) -> dict[str, Tensor]:
    """The `crops` part of R views (3, S, S)."""
    smalls = torch.stack([small(view) for view in views])
    files = [png(view) for view in views] if stored else []
    content = {"small": smalls}
    parts: list[list[Tensor]] = [[row] for row in smalls]
    if stored:
        bytes_of = [torch.from_numpy(np.frombuffer(file, np.uint8).copy()) for file in files]
        content["png"] = torch.cat(bytes_of)
        content["ends"] = torch.tensor(np.cumsum([len(file) for file in files]), dtype=torch.int64)
        parts = [[row, file] for row, file in zip(smalls, bytes_of, strict=True)]
    content["crc"] = torch.tensor([_sum(row) for row in parts], dtype=torch.int64)
    return content


def read_row(path: Path, row: int, names: Sequence[str]) -> dict[str, Tensor]:
    """Those of the tensors that there are, of one row: (1, …); `png`: its bytes.

    Raises TaskError for a file that is damaged or gone, and a row whose sum differs.
    """
    try:
        found, expected = _opened(path).read(row, names)
    except (OSError, SafetensorError, ValueError, IndexError, KeyError) as error:
        raise TaskError(f"{path}: damaged ({' '.join(str(error).split())}): {AGAIN}") from error
    if _sum(found.values()) != expected:
        raise TaskError(f"{path}: row {row} is damaged (its sum differs): {AGAIN}")
    return found


class _Rows:
    """An open shard file."""

    def __init__(self, path: Path) -> None:
        self._file: Any = safe_open(path, framework="pt")
        file: Any = self._file
        self._there = set(file.keys())
        self._crc: list[int] = file.get_tensor("crc").tolist()
        self._ends: list[int] = file.get_tensor("ends").tolist() if "ends" in self._there else []

    def read(self, row: int, names: Sequence[str]) -> tuple[dict[str, Tensor], int]:
        """Tensors of a row, (1, …) (`png`: its bytes), and the sum that they must have."""
        found = {}
        for name in names:
            if name in self._there:
                start, end = row, row + 1
                if name == "png":
                    start, end = (self._ends[row - 1] if row else 0), self._ends[row]
                found[name] = self._file.get_slice(name)[start:end]
        return found, self._crc[row]


@lru_cache(maxsize=_OPEN)
def _opened(path: Path) -> _Rows:
    return _Rows(path)


def _row(content: Mapping[str, Tensor], row: int) -> list[Tensor]:
    return [content[name][row] for name in TOKENS if name in content]


def _sum(tensors: Iterable[Tensor]) -> int:
    found = 0
    for tensor in tensors:
        found = zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data, found)
    return found
