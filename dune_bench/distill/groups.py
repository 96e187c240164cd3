"""Groups of images: what the paper trained on, and what a recipe declares.

A recipe's `groups` section, by group name:

    groups:
      dinov2: {sources: [{kind: folder, path: /data/imagenet19k, dataset: imagenet19k}]}
      mast3r: {sources: [{kind: tar, shards: ["/data/habitat/{00000..00099}.tar"], dataset: habitat}]}
      multihmr: {sources: [{kind: list, path: /data/bedlam.txt, root: /data/bedlam}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from dune_bench.distill.augment import Augmentation
from dune_bench.distill.broken import MAX_SHARE
from dune_bench.distill.mixing import parse_mix
from dune_bench.distill.shards import TarShards, shard_paths
from dune_bench.distill.sources import (
    SUFFIXES,
    ImageFolder,
    ImageList,
    ImageSource,
    MiniRoomsImages,
    check_length,
)
from dune_bench.errors import UsageError
from dune_bench.registry.cards import Card
from dune_bench.registry.suggest import did_you_mean

Nature = Literal["real", "rendered", "synthetic"]
GROUPS = ("dinov2", "mast3r", "multihmr")
"""The groups of the paper: generic images, 3D, people; each named after the teacher whose data it is."""


@dataclass(frozen=True)
class PaperDataset:
    """A data set that DUNE was trained on.  images: as published in the README's table.  loader_images: the
    number that the published loader insists on, where it is known to be another one."""

    name: str
    title: str
    group: str
    images: int
    nature: Nature
    loader_images: int | None = None

    @property
    def expected(self) -> tuple[int, ...]:
        """Numbers of images that count as complete."""
        return (self.images,) if self.loader_images is None else (self.images, self.loader_images)


PAPER_DATASETS: Mapping[str, PaperDataset] = {
    dataset.name: dataset
    for dataset in (
        PaperDataset("imagenet19k", "ImageNet-19K", "dinov2", 13_153_480, "real"),
        PaperDataset("mapillary", "Mapillary", "dinov2", 1_205_907, "real"),
        PaperDataset("gldv2", "Google Landmarks v2", "dinov2", 4_132_914, "real"),
        PaperDataset("habitat", "Habitat", "mast3r", 284_968, "rendered", loader_images=284_965),
        PaperDataset("arkitscenes", "ARKitScenes", "mast3r", 456_108, "rendered"),
        PaperDataset("blendedmvs", "Blended MVS", "mast3r", 98_937, "rendered"),
        PaperDataset("megadepth", "MegaDepth", "mast3r", 36_949, "real"),
        PaperDataset("scannetpp", "ScanNet++", "mast3r", 60_188, "rendered"),
        PaperDataset("co3dv2", "CO3D-v2", "mast3r", 185_100, "real"),
        PaperDataset("mapfree", "Map-free", "mast3r", 41_300, "real"),
        PaperDataset("wildrgb", "WildRGB", "mast3r", 224_400, "real"),
        PaperDataset("virtualkitti", "VirtualKITTI", "mast3r", 1_200, "synthetic"),
        PaperDataset("unreal4k", "Unreal4K", "mast3r", 14_386, "synthetic"),
        PaperDataset("tartanair", "TartanAir", "mast3r", 136_225, "real"),
        PaperDataset("dl3dv", "DL3DV", "mast3r", 208_800, "rendered"),
        PaperDataset("bedlam", "BEDLAM", "multihmr", 353_118, "synthetic", loader_images=353_116),
        PaperDataset("agora", "AGORA", "multihmr", 14_314, "synthetic"),
        PaperDataset("cuffs", "CUFFS", "multihmr", 54_944, "synthetic"),
        PaperDataset("ubody", "UBody", "multihmr", 54_234, "real"),
    )
}
"""Name -> data set.  Numbers and natures as in the table of naver/dune's README (TartanAir is called real
there); that its loaders want others for Habitat and BEDLAM is in this project's protocol notes."""


class SourceSection(Card):
    """What all sources have.

    name: for messages; default: the data set, or the name of the file or folder.  dataset: one of the
    paper's, whose number of images is then insisted on.  expected: the number of images that there must be;
    goes before that of `dataset`.
    """

    name: str | None = Field(default=None, pattern=r"^[\w.@+-]+$")
    dataset: str | None = None
    expected: PositiveInt | None = None

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in PAPER_DATASETS:
            raise ValueError(f"no data set {value!r}{did_you_mean(value, PAPER_DATASETS)}")
        return value

    @property
    def expected_lengths(self) -> tuple[int, ...]:
        """Numbers of images that are right; empty: any."""
        if self.expected is not None:
            return (self.expected,)
        return PAPER_DATASETS[self.dataset].expected if self.dataset is not None else ()

    @property
    def label(self) -> str | None:
        return self.name or self.dataset


class FolderSection(SourceSection):
    """All images below a folder.  suffixes: endings of file names that count."""

    kind: Literal["folder"]
    path: str
    suffixes: tuple[str, ...] = Field(default=SUFFIXES, min_length=1)

    def open(self, base: Path) -> ImageSource:
        return ImageFolder(_at(base, self.path), self.label, self.suffixes)


class ListSection(SourceSection):
    """A text file with one path a line.  root: what the paths are relative to; default: the list's folder."""

    kind: Literal["list"]
    path: str
    root: str | None = None

    def open(self, base: Path) -> ImageSource:
        root = None if self.root is None else _at(base, self.root)
        return ImageList(_at(base, self.path), root, self.label)


class TarSection(SourceSection):
    """Plain tar files.  shards: names, with `{000..099}` and `*`.  index: a folder for lists of members."""

    kind: Literal["tar"]
    shards: tuple[str, ...] = Field(min_length=1)
    suffixes: tuple[str, ...] = Field(default=SUFFIXES, min_length=1)
    index: str | None = None

    def open(self, base: Path) -> ImageSource:
        index = None if self.index is None else _at(base, self.index)
        return TarShards(shard_paths(self.shards, base), self.label, self.suffixes, index)


class MiniRoomsSection(SourceSection):
    """The data that ships.  root: a folder with another card.  unlabelled: more renders (only pictures)."""

    kind: Literal["minirooms"]
    version: str = "minirooms@1"
    split: Literal["train", "test"] = "train"
    root: str | None = None
    unlabelled: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.split == "test" and self.unlabelled is not None:
            raise ValueError("unlabelled renders are training images: leave them out of split test")
        return self

    def open(self, base: Path) -> ImageSource:
        root = None if self.root is None else _at(base, self.root)
        more = None if self.unlabelled is None else _at(base, self.unlabelled)
        return MiniRoomsImages(self.version, self.split, root, more, self.label)


AnySource = Annotated[
    FolderSection | ListSection | TarSection | MiniRoomsSection, Field(discriminator="kind")
]


class GroupSection(Card):
    """The sources of one group, in order."""

    sources: tuple[AnySource, ...] = Field(min_length=1)


class DataSection(Card):
    """What a recipe says of its images.

    groups: by name; `teacher_balanced` gives each the same share.  mix: see `mixing.parse_mix`.
    truncated: each batch of a process takes the same number of every group and is truncated, as DUNE's
    are; otherwise the odd images go around.  max_broken: share of all images that may be unreadable.
    """

    groups: dict[str, GroupSection] = Field(min_length=1)
    mix: str = "teacher_balanced"
    truncated: bool = False
    augmentation: Augmentation = Field(default_factory=Augmentation)
    max_broken: float = Field(default=MAX_SHARE, ge=0, lt=1)

    @field_validator("groups")
    @classmethod
    def _names(cls, value: dict[str, GroupSection]) -> dict[str, GroupSection]:
        for name, group in value.items():
            if not name.replace("_", "").isalnum() or name in ("teacher_balanced", "proportional", "only"):
                raise ValueError(f"{name!r} is no name for a group: use letters, digits and _")
            for source in group.sources:
                home = PAPER_DATASETS[source.dataset].group if source.dataset is not None else name
                if name in GROUPS and home != name:
                    raise ValueError(
                        f"the data set {source.dataset!r} is of the group {home!r}, not {name!r}"
                    )
        return value

    @model_validator(mode="after")
    def _mixable(self) -> Self:
        try:
            mix = parse_mix(self.mix)
        except UsageError as error:
            raise ValueError(str(error)) from error
        for name in mix.groups:
            if name not in self.groups:
                raise ValueError(f"mix: no group {name!r}{did_you_mean(name, self.groups)}")
        if self.truncated and mix.kind != "teacher_balanced":
            raise ValueError("truncated: only teacher_balanced mixes are truncated")
        return self


@dataclass(frozen=True)
class DataGroup:
    """Images of one group, source by source."""

    name: str
    sources: tuple[ImageSource, ...]
    ends: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", tuple(accumulate(len(source) for source in self.sources)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def locate(self, index: int) -> tuple[ImageSource, int]:
        """The source of an image, and its number there."""
        if index >= 0:
            start = 0
            for source, end in zip(self.sources, self.ends, strict=True):
                if index < end:
                    return source, index - start
                start = end
        raise IndexError(index)


def open_groups(
    groups: Mapping[str, GroupSection], base: Path, training: bool = True
) -> tuple[DataGroup, ...]:
    """Opens all sources and checks their lengths.

    base: what relative paths are relative to.  training: False for held-out images, which may be of a test
    split.  Raises UnavailableError for data that are not there; UsageError for a source that is empty, has
    another length than expected, is called as another one of its group, or is a test split to train on;
    TaskError for a damaged shard.
    """
    opened = []
    for name, group in groups.items():
        sources: list[ImageSource] = []
        for section in group.sources:
            if training and isinstance(section, MiniRoomsSection) and section.split == "test":
                raise UsageError(f"group {name}: the test split of {section.version} is not to be trained on")
            source = section.open(base)
            check_length(source, section.expected_lengths)
            if source.name in [other.name for other in sources]:
                raise UsageError(f"group {name}: two sources are called {source.name!r}: give one a `name`")
            sources.append(source)
        opened.append(DataGroup(name, tuple(sources)))
    return tuple(opened)


def _at(base: Path, path: str) -> Path:
    return base / Path(path).expanduser()
