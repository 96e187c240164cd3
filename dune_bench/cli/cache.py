"""`dune-bench cache`: what the cache holds, whether it is sound, and making room."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.errors import ExitCode

if TYPE_CHECKING:
    from dune_bench.run.cache import FeatureCache

DAY_S = 86_400.0

cache_app = typer.Typer(
    no_args_is_help=True,
    short_help="List, check or shrink the cache.",
    help="The cache holds features and weights; all of it can be made again, results never live in it.",
)


@cache_app.command("ls", short_help="List what the cache holds.")
def list_entries() -> None:
    """List weights and features in the cache, with sizes and last use."""
    from dune_bench.registry.paths import cache_root, features_cache
    from dune_bench.run.cache import budget, human

    typer.echo(f"cache: {cache_root()}")
    typer.echo("weights")
    for folder in weight_folders():
        typer.echo(f"  {folder.name}  {human(size_of(folder))}")
    cache = feature_cache()
    entries = cache.entries()
    typer.echo("features, least recently used first")
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        typer.echo(f"  {entry.path.name[:12]}  {human(entry.size):>9}  last used {used}")
    held, allowed = sum(entry.size for entry in entries), budget(features_cache(), entries)
    typer.echo(f"features hold {human(held)} of at most {human(allowed)} (DUNE_BENCH_CACHE_BYTES)")


@cache_app.command("verify", short_help="Check every file of the cache.")
def verify() -> None:
    """Check every file of the cache; exit 1 and name those that are damaged."""
    damaged = list(find_damaged())
    for path, reason in damaged:
        typer.echo(f"error: {path}: {reason}", err=True)
    if damaged:
        typer.echo("remove them with `dune-bench cache prune`; a run makes features anew", err=True)
        raise typer.Exit(ExitCode.FAILED)
    typer.echo("cache: ok")


@cache_app.command("prune", short_help="Remove what is damaged, old or too much.")
def prune(
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", min=0, metavar="DAYS", help="Also features not used for so many days."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also all features, whatever their age.")] = False,
    weights: Annotated[bool, typer.Option("--weights", help="Also all weights in the cache.")] = False,
) -> None:
    """Remove damaged files, and features beyond the byte budget, least recently used first.

    What a run is writing stays.
    """
    from dune_bench.run.cache import chosen_budget, human
    from dune_bench.run.chunks import remove_entry

    chosen_budget()  # an unreadable one is refused before anything is removed
    gone: list[tuple[Path, int]] = []
    for path, _ in list(find_damaged()):
        gone.append((path, size_of(path)))
        path.unlink(missing_ok=True)
    cache = feature_cache()
    limit = 0.0 if everything else (older_than if older_than is not None else float("inf"))
    for entry in cache.entries():
        if time.time() - entry.used < limit * DAY_S:
            continue
        if entry.busy:
            typer.echo(f"kept {entry.path}: a run is writing to it")
        else:
            remove_entry(entry.path)
            gone.append((entry.path, entry.size))
    gone += [(entry.path, entry.size) for entry in cache.make_room(0, keep=())]
    for folder in weight_folders() if weights else []:
        gone.append((folder, size_of(folder)))
        shutil.rmtree(folder)
    for path, size in gone:
        typer.echo(f"removed {path} ({human(size)})")
    typer.echo(f"freed {human(sum(size for _, size in gone))}")


def feature_cache() -> FeatureCache:
    """The features of this machine; warnings go to stderr."""
    from dune_bench.registry.paths import features_cache
    from dune_bench.run.cache import FeatureCache

    return FeatureCache(features_cache(), lambda text: typer.echo(f"warning: {text}", err=True))


def weight_folders() -> list[Path]:
    """One folder per encoder whose weights are in the cache."""
    from dune_bench.registry.paths import weights_cache

    root = weights_cache()
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def find_damaged() -> Iterator[tuple[Path, str]]:
    """Every file of the cache that is not what was written, and why; none that is being written."""
    from dune_bench.registry.paths import features_cache
    from dune_bench.run.chunks import DamagedChunkError, chunk_files, read_header, verify_checksum

    folders = sorted(features_cache().glob("??/*"))
    for path in (file for folder in folders for file in chunk_files(folder)):
        try:
            read_header(path)
            verify_checksum(path)
        except FileNotFoundError:  # a run evicted it meanwhile
            continue
        except DamagedChunkError as error:
            yield path, str(error).removeprefix(f"{path}: ")
    yield from _damaged_weights()


def _damaged_weights() -> Iterator[tuple[Path, str]]:
    from safetensors import SafetensorError, safe_open

    for folder in weight_folders():
        for path in sorted(folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="np"):
                    pass
            except SafetensorError as error:
                yield path, " ".join(str(error).split())
