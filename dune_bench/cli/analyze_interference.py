"""`dune-bench analyze interference`: how the teachers of a student get along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import IncludeOption, RunsOption, check_folder, joined, parse_list

if TYPE_CHECKING:
    from dune_bench.report.analysis_interference import Interference


def interference(
    students: Annotated[
        list[Path] | None,
        typer.Argument(metavar="STUDENT_FOLDER...", help="Folders that dune-bench distill wrote."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEACHER=ENCODER",
            help="A student trained without a teacher: its folder, or its name in results. May be repeated.",
        ),
    ] = None,
    full: Annotated[
        str | None,
        typer.Option(metavar="ENCODER", help="The student of all teachers; default: the first folder."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", metavar="NAMES", help="Tasks of --without; default: all in results."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=DIR", help="Held-out images of a group, or of another domain. May be repeated."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Images of each domain.")] = 32,
    batches: Annotated[int, typer.Option(min=1, metavar="N", help="Batches of the gradients.")] = 8,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images at once.")] = 8,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="What the recipe's relative paths are relative to.")
    ] = Path(),
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write; default: panels/STUDENT/interference in --runs."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
    include: IncludeOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Show how a student's teachers get along, and which task each helps or hurts.

    For each folder: its losses by teacher and domain on held-out images, and the cosines of the teachers'
    gradients by block of the encoder.  With --without: what each teacher does to each task, from results
    in --runs.  Prints tables; writes them with heat maps and CSV to --out.
    """
    from dune_bench.api import own_results
    from dune_bench.errors import UsageError
    from dune_bench.registry.lookup import load_registry
    from dune_bench.report.analysis_interference import (
        Interference,
        influences_of,
        merged,
        to_markdown,
        write_interference,
    )
    from dune_bench.results.store import safe_name

    folders = tuple(students or ())
    left_out = _pairs(without, "--without", "TEACHER=ENCODER, such as mast3r_vitl16=runs/no_mast3r")
    reference = full or (str(folders[0]) if folders else None)
    if reference is None:
        raise UsageError("name a student's folder, or --full and --without for results alone")
    if full is not None and not left_out:
        raise UsageError("--full goes with --without TEACHER=ENCODER")
    if tasks and not left_out:
        raise UsageError("--tasks goes with --without TEACHER=ENCODER: tasks are compared in results")
    check_teachers(Path(reference), left_out)
    pictures = _pairs(images, "--images", "GROUP=DIR, such as rooms=photos/rooms")
    for folder in folders:
        check_finished(folder)
    place = out or runs / "panels" / safe_name(Path(reference).name) / "interference"
    check_folder(place, "--out")
    registry = load_registry(tuple(include or ()))
    parts: list[Interference] = []
    if left_out:
        chosen = parse_list(joined(tasks) or "", "--tasks") if tasks else ()
        others = {teacher: own_results(name, registry) for teacher, name in left_out.items()}
        whole = own_results(reference, registry)
        influences, notes = influences_of(whole, others, runs, registry, chosen)
        parts.append(Interference(influences=influences, full=reference, notes=notes))
    if folders:
        parts += _measured(
            folders,
            {name: Path(folder) for name, folder in pictures.items()},
            (limit, batches, batch_size),
            data,
            device,
            offline,
            tuple(include or ()),
        )
    analysis = merged(parts)
    typer.echo(to_markdown(analysis), nl=False)
    for path in write_interference(analysis, place):
        typer.echo(f"written: {path}", err=True)


def _measured(
    folders: tuple[Path, ...],
    pictures: dict[str, Path],
    numbers: tuple[int, int, int],
    data: Path,
    device: str,
    offline: bool,
    include: tuple[Path, ...],
) -> list[Interference]:
    """Losses and gradients of each folder's student."""
    from dune_bench.cli.progress import make_ui
    from dune_bench.distill.interference import InterferenceOptions, domains_of, interference, load_trained
    from dune_bench.registry.lookup import load_registry
    from dune_bench.report.analysis_interference import Interference

    found = []
    options = InterferenceOptions(*numbers)
    names = [folder.resolve().name for folder in folders]
    with make_ui() as ui:
        for folder, name in zip(folders, names, strict=True):
            label = name if names.count(name) == 1 else str(folder)
            trained = load_trained(folder, device=device, offline=offline, registry=load_registry(include))
            domains = domains_of(trained.recipe, data, pictures)
            with ui.phase(f"interference in {label}", "parts") as phase:
                found.append(Interference(*interference(label, trained, domains, options, phase)))
    return found


def check_finished(folder: Path) -> None:
    """Raises UsageError for what is no folder of a finished training."""
    from dune_bench.errors import UsageError

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder: name the folder of a dune-bench distill")
    for file in ("recipe.yaml", "encoder.yaml"):
        if not (folder / file).is_file():
            raise UsageError(f"{folder}: holds no finished training (no {file})")


def check_teachers(student: Path, left_out: Mapping[str, str]) -> None:
    """Raises UsageError for a teacher that the recipe in the student's folder, if there is one, has not."""
    from dune_bench.errors import UsageError
    from dune_bench.registry.cards import read_mapping
    from dune_bench.registry.suggest import did_you_mean

    recipe = student / "recipe.yaml"
    if not left_out or not recipe.is_file():
        return
    listed = read_mapping(recipe).get("teachers")
    entries = listed if isinstance(listed, list) else []
    known = [str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry]
    for teacher in left_out:
        if known and teacher not in known:
            raise UsageError(f"--without: {student} has no teacher {teacher!r}{did_you_mean(teacher, known)}")


def _pairs(given: list[str] | None, option: str, expected: str) -> dict[str, str]:
    """`a=b` -> {"a": "b"}.  Raises UsageError, also for a name that stands twice."""
    from dune_bench.errors import UsageError

    found: dict[str, str] = {}
    for text in given or ():
        name, _, value = text.partition("=")
        if not name or not value:
            raise UsageError(f"{option} {text}: expected {expected}")
        if name in found:
            raise UsageError(f"{option} {text}: {name} stands twice")
        found[name] = value
    return found
