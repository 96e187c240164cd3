"""How much faster a distillation's step is with stored teacher tokens than with live teachers.

    python benchmarks/stored_teachers.py [RECIPE] [KEY=VALUE ...] [--steps 3] [--images stored|remade]
    python benchmarks/stored_teachers.py dune_mini training.batch_size=8
    python benchmarks/stored_teachers.py dune_vitb14_336 training.batch_size=3 --random

The recipe's own student, teachers, losses and optimiser, on some images of its data.  Both kinds of steps
start from the same weights, read their data in this process, and take turns, so that a busy machine slows
both.  --random: the teachers' weights are random, and MiniRooms stands for every group: the time of DUNE's
own teachers without their weights and data.  Also printed: what a stored image costs, and what storing its
tokens changes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from dune_bench.distill.batch import DistillBatch
from dune_bench.distill.data import DistillData
from dune_bench.distill.groups import DataGroup, open_groups
from dune_bench.distill.objective import Teaches
from dune_bench.distill.recipe import DistillRecipe, load_recipe
from dune_bench.distill.sources import ImageSource
from dune_bench.distill.store_writer import StoreOptions, write_store
from dune_bench.distill.stored import StoredData
from dune_bench.distill.teachers import load_teachers
from dune_bench.distill.train import first_student, make_objective
from dune_bench.engine.data import Pick
from dune_bench.engine.processes import Processes
from dune_bench.engine.step import StepContext

GOAL = 2.5


class First:
    """The first images of a source."""

    def __init__(self, source: ImageSource, count: int) -> None:
        self._source, self._count, self.name = source, min(count, len(source)), source.name

    def __len__(self) -> int:
        return self._count

    def describe(self, index: int) -> str:
        return self._source.describe(index)

    def read(self, index: int) -> object:
        return self._source.read(index)


def stepper(
    recipe: DistillRecipe, teachers: Sequence[Teaches], groups: Mapping[str, int]
) -> Callable[[DistillBatch, int], float]:
    """Forward, backward, clipping and AdamW on a batch; returns the loss."""
    student = first_student(recipe, teachers)
    objective = make_objective(recipe, teachers, tuple(groups), Processes(0, 1, torch.device("cpu")))
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)

    def step(batch: DistillBatch, number: int) -> float:
        context = StepContext(number, 0.5, torch.Generator().manual_seed(number))
        terms = [t for t in objective(student, batch, context).values() if t.weight]
        loss = torch.stack([t.total / torch.as_tensor(t.count).clamp(min=1) for t in terms]).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        return float(loss.detach())

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", nargs="?", default="dune_mini")
    parser.add_argument("changes", nargs="*")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--images", choices=("stored", "remade"), default="remade")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    changes = ["training.workers=0", *args.changes]
    if args.random:
        plain = load_recipe(args.recipe)
        rooms = "{sources: [{kind: minirooms}]}"
        changes += [f"teachers.{n}.weights=random" for n in range(len(plain.teachers))]
        changes += [f"data.groups.{group}={rooms}" for group in plain.data.groups]
    recipe = load_recipe(args.recipe, changes)
    size = recipe.training.batch_size
    opened = open_groups(recipe.data.groups, Path())
    groups = [DataGroup(g.name, (First(g.sources[0], -(-size // len(opened))),)) for g in opened]  # type: ignore[arg-type]
    teachers = load_teachers(recipe.teachers, device="cpu")
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        options = StoreOptions(crops=1, images=args.images, batch=min(16, size))
        done = write_store(recipe, Path(name), options, device="cpu", teachers=teachers, groups=groups)
        seconds = time.perf_counter() - start
        total = done.manifest.total
        print(f"{recipe.id}: {recipe.student.image_size} px, batch {size}, {args.threads} thread(s)")
        print(
            f"stored {total} images in {seconds:.1f} s, {done.manifest.bytes / total / 1e3:,.1f} kB an image:"
        )
        for entry in done.manifest.teachers:
            print(
                f"  {entry.name:<24} {entry.dtype:<8} {done.bytes_per_image(entry.name) / 1e3:8,.1f} kB, "
                f"loss by storing {entry.error:.1e}"
            )
        print(f"  {'crops':<24} {args.images:<8} {done.bytes_per_image('crops') / 1e3:8,.1f} kB")
        live = DistillData(groups, recipe.student.image_size, recipe.data.augmentation)
        stored = StoredData(Path(name), live)
        kinds = {
            "live": (live, stepper(recipe, teachers, live.lengths)),
            "stored": (stored, stepper(recipe, stored.teachers, stored.lengths)),
        }
        times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        for number in range(args.steps + 1):
            picks = [Pick((number * size + i) % total, number * size + i) for i in range(size)]
            for kind, (data, step) in kinds.items():
                a = time.perf_counter()
                batch = data.batch(picks)
                b = time.perf_counter()
                step(batch, number)
                times[kind].append((b - a, time.perf_counter() - b))
    # The first step warms up.
    data_s, step_s = (
        {k: statistics.median(pair[i] for pair in v[1:]) for k, v in times.items()} for i in range(2)
    )
    for kind in kinds:
        print(f"{kind:<7} data {1e3 * data_s[kind]:8.0f} ms   step {1e3 * step_s[kind]:8.0f} ms")
    both = {kind: data_s[kind] + step_s[kind] for kind in kinds}
    print(f"data and step, both in one process: {both['live'] / both['stored']:.2f} × faster")
    ratio = step_s["live"] / step_s["stored"]
    print(f"step: {ratio:.2f} × faster with stored tokens (goal: {GOAL} ×)")


if __name__ == "__main__":
    main()
