"""`dune-bench list`: the names that can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dune_bench.cli.options import IncludeOption, Kind, names_of

if TYPE_CHECKING:
    from dune_bench.registry.lookup import Registry


def list_names(
    kind: Annotated[Kind | None, typer.Argument(help="Which names; all of them if not given.")] = None,
    include: IncludeOption = None,
) -> None:
    """List encoders, tasks, suites, datasets or protocols."""
    from dune_bench.registry.lookup import load_registry

    registry = load_registry(tuple(include or ()))
    for index, each in enumerate([kind] if kind else list(Kind)):
        if kind is None:
            typer.echo(("\n" if index else "") + each.value)
        indent = "" if kind else "  "
        for line in aligned([(name, describe(registry, each, name)) for name in names_of(registry, each)]):
            typer.echo(indent + line)


def aligned(rows: list[tuple[str, str]]) -> list[str]:
    """Two columns as lines."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {text}".rstrip() for name, text in rows]


def describe(registry: Registry, kind: Kind, name: str) -> str:
    """One line about a name."""
    if kind is Kind.encoders:
        card = registry.encoders[name]
        licences = sorted({source.licence for source in card.weights})
        licence = f" [{' / '.join(licences)}]" if licences else ""
        return f"{card.kind}: {card.description}{licence}" if card.description else card.kind + licence
    if kind is Kind.tasks:
        task = registry.tasks[name]
        arrow = "↑" if task.primary.higher_is_better else "↓"
        suites = ", ".join(task.suites) or "no suite"
        about = f": {task.description}" if task.description else ""
        return f"{task.primary.id} ({task.primary.unit}) {arrow}  {suites}{about}"
    if kind is Kind.suites:
        count = sum(name in task.suites for task in registry.tasks.values())
        return f"{registry.suites[name]} ({count} task{'' if count == 1 else 's'})"
    if kind is Kind.datasets:
        users = [task.id for task in registry.tasks.values() if task.dataset.name == name]
        return f"used by {len(users)} task{'' if len(users) == 1 else 's'}"
    probe, _, protocol = name.partition("/")
    tasks = [t.id for t in registry.tasks.values() if (t.probe, t.protocol_name) == (probe, protocol)]
    return ", ".join(sorted(tasks))
