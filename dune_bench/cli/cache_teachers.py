"""`dune-bench cache-teachers`: the teachers' tokens of a recipe, stored."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dune_bench.cli.options import IncludeOption, check_folder

if TYPE_CHECKING:
    from dune_bench.distill.store_writer import Written


class TokenFormat(StrEnum):
    """How patch tokens are stored.  auto: int8 where its measured error is small."""

    auto = "auto"
    float16 = "float16"
    int8 = "int8"


class ImagesIn(StrEnum):
    """Where training finds the student's input.  remade: made again from the pictures, by the same seed."""

    remade = "remade"
    stored = "stored"


def cache_teachers(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe that ships (dune_mini, ...) or a YAML file.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes of it, such as student.image_size=224."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/teachers/ID of the recipe.")
    ] = None,
    crops: Annotated[int, typer.Option(min=1, metavar="K", help="Seeded crops of each image.")] = 1,
    tokens: Annotated[TokenFormat, typer.Option(help="How tokens are stored.")] = TokenFormat.auto,
    images: Annotated[
        ImagesIn, typer.Option(help="Training makes crops again from the pictures, or finds them here.")
    ] = ImagesIn.remade,
    shard_images: Annotated[int, typer.Option(min=1, metavar="N", help="Images of a shard.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Crops at once.")] = 16,
    check: Annotated[
        bool, typer.Option("--check", help="Also read what is there, and make damaged shards again.")
    ] = False,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="What the recipe's relative paths are relative to.")
    ] = Path(),
    unlabelled: Annotated[
        str | None, typer.Option(metavar="DIR", help="More MiniRooms pictures, as of distill.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    include: IncludeOption = None,
) -> None:
    """Store what a recipe's teachers say of K crops of every image: training then needs no teacher.

    Started again, it goes on where it was.  Sites can share the folder in place of images: with
    --images stored, it holds the crops, too.
    """
    from dune_bench.cli.progress import make_ui
    from dune_bench.distill.recipe import load_recipe
    from dune_bench.registry.lookup import load_registry

    loaded = load_recipe(recipe, changes or (), unlabelled)
    registry = load_registry(tuple(include or ()))
    folder = out or Path("runs") / "teachers" / loaded.id
    check_folder(folder, "--out")
    from dune_bench.distill.store_writer import StoreOptions, write_store

    kinds: dict[str, Any] = {"tokens": tokens.value, "images": images.value}
    options = StoreOptions(crops, shard_images=shard_images, batch=batch_size, check=check, **kinds)
    with make_ui() as ui, ui.phase(f"store teachers of {loaded.id}", "images") as phase:
        done = write_store(
            loaded,
            folder,
            options,
            base=data,
            device=device,
            offline=offline,
            progress=phase,
            registry=registry,
        )
    _say(done, folder)


def _say(done: Written, folder: Path) -> None:
    there = done.manifest
    count = f"{there.total:,} images × {there.crops} crop(s), {there.grid}×{there.grid} tokens"
    typer.echo(f"stored       {count}; {done.made} of {len(there.shards)} shards made now")
    for teacher in there.teachers:
        size = done.bytes_per_image(teacher.name)
        typer.echo(
            f"teacher      {teacher.name}: {teacher.dtype}, {size:,.0f} bytes an image, "
            f"loss by storing {teacher.error:.1e} (licence: {teacher.licence})"
        )
    typer.echo(f"crops        {there.images}, {done.bytes_per_image('crops'):,.0f} bytes an image")
    if done.broken is not None:
        typer.echo(done.broken)
    typer.echo(f"written      {folder}/manifest.json ({there.bytes / 1e6:,.1f} MB of shards)")
