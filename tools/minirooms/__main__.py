"""python -m tools.minirooms render | pack | check: makes the MiniRooms data set from a seed."""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from pathlib import Path

from dune_bench.errors import BenchError, ExitCode, UsageError
from tools.minirooms.cameras import IMAGE_SIZE
from tools.minirooms.farm import render_rooms
from tools.minirooms.generate import GENERATOR_VERSION, PEOPLE, Recipe, RoomJob

_PEOPLE_SIZE = 336
"""What the human protocols look at: smaller files, more people."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.minirooms", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    render = verbs.add_parser("render", help="render rooms into OUT/rooms; resumes")
    render.add_argument("--name", help="default: minirooms@1, with --people minirooms-people@1")
    render.add_argument("--seed", type=int, default=1)
    render.add_argument("--train", type=int, default=70, help="training rooms")
    render.add_argument("--test", type=int, default=30, help="test rooms")
    only = render.add_mutually_exclusive_group()
    only.add_argument("--rooms", type=int, help="this many training rooms and no test rooms")
    only.add_argument("--people", type=int, help="this many rooms full of people and no others")
    render.add_argument("--size", type=int, help="pixels a side, a multiple of 2; default: 448, people 336")
    render.add_argument("--unlabelled", action="store_true", help="pictures only, for distillation")
    render.add_argument("--furniture", type=Path, required=True, help="folder of the .sh3f files")
    render.add_argument("--out", type=Path, required=True)
    render.add_argument("--workers", type=int, default=1, help="processes")
    pack = verbs.add_parser("pack", help="pack OUT/rooms into shards")
    pack.add_argument("--out", type=Path, required=True)
    pack.add_argument("--furniture", type=Path, required=True)
    pack.add_argument("--shards", type=Path, required=True, help="where the .zip files go")
    pack.add_argument("--attribution", type=Path, required=True, help="the ATTRIBUTION.md to write")
    pack.add_argument("--card", type=Path, help="the dataset card to write, in a folder above the shards")
    check = verbs.add_parser("check", help="measure packed shards; prints tables")
    check.add_argument("--shards", type=Path, required=True)
    check.add_argument("--markdown", action="store_true", help="print the tables for a page")
    return parser


def _recipe(args: argparse.Namespace) -> Recipe:
    """Refuses to mix rooms of two recipes in one folder."""
    people = args.people is not None
    args.name = args.name or ("minirooms-people@1" if people else "minirooms@1")
    args.size = args.size or (_PEOPLE_SIZE if people else IMAGE_SIZE)
    if args.size < 64 or args.size % 2:
        raise UsageError(f"--size {args.size}: must be even and at least 64")
    wanted = {
        "name": args.name,
        "seed": args.seed,
        "size": args.size,
        "labelled": not args.unlabelled,
        "generator_version": GENERATOR_VERSION,
    }
    path = args.out / "recipe.json"
    if path.is_file() and (found := json.loads(path.read_text())) != wanted:
        raise UsageError(f"{path}: made with {found}, not {wanted}; use another --out")
    args.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted))
    return Recipe(args.seed, args.size, not args.unlabelled, args.furniture)


def _render(args: argparse.Namespace) -> None:
    for option in ("workers", "people", "rooms"):
        if (value := getattr(args, option)) is not None and value < 1:
            raise UsageError(f"--{option} {value}: must be at least 1")
    recipe = _recipe(args)
    counts = {"train": args.train, "test": args.test}
    if args.rooms is not None:
        counts = {"train": args.rooms}
    if args.people is not None:
        counts = {PEOPLE: args.people}
    jobs = [RoomJob(split, n) for split, count in counts.items() for n in range(count)]
    render_rooms(recipe, jobs, args.out / "rooms", args.workers)


def _pack(args: argparse.Namespace) -> None:
    from dune_bench.data.minirooms.card import write_card
    from tools.minirooms.attribution import attribution
    from tools.minirooms.catalogue import load_catalogue
    from tools.minirooms.pack import furniture_models, load_splits, pack, unseen_shares

    stated = args.out / "recipe.json"
    if not stated.is_file():
        raise UsageError(
            f"{stated}: not found; run `python -m tools.minirooms render --out {args.out}` first"
        )
    recipe = json.loads(stated.read_text())
    work = args.out / "rooms"
    paths = pack(recipe, work, args.shards)
    rooms = load_splits(work)
    used = furniture_models([room for split in rooms.values() for room in split])
    args.attribution.write_text(attribution(recipe["name"], load_catalogue(args.furniture), used))
    if args.card is not None:
        write_card(args.shards.resolve(), args.card.resolve(), args.attribution.name)
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    if "test" in rooms:
        for label, (unseen, total) in unseen_shares(rooms["test"], furniture_models(rooms["train"])).items():
            print(f"{label}: {unseen} of {total} test models are not in training rooms")


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; a known error is one line and its exit code."""
    args = _parser().parse_args(argv)
    try:
        if args.verb == "render":
            _render(args)
        elif args.verb == "pack":
            _pack(args)
        else:
            from tools.minirooms.check import check_shards
            from tools.minirooms.check_people import check_people

            people = (args.shards / f"{PEOPLE}.zip").is_file()
            return (check_people if people else check_shards)(args.shards, args.markdown)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except zipfile.BadZipFile as error:
        print(f"error: {args.shards}: a shard is damaged ({error}); pack it again", file=sys.stderr)
        return int(ExitCode.FAILED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
