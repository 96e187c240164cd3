"""`smplx-people@1`: people annotated with SMPL-X in a folder of the user's own; docs/data/smplx-people.md.

`ROOT/SPLIT/annotations.jsonl` beside its images.  Nothing ships and nothing is copied; key points, heights
and, where nobody says it, visibility come from the licensed body model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from dune_bench.data.base import Dataset, Lazy, LazyItem
from dune_bench.data.digests import Digests, ImageFacts
from dune_bench.data.images import decode_image
from dune_bench.data.samples import HumanSample, ImageRef, Sample
from dune_bench.data.smplx_annotations import NAME, Annotations, Line, each_line, read_annotations, read_line
from dune_bench.errors import TaskError, UnavailableError, UsageError
from dune_bench.geometry.cameras import Camera
from dune_bench.registry.cards import fingerprint
from dune_bench.registry.places import record_place, recorded_place
from dune_bench.registry.suggest import did_you_mean

LOADER_VERSION = 1
"""Part of the fingerprint: bumped when the same files give other samples."""
PAGE = "docs/data/smplx-people.md"


class SmplxPeople(Dataset):
    """root: the folder with the splits; default: the one that `prepare` recorded.

    The splits are its subfolders that hold an annotation file.  Raises UnavailableError if there is none.
    """

    description = "photographs or renderings of people in a folder of the user's own, annotated with SMPL-X"
    licence = "the user's own data: theirs to know; SMPL-X: https://smpl-x.is.tue.mpg.de/modellicense.html"

    def __init__(self, name: str = "smplx-people@1", root: Path | None = None) -> None:
        self.name = name
        place = recorded_place(name) if root is None else None
        found = place.root if place is not None else root
        if found is None:
            raise UnavailableError(
                f"{name} is your own folder: `dune-bench prepare {name} --root DIR`, or --data DIR, with "
                f"DIR/train/{NAME} and DIR/test/{NAME}; {PAGE} has the format"
            )
        self.root: Path = found
        self.splits = tuple(sorted(path.parent.name for path in found.glob(f"*/{NAME}")))
        if not self.splits:
            raise UnavailableError(
                f"{name}: no SPLIT/{NAME} in {found}: name the folder that holds train/ and test/ ({PAGE})"
            )
        self._index: dict[str, _Split] = {}

    @cached_property
    def body_file(self) -> Path:
        """The licensed neutral SMPL-X file.  Raises UnavailableError saying how to get it."""
        from dune_bench.models.smplx_files import neutral_file

        return neutral_file()

    @cached_property
    def _body_digest(self) -> str:
        from dune_bench.models.smplx_files import file_digest

        return file_digest(self.body_file)

    def fingerprint(self, split: str) -> str:
        """sha256 (hex) over the annotation file, every image's bytes, and the body model's file, which
        makes key points of parameters.  Raises as `samples`."""
        found = self._opened(split)
        images = hashlib.sha256()
        for line, facts in zip(found.annotations.lines, found.facts, strict=True):
            images.update(f"{line.image}\0{facts.sha256}\n".encode())
        parts = {"annotations": found.annotations.sha256, "images": images.hexdigest()}
        return fingerprint(
            {"name": self.name, "split": split, "loader": LOADER_VERSION, "body": self._body_digest, **parts}
        )

    def samples(self, kind: type[Sample], split: str) -> Lazy[Sample]:
        """People in the file's order; ids are `split/path of the image`.  Decodes no image.

        Raises UsageError for another kind or split, TaskError naming file and line of what is wrong,
        UnavailableError without the body model's file.
        """
        if kind is not HumanSample:
            raise UsageError(f"{self.name}: no samples of kind {kind.__name__}; it has HumanSample")
        found, body = self._opened(split), self.body_file
        path = found.annotations.path
        items = [
            LazyItem(
                id=f"{split}/{line.image}",
                group=line.group,
                images=(ref := _image_ref(path, split, line, facts),),
                load=partial(_sample, path, line, ref, body),
            )
            for line, facts in zip(found.annotations.lines, found.facts, strict=True)
        ]
        return Lazy(cast("list[LazyItem[Sample]]", items))

    def verify(self) -> list[str]:
        """Checks every line, decodes every image, and compares its bytes with what is remembered; a line per
        problem.  Needs no body model."""
        problems = [problem for split in self.splits for problem in self._split_problems(split)]
        return problems or self._overlaps()

    def prepare(self, root: Path | None = None, accept_license: bool = False) -> str:
        """Reads everything once, so that later runs start fast, and records the folder.

        Raises TaskError naming what is wrong; UnavailableError if all is well but the body model.
        """
        opened = {split: self._opened(split) for split in self.splits}
        if overlaps := self._overlaps():
            more = f" (and {len(overlaps) - 1} more)" if len(overlaps) > 1 else ""
            raise TaskError(f"{self.name}: {overlaps[0]}{more}")
        record_place(self.name, self.root, {})
        try:
            body = self.body_file
        except UnavailableError as error:
            raise UnavailableError(f"{self.name}: {self.root} is in order and recorded; {error}") from error
        counts = [f"{split} {found.summary()}" for split, found in opened.items()]
        return f"{self.name}: ready in {self.root.absolute()} ({'; '.join(counts)}); body model {body}"

    def _opened(self, split: str) -> _Split:
        if split not in self._index:
            if split not in self.splits:
                raise UsageError(f"{self.name} has no split {split!r}{did_you_mean(split, self.splits)}")
            annotations = read_annotations(self.root / split / NAME)
            path = annotations.path
            digests = Digests(path.parent)
            try:
                facts = tuple(_facts(path, line, digests) for line in annotations.lines)
            finally:
                # What was hashed before something was wrong need not be hashed again.
                digests.save()
            self._index[split] = _Split(annotations, facts)
        return self._index[split]

    def _split_problems(self, split: str) -> Iterator[str]:
        path = self.root / split / NAME
        digests = Digests(path.parent)
        try:
            for item in each_line(path, hashlib.sha256()):
                if isinstance(item, Line):
                    yield from _image_problems(path, item, digests)
                else:
                    yield str(item)
        except TaskError as error:
            yield str(error)
        digests.save()

    def _overlaps(self) -> list[str]:
        """Pictures and groups of two splits: a test that shares them with the training is none."""
        problems, groups, images = [], dict[str, str](), dict[str, str]()
        for split in self.splits:
            found = self._opened(split)
            told = set[str]()
            for line, facts in zip(found.annotations.lines, found.facts, strict=True):
                where = f"{found.annotations.path}:{line.number}"
                if (other := images.setdefault(facts.sha256, split)) != split:
                    problems.append(f"{where}: the same picture is in {other}: keep it in one split")
                if (other := groups.setdefault(line.group, split)) != split and line.group not in told:
                    told.add(line.group)
                    problems.append(f"{where}: group {line.group!r} is also in {other}: keep it in one split")
        return problems


@dataclass(frozen=True)
class _Split:
    """facts: of the lines' images, in their order."""

    annotations: Annotations
    facts: tuple[ImageFacts, ...]

    def summary(self) -> str:
        """Counts, and for how many people visibility is a guess."""
        lines = self.annotations.lines
        people, unclear = sum(line.people for line in lines), sum(line.unclear for line in lines)
        text = f"{len(lines)} images, {people} people in {len({line.group for line in lines})} groups"
        if unclear:
            text += f", {unclear} without full visibility: what is in the image counts as visible"
        return text


def _facts(path: Path, line: Line, digests: Digests, fresh: bool = False) -> ImageFacts:
    """Facts of a line's image.  Raises TaskError naming the line for none, or a camera of another size."""
    try:
        facts = digests.facts(line.image, fresh)
        Camera(line.K, facts.size)
    except TaskError as error:
        raise TaskError(f"{path}:{line.number}: {error}") from error
    return facts


def _image_problems(path: Path, line: Line, digests: Digests) -> Iterator[str]:
    where = f"{path}:{line.number}"
    try:
        remembered = digests.remembered(line.image)
        facts = _facts(path, line, digests, fresh=True)
        if remembered is not None and remembered != facts:
            yield f"{where}: {line.image} changed but its time of change did not: check again to accept it"
        _read(path.parent / line.image, facts.size)
    except TaskError as error:
        # `_facts` names the line already.
        yield str(error) if str(error).startswith(where) else f"{where}: {error}"


def _image_ref(path: Path, split: str, line: Line, facts: ImageFacts) -> ImageRef:
    read = partial(_read, path.parent / line.image, facts.size)
    return ImageRef(f"{split}/{line.image}", facts.sha256, facts.size, read)


def _read(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror or error}: restore the image") from error
    pixels = decode_image(data, str(path))
    if pixels.shape[:2] != size:
        raise TaskError(f"{path}: {pixels.shape[:2]} pixels, not {size}: the image changed: run again")
    return pixels


def _sample(path: Path, line: Line, image: ImageRef, body: Path) -> HumanSample:
    """One image's people.  Raises TaskError naming file and line if the file changed."""
    from dune_bench.data.smplx_bodies import body_model, people_of

    annotated, model = read_line(path, line), body_model(body)
    people = people_of(model, annotated.people, line.K, image.size, image.id)
    return HumanSample(image.id, line.group, image, line.K, people, model.keypoint_names)
