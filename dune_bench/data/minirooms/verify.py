"""What is wrong with a MiniRooms shard: `prepare minirooms --check`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dune_bench.data.minirooms.card import SplitCard, sha256_of
from dune_bench.data.minirooms.index import Index, Room, read_index
from dune_bench.data.minirooms.shards import member_names, read_image, read_member
from dune_bench.data.minirooms.views import RoomFiles, human_sample, posed_view, seg_sample
from dune_bench.errors import BenchError


def kinds_of(index: Index) -> tuple[str, ...]:
    """Members of each view."""
    return ("jpg", "objects.png", "depth") if index.depth else ("jpg", "objects.png")


def split_problems(shard: Path, card: SplitCard, name: str, split: str) -> list[str]:
    """Problems of one shard, a line each: its sha256, its index, its members, every member's content."""
    if not shard.is_file():
        return [f"{shard}: missing; reinstall dune-bench or correct the root"]
    problems = []
    digest = sha256_of(shard)
    if digest != card.sha256:
        problems.append(f"{shard}: sha256 is {digest}, the card says {card.sha256}; get the shard again")
    try:
        index = read_index(shard)
        names = member_names(shard)
    except BenchError as error:
        return [*problems, str(error)]
    if (index.name, index.split) != (name, split):
        problems.append(f"{shard}: the index is of {index.name} {index.split}, expected {name} {split}")
    problems += _counts(shard, index, card)
    kinds = kinds_of(index)
    wanted = {f"{r.id}/{v.id}.{kind}" for r in index.rooms for v in r.views for kind in kinds}
    wanted.add("index.json")
    problems += [f"{shard}: member {m!r} is missing" for m in sorted(wanted - set(names))]
    problems += [f"{shard}: member {m!r} is in no room" for m in sorted(set(names) - wanted)]
    for room in index.rooms:
        problems += _room_problems(RoomFiles(shard, split, index, room), set(names))
    return problems


def _counts(shard: Path, index: Index, card: SplitCard) -> list[str]:
    found = {
        "rooms": len(index.rooms),
        "views": sum(len(room.views) for room in index.rooms),
        "people": sum(len(room.people) for room in index.rooms),
    }
    return [
        f"{shard}: {count} {what}, the card says {getattr(card, what)}"
        for what, count in found.items()
        if count != getattr(card, what)
    ]


def _room_problems(files: RoomFiles, names: set[str]) -> list[str]:
    """Decodes every member of a room once."""
    problems = []
    room: Room = files.room
    for view, facts in enumerate(room.views):
        if not {files.member(view, kind) for kind in kinds_of(files.index)} <= names:
            continue
        try:
            member = files.member(view, "jpg")
            digest = hashlib.sha256(read_member(files.shard, member)).hexdigest()
            if digest != facts.image_sha256:
                problems.append(f"{files.shard}: member {member!r}: sha256 differs from the index")
            read_image(files.shard, member, files.index.image_size)
            seg_sample(files, view)
            if files.index.depth:
                posed_view(files, view)
            human_sample(files, view)
        except BenchError as error:
            problems.append(str(error))
    return problems
