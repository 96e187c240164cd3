"""`dune-bench distill`: train a student from teachers by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import check_folder

if TYPE_CHECKING:
    from dune_bench.distill.recipe import DistillRecipe, Evaluation
    from dune_bench.distill.train import Distilled


def _names(incomplete: str) -> list[str]:
    from dune_bench.registry.lookup import cards_root

    folder = cards_root() / "encoders" / "recipes"
    return [path.stem for path in sorted(folder.glob("*.yaml")) if path.stem.startswith(incomplete)]


def distill(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe that ships (smoke, dune_mini, dune_vitb14_336, ...) or a YAML file.",
            autocompletion=_names,
        ),
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Changes of it: training.steps=100, dropping.p=0."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/ID of the recipe.")
    ] = None,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="What the recipe's relative paths are relative to.")
    ] = Path(),
    unlabelled: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="More MiniRooms pictures: what `render --unlabelled` wrote."),
    ] = None,
    stored: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What `cache-teachers` wrote: no teacher is then loaded."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.")] = False,
) -> None:
    """Train a student from teachers; started again, it goes on where it was.

    On several GPUs: torchrun --nproc-per-node N -m dune_bench distill RECIPE.
    """
    from dune_bench.cli.progress import make_ui
    from dune_bench.distill.recipe import load_recipe

    loaded = load_recipe(recipe, changes or (), unlabelled)
    folder = out or Path("runs") / loaded.id
    check_folder(folder, "--out")
    # Torch's share of the start: after what can be wrong in the words.
    from dune_bench.distill.train import distill as train_student

    try:
        with make_ui() as ui, ui.phase(f"distil {loaded.id}", "steps") as phase:
            done = train_student(
                loaded,
                folder,
                base=data,
                device=device,
                offline=offline,
                progress=phase,
                inline=_run_here,
                stored=stored,
            )
    except KeyboardInterrupt as stop:
        if any(folder.glob("step-*")):
            raise
        engine = loaded.training.engine()
        first = min(engine.checkpoint_every, engine.steps)
        raise KeyboardInterrupt(f"nothing is saved before step {first}") from stop
    _say(loaded, done)


def _run_here(encoder: Path, asked: Evaluation, runs: Path) -> None:
    from dune_bench.run.execute import execute
    from dune_bench.run.request import RunRequest
    from dune_bench.run.ui import SilentUI

    request = RunRequest(
        encoders=(str(encoder),), tasks=asked.tasks, suite=asked.suite, limit=asked.limit, runs=runs
    )
    execute(request, SilentUI())


def _say(recipe: DistillRecipe, done: Distilled) -> None:
    """Losses, where the time went, and what to do next."""
    if not done.first:
        return
    width = max(len(teacher.name) for teacher in recipe.teachers)
    for teacher in recipe.teachers:
        first, last = done.change(teacher.name)
        typer.echo(f"{teacher.name:<{width}}  loss {first:.4f} -> {last:.4f}")
    shares = done.record.shares()
    typer.echo("time: " + ", ".join(f"{phase} {share:.0%}" for phase, share in shares.items()))
    seconds = sum(sum(line.seconds.values()) for line in done.record.lines)
    typer.echo(f"{done.record.steps * done.batch_size / seconds:.1f} images a second in the steps")
    if done.broken is not None:
        typer.echo(done.broken)
    typer.echo(f"written      {done.folder}/encoder.yaml")
    if done.checkpoint is not None:
        typer.echo(f"written      {done.checkpoint}")
    typer.echo(f"next         dune-bench run --encoder {done.folder}")
