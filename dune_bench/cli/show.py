"""`dune-bench show`: one card in full, or the JSON Schema of a result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dune_bench.cli.options import IncludeOption, Kind, complete
from dune_bench.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from dune_bench.registry.lookup import Registry


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="An encoder, task, probe, suite or dataset, or `schema`: the JSON Schema of a result file.",
            autocompletion=complete(Kind.encoders, Kind.tasks, Kind.suites, Kind.datasets, extra=("schema",)),
        ),
    ],
    include: IncludeOption = None,
) -> None:
    """Show a card in full: what is evaluated, and how."""
    if name == "schema":
        from dune_bench.results.schema import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
        return
    import yaml

    from dune_bench.registry.lookup import load_registry

    content = describe(load_registry(tuple(include or ())), name)
    typer.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110), nl=False)


def describe(registry: Registry, name: str) -> dict[str, Any]:
    """Everything known about a name.  Raises UsageError with the nearest names."""
    from dune_bench.registry.suggest import did_you_mean

    if name in registry.tasks:
        task = registry.tasks[name]
        content = task.model_dump(mode="json", exclude_defaults=True)
        return content | {"protocol_fingerprint": task.protocol_fingerprint(), "card": registry.origins[name]}
    if name in registry.suites:
        tasks = sorted(task.id for task in registry.tasks.values() if name in task.suites)
        return {"suite": name, "description": registry.suites[name], "tasks": tasks}
    probes = {task.probe for task in registry.tasks.values()}
    if name in probes:
        tasks = sorted(task.id for task in registry.tasks.values() if task.probe == name)
        return {"probe": name, "tasks": tasks}
    versions = [known for known in registry.datasets if name in (known, known.partition("@")[0])]
    if versions:
        return {known: _dataset(registry, known) for known in sorted(versions)}
    if name in registry.encoders or registry.makes_encoder(name):
        card = registry.encoder(name)
        content = card.model_dump(mode="json", exclude_defaults=True)
        origin = registry.origins.get(name, "made from the name")
        return content | {"card_fingerprint": card.fingerprint(), "card": origin}
    known_names = [
        *registry.encoders,
        *registry.tasks,
        *probes,
        *registry.suites,
        *registry.datasets,
        "schema",
    ]
    raise UsageError(f"unknown name {name!r}{did_you_mean(name, known_names)}")


def _dataset(registry: Registry, name: str) -> dict[str, Any]:
    """What a dataset's card says, if it has one, and who uses it."""
    tasks = sorted(task.id for task in registry.tasks.values() if task.dataset.name == name)
    use = {"code": registry.datasets[name], "tasks": tasks, "prepare": f"dune-bench prepare {name} --check"}
    try:
        dataset = registry.dataset(name)(name)
    except UnavailableError as error:
        return {"not here": str(error)} | use
    return {"licence": dataset.licence} | _contents(getattr(dataset, "card", None)) | use


def _contents(card: Any) -> dict[str, Any]:
    """Size, splits with their counts, and classes of a dataset card; nothing of one without splits."""
    if not isinstance(getattr(card, "splits", None), dict):
        return {}
    content: dict[str, Any] = card.model_dump(mode="json", include={"splits", "classes"})
    size = sum(split.get("size", 0) for split in content["splits"].values())
    return {"size": f"{size / 1e6:.1f} MB"} | content
