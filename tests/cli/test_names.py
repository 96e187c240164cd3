"""`list` and `show`: what they say is what the cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dune_bench.registry.lookup import load_registry
from dune_bench.results.schema import json_schema
from tests.cli.conftest import Command
from tests.report.factory import make_result


def test_list_names_everything_of_the_registry(command: Command) -> None:
    registry = load_registry()
    answer = command("list")
    assert answer.code == 0
    words = answer.out.split()
    for name in (*registry.encoders, *registry.tasks, *registry.suites, *registry.datasets):
        assert name in words
    for kind in ("encoders", "tasks", "suites", "datasets"):
        first = {line.split()[0] for line in command("list", kind).out.splitlines()}
        assert first == set(getattr(registry, kind))


def test_list_of_tasks_tells_unit_direction_and_suite(command: Command) -> None:
    lines = {line.split()[0]: line for line in command("list", "tasks").out.splitlines()}
    for task in load_registry().tasks.values():
        arrow = "↑" if task.primary.higher_is_better else "↓"
        assert f"{task.primary.id} ({task.primary.unit}) {arrow}" in lines[task.id]
        assert all(suite in lines[task.id] for suite in task.suites)


def test_list_tells_the_licence_of_weights(command: Command) -> None:
    lines = {line.split()[0]: line for line in command("list", "encoders").out.splitlines()}
    assert "NAVER non-commercial" in lines["dune_vitb"]


def test_include_reaches_list_and_show(command: Command) -> None:
    card = Path("more/encoders/mine.yaml")
    card.parent.mkdir(parents=True)
    card.write_text("id: mine\nkind: pixels\n")
    assert "mine" in command("list", "encoders", "--include", "more").out.split()
    assert yaml.safe_load(command("show", "mine", "--include", "more").out)["card"] == str(card)
    assert command("show", "mine").code == 2


def test_show_of_a_task_round_trips_its_card(command: Command) -> None:
    registry = load_registry()
    for task in registry.tasks.values():
        shown = yaml.safe_load(command("show", task.id).out)
        assert shown.pop("protocol_fingerprint") == task.protocol_fingerprint()
        assert shown.pop("card") == registry.origins[task.id]
        assert type(task).model_validate(shown) == task


def test_show_of_an_encoder_round_trips_its_card(command: Command) -> None:
    registry = load_registry()
    for name in ("dune_vitb", "pixels", "timm:vit_tiny_patch16_224"):
        shown = yaml.safe_load(command("show", name).out)
        assert len(shown.pop("card_fingerprint")) == 64
        shown.pop("card")
        assert type(registry.encoder(name)).model_validate(shown) == registry.encoder(name)


@pytest.mark.parametrize("name", ["mini", "minirooms", "minirooms@1"])
def test_show_of_a_suite_or_dataset_names_its_tasks(command: Command, name: str) -> None:
    shown = command("show", name).out
    assert [task for task in load_registry().tasks if task in shown]


def test_show_of_a_probe_names_its_tasks_and_no_others(command: Command) -> None:
    shown = yaml.safe_load(command("show", "depth").out)
    tasks = [task.id for task in load_registry().tasks.values() if task.probe == "depth"]
    assert shown == {"probe": "depth", "tasks": sorted(tasks)}
    assert "did you mean depth" in command("show", "dept").error


@pytest.mark.parametrize("name", ["minirooms", "minirooms@1"])
def test_show_of_a_dataset_tells_licence_size_and_counts(command: Command, name: str) -> None:
    dataset = load_registry().dataset("minirooms@1")("minirooms@1")
    shown = yaml.safe_load(command("show", name).out)["minirooms@1"]
    assert shown["licence"] == dataset.licence
    files = [dataset.shard(split).stat().st_size for split in dataset.splits]
    assert shown["size"] == f"{sum(files) / 1e6:.1f} MB"
    assert set(shown["splits"]) == set(dataset.splits)
    for split, counts in shown["splits"].items():
        rooms = dataset.index(split).rooms
        assert counts["rooms"] == len(rooms)
        assert counts["views"] == sum(len(room.views) for room in rooms)


def test_list_of_suites_tells_how_many_tasks_each_has(command: Command) -> None:
    lines = {line.split()[0]: line for line in command("list", "suites").out.splitlines()}
    tasks = load_registry().tasks.values()
    for suite, line in lines.items():
        count = sum(suite in task.suites for task in tasks)
        assert line.endswith(f"({count} task{'' if count == 1 else 's'})")


def test_the_schema_is_that_of_result_files(command: Command) -> None:
    schema = json.loads(command("show", "schema").out)
    assert schema == json_schema()
    written = make_result().model_dump(mode="json", by_alias=True)
    assert set(schema["properties"]) == set(written)
    assert set(schema["required"]) <= set(written)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["status"]["enum"] == ["ok", "failed", "unavailable"]
