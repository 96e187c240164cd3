"""What holds for a whole column, in words: data, protocol, input, versions."""

from __future__ import annotations

from collections.abc import Iterable

from dune_bench.report.board import Board, Column
from dune_bench.report.format import one_line, qualifiers
from dune_bench.report.glossary import group_word
from dune_bench.results.schema import Result


def facts(board: Board, column: Column) -> list[tuple[str, str]]:
    """Name and text of each condition."""
    task = column.task
    made = [entry.result.provenance for entry in column.entries]
    versions = ", ".join(distinct(f"dune-bench {p.dune_bench} with torch {p.torch}" for p in made))
    prints = [f"{split} {value[:12]}" for split, value in sorted(task.dataset_fingerprints.items())]
    found = [
        ("Data", data_text(board, column)),
        ("About the data", board.descriptions.datasets.get(task.dataset, "")),
        ("Protocol", f"{task.protocol}, fingerprint {task.protocol_fingerprint[:12]}"),
        ("Input", ", ".join(f"{k} {v}" for k, v in sorted(task.input.items()) if v is not None)),
        ("Changed from the task's card", ", ".join(qualifiers(task))),
        ("Scoring code", f"version {task.score_version}"),
        ("Data fingerprints", ", ".join(prints)),
        ("Computed with", f"{versions}, on {', '.join(distinct(p.device for p in made))}"),
        ("Uncommitted changes", "in the checkout of some results" if any(p.dirty for p in made) else ""),
    ]  # fmt: skip
    return [(name, one_line(text)) for name, text in found if text]


def data_text(board: Board, column: Column) -> str:
    """`minirooms@1: test 150 samples in 30 rooms`, and what the heads were fitted on that it builds on."""
    task = column.task
    sizes = splits(column) or "sizes not recorded"
    heads = board.descriptions.heads.get(column.identity, ())
    if task.upstream and not heads:
        heads = tuple(f"a fitted {role}" for role in sorted(task.upstream))
    builds = f"; builds on {', '.join(heads)}" if heads else ""
    return f"{task.dataset}: {sizes}{builds}"


def splits(column: Column, only: str | None = None) -> str:
    """`train 84 samples in 14 rooms, test …`; of the split `only` if it is named."""
    task, word = column.task, group_word(column.task.dataset)
    asked = queries(column) if len(task.split_sizes) == 1 else None

    def size(split: str) -> str:
        groups = f" in {task.groups[split]} {word}" if split in task.groups else ""
        if asked is not None:
            return f"{split} {asked} queries{groups}"
        return f"{split} {task.split_sizes[split]} samples{groups}"

    return ", ".join(size(s) for s in sorted(task.split_sizes) if only in (None, s))


def queries(column: Column) -> int | None:
    """How many queries were scored, where a sample (a scene) has several and the results count them."""
    counts = {
        round(sum(value or 0.0 for value in part.values.values()))
        for entry in column.entries
        for part in entry.result.breakdowns
        if part.metric == "queries"
    }
    return counts.pop() if len(counts) == 1 else None


def machine(result: Result) -> str:
    """Where and how a latency was measured, as far as it is recorded: what must be equal to compare."""
    made = result.provenance
    batch = f"batch {result.cost.batch_size}"
    threads = f"{made.threads} thread{'' if made.threads == 1 else 's'}"
    parts = (made.device, threads, batch, f"torch {made.torch}", made.platform)
    return one_line(", ".join(parts))


def distinct(values: Iterable[str]) -> list[str]:
    return sorted(set(values))
