"""What answers that look at no image get on each task, and by how much the encoders beat them.

    python benchmarks/baselines.py [RUNS] [--tasks GLOB]

For each task of the runs folder markdown tables: the primary metric of every encoder, of every
trivial answer and (*in italics*) of answers that know a part of the truth, with its 95 % interval; and
the paired difference between each encoder and each floor (trivial answers, and the encoders that never
saw data: `position`, `pixels`, `random_*`) on the same samples, whole rooms resampled.  **Bold**: the
interval excludes 0 in the encoder's favour.  Where the task divides its samples (by viewpoint, light,
covisibility, difficulty), the primary metric of each part follows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from entries import Entry, compare, entries

from dune_bench.errors import UsageError
from dune_bench.results.stats import Estimate

FLOORS = ("position", "pixels", "random")
"""What the names of encoders without training begin with."""


def is_floor(entry: Entry) -> bool:
    """An answer, or an encoder, that was never trained."""
    return entry.kind == "trivial" or (entry.kind == "encoder" and entry.label.startswith(FLOORS))


def name_of(entry: Entry) -> str:
    """Code for encoders, italics for oracles."""
    return {"encoder": f"`{entry.label}`", "trivial": entry.label, "oracle": f"*{entry.label}*"}[entry.kind]


def cell(estimate: Estimate, unit: str, sign: str = "") -> str:
    """Value [low, high]; percents and millimetres to a tenth, others to a thousandth."""
    style = f"{sign}.{1 if unit in ('%', 'mm', 'px') else 3}f"
    interval = "" if estimate.ci95 is None else " [{:{s}}, {:{s}}]".format(*estimate.ci95, s=style)
    return f"{estimate.value:{style}}{interval}"


def values(loaded: list[Entry]) -> None:
    """The first table."""
    primary = loaded[0].card.primary
    arrow = "↑" if primary.higher_is_better else "↓"
    print(f"| | `{primary.id}` {arrow} {primary.unit} |\n|---|---|")
    for entry in loaded:
        print(f"| {name_of(entry)} | {cell(entry.estimate(), primary.unit)} |", flush=True)


def differences(loaded: list[Entry]) -> None:
    """The second table: encoders in columns, floors in rows."""
    trained = [entry for entry in loaded if entry.kind == "encoder" and not is_floor(entry)]
    floors = [entry for entry in loaded if is_floor(entry)]
    if not (trained and floors):
        return
    print(f"\n| difference to | {' | '.join(f'`{entry.label}`' for entry in trained)} |")
    print("|---" * (len(trained) + 1) + "|")
    for floor in floors:
        cells = [difference(entry, floor) for entry in trained]
        print(f"| {name_of(floor)} | {' | '.join(cells)} |", flush=True)


def parts(loaded: list[Entry]) -> None:
    """The primary metric of parts of the data, one table for each way of dividing it."""
    primary = loaded[0].card.primary
    tables: dict[str, list[tuple[str, dict[str, float | None]]]] = {}
    for entry in loaded:
        for found in entry.breakdowns():
            if found.metric == primary.id and entry.kind != "oracle":
                tables.setdefault(found.by, []).append((name_of(entry), found.values))
    for by, rows in tables.items():
        keys = list(rows[0][1])
        print(f"\n| `{primary.id}` by {by} | {' | '.join(keys)} |\n|---{'|---' * len(keys)}|")
        for name, values_of in rows:
            cells = ("–" if (value := values_of[key]) is None else f"{value:.1f}" for key in keys)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def difference(entry: Entry, floor: Entry) -> str:
    """entry − floor, bold where the entry is surely better."""
    try:
        estimate = compare(entry, floor)
    except UsageError as error:
        return f"not comparable: {error}"
    primary = entry.card.primary
    text = cell(estimate, primary.unit, "+")
    if estimate.ci95 is None:
        return text
    low, high = estimate.ci95
    return f"**{text}**" if (low > 0 if primary.higher_is_better else high < 0) else text


def main() -> None:
    parser = argparse.ArgumentParser(description="Trivial baselines and what beats them.")
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"))
    parser.add_argument("--tasks", default="*", help="a glob over task ids")
    options = parser.parse_args()
    for task, loaded in entries(options.runs, options.tasks, ("trivial", "oracle")).items():
        print(f"\n### {task}\n")
        values(loaded)
        differences(loaded)
        parts(loaded)


if __name__ == "__main__":
    main()
