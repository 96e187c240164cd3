"""`annotations.jsonl` of `smplx-people@1`: one image a line, checked strictly; docs/data/smplx-people.md.

Camera frame: OpenCV axes, metres.  K in pixels of the image, pixel centres at half-integers.  Rotations are
rotation vectors in radians.  Reading a split keeps where its lines are, not the people: those are read when
they are asked for, so that memory does not grow with the bodies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr, ValidationError
from pydantic import field_validator as validator

from dune_bench.errors import TaskError, first_problem
from dune_bench.geometry.cameras import check_intrinsics

NAME = "annotations.jsonl"
KEYPOINTS = 17
Floats = NDArray[np.float64]


def _shaped(*shape: int) -> BeforeValidator:
    """Makes a finite float64 array of exactly this shape of nested lists of numbers."""

    def check(value: object) -> Floats:
        if not _numbers(value, len(shape)):
            raise ValueError(f"expected lists of numbers of shape {shape}")
        try:
            array = np.array(value, dtype=np.float64)
        except (ValueError, OverflowError):
            raise ValueError(f"expected lists of numbers of shape {shape}, all of one length") from None
        if array.shape != shape:
            raise ValueError(f"expected shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("expected finite numbers")
        return array

    return BeforeValidator(check)


def _numbers(value: object, depth: int) -> bool:
    """Whether these are lists, `depth` deep, of numbers: NumPy would also take "1" and true for one."""
    if depth == 0:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, list) and all(_numbers(item, depth - 1) for item in value)


Vector = Annotated[Floats, _shaped(3)]
Hand = Annotated[Floats, _shaped(15, 3)]
Ten = Annotated[Floats, _shaped(10)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class AnnotatedPerson(_Part):
    """One person as SMPL-X (neutral) in the camera frame.

    global_orient turns about the pelvis, then `transl` is added: what `smplx` does with these arguments.
    visible: the 17 COCO key points that are not hidden.  visible_fraction: share of the body that shows.
    """

    id: StrictStr | None = Field(default=None, min_length=1)
    global_orient: Vector
    body_pose: Annotated[Floats, _shaped(21, 3)]
    left_hand_pose: Hand
    right_hand_pose: Hand
    jaw_pose: Vector
    leye_pose: Vector = Field(default_factory=lambda: np.zeros(3))
    reye_pose: Vector = Field(default_factory=lambda: np.zeros(3))
    betas: Ten
    expression: Ten = Field(default_factory=lambda: np.zeros(10))
    transl: Vector
    visible: tuple[StrictBool, ...] | None = Field(default=None, min_length=KEYPOINTS, max_length=KEYPOINTS)
    visible_fraction: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None


class AnnotatedImage(_Part):
    """One line.  image: path from the folder of the annotation file, with `/`.  group: the cluster of the
    statistics, such as a scene or a sequence."""

    image: StrictStr
    group: StrictStr = Field(min_length=1)
    K: Annotated[Floats, _shaped(3, 3)]
    people: tuple[AnnotatedPerson, ...]

    @validator("image")
    @classmethod
    def _inside(cls, image: str) -> str:
        path = PurePosixPath(image)
        strange = "\\" in image or any(ord(letter) < 32 for letter in image)
        if not image or strange or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{image!r} does not stay in the folder of the annotations")
        return str(path)

    @validator("K")
    @classmethod
    def _pinhole(cls, K: Floats) -> Floats:
        try:
            check_intrinsics(K)
        except TaskError as error:
            raise ValueError(str(error)) from error
        return K

    @validator("people")
    @classmethod
    def _apart(cls, people: tuple[AnnotatedPerson, ...]) -> tuple[AnnotatedPerson, ...]:
        names = [person_name(person, i) for i, person in enumerate(people)]
        if len(set(names)) < len(names):
            raise ValueError("two people have the same id")
        return people


def person_name(person: AnnotatedPerson, index: int) -> str:
    """The person's own id, or its place in the image."""
    return str(index) if person.id is None else person.id


@dataclass(frozen=True, eq=False)
class Line:
    """Where an image's line is, and what the index needs of it.  number: from 1.  offset, length: bytes.
    K: (3, 3).  unclear: people without `visible` or without `visible_fraction`."""

    number: int
    offset: int
    length: int
    image: str
    group: str
    K: Floats
    people: int
    unclear: int


@dataclass(frozen=True)
class Annotations:
    """The annotation file of a split.  sha256: of its bytes."""

    path: Path
    sha256: str
    lines: tuple[Line, ...]


def read_line(path: Path, line: Line) -> AnnotatedImage:
    """One line of an indexed file again.  Raises TaskError if it is no longer what it was."""
    where = f"{path}:{line.number}"
    try:
        with path.open("rb") as file:
            file.seek(line.offset)
            parsed = parse_line(file.read(line.length), where)
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror or error}: restore the file") from error
    if (parsed.image, parsed.group, len(parsed.people)) != (line.image, line.group, line.people):
        raise TaskError(f"{where}: the file changed while it was used: run again")
    return parsed


def parse_line(text: bytes, where: str) -> AnnotatedImage:
    """One line of the file.  Raises TaskError that begins with `where` for anything but such a line."""
    try:
        raw = json.loads(text.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise TaskError(f"{where}: not a line of JSON ({reason}): correct it") from error
    try:
        return AnnotatedImage.model_validate(raw)
    except ValidationError as error:
        raise TaskError(f"{where}: {_problem(error)}: correct it") from error


def _problem(error: ValidationError) -> str:
    """In one line, whatever a key or a text holds."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return " ".join(first_problem(error, "the line").split())
    *parts, key = map(str, first["loc"])
    return f"{'.'.join(parts) or 'the line'}: unknown key {key!r}"


def read_annotations(path: Path) -> Annotations:
    """Reads and checks a whole file.  Raises TaskError for the first line that is wrong, names an image
    twice, or for a file without images."""
    digest, lines = hashlib.sha256(), list[Line]()
    for item in each_line(path, digest):
        if isinstance(item, TaskError):
            raise item
        lines.append(item)
    if not lines:
        raise TaskError(f"{path}: no line, so no image: write one line of JSON for each image")
    return Annotations(path, digest.hexdigest(), tuple(lines))


def each_line(path: Path, digest: Any) -> Iterator[Line | TaskError]:
    """The lines of a file in their order, or what is wrong with them; empty lines are passed over.

    digest: a hash that is fed the file's bytes.  Raises TaskError if the file cannot be read.
    """
    seen: dict[str, int] = {}
    offset = 0
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                digest.update(text)
                start, offset = offset, offset + len(text)
                if not text.strip():
                    continue
                try:
                    yield _line(text, number, start, path, seen)
                except TaskError as error:
                    yield error
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror or error}: restore the file") from error


def _line(text: bytes, number: int, start: int, path: Path, seen: dict[str, int]) -> Line:
    where = f"{path}:{number}"
    parsed = parse_line(text, where)
    if (first := seen.setdefault(parsed.image, number)) != number:
        raise TaskError(f"{where}: image {parsed.image!r} is also in line {first}: one line an image")
    unclear = sum(person.visible is None or person.visible_fraction is None for person in parsed.people)
    facts = (parsed.image, parsed.group, parsed.K, len(parsed.people))
    return Line(number, start, len(text), *facts, unclear)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return content
