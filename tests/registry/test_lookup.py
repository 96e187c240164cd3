"""Names to cards and code: discovery, nearest names, plug-ins, and no heavy import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dune_bench.errors import UsageError
from dune_bench.registry import lookup
from dune_bench.registry.cards import EncoderCard
from dune_bench.registry.lookup import Registry, load_registry, register_encoder, resolve
from tests.registry.test_cards import TASK

ENCODER = {"id": "mine", "kind": "pixels"}


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test reads the cards anew, in a folder without `.dune_bench`, with nothing registered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lookup, "_registered", [])
    load_registry.cache_clear()
    yield
    load_registry.cache_clear()


def cards(root: Path, encoders: dict[str, Any] | None = None, tasks: dict[str, Any] | None = None) -> Path:
    for kind, content in (("encoders", encoders), ("tasks", tasks)):
        (root / kind).mkdir(parents=True)
        for name, card in (content or {}).items():
            (root / kind / f"{name}.yaml").write_text(yaml.safe_dump(card))
    return root


def small() -> Registry:
    """A registry with three toy tasks in two suites."""
    registry = Registry(suites={"mini": "", "paper": ""})
    for name, suites in (
        ("depth/toy/convex@1", ["mini"]),
        ("depth/toy/convex@2", ["paper"]),
        ("semseg/toy/convex@1", ["mini"]),
    ):
        probe = name.partition("/")[0]
        registry.add_task(
            lookup.TaskCard.model_validate(TASK | {"id": name, "probe": probe, "suites": suites}), name
        )
    return registry


def test_shipped_cards_are_valid_and_name_only_what_exists() -> None:
    registry = load_registry()
    assert registry.suites
    for card in registry.encoders.values():
        assert card.kind in registry.adapters, card.id
    for task in registry.tasks.values():
        assert task.probe in registry.probes, task.id
        assert task.dataset.name in registry.datasets, task.id
        assert all(needed in registry.tasks for needed in task.requires.values()), task.id


def test_one_protocol_does_not_differ_from_data_to_data() -> None:
    """`ridge@1` with more people is `ridge@1`: what differs is what was learned."""
    tasks = load_registry().tasks
    rooms, people = tasks["hmr/minirooms/ridge@1"], tasks["hmr/minirooms-people/ridge@1"]
    left_out = {"id", "suites", "description", "dataset"}
    assert people.model_dump(exclude=left_out) == rooms.model_dump(exclude=left_out)
    assert people.dataset.name == "minirooms-people@1"
    learned = tasks["hmr/minirooms-people/multihmr-mini@1"]
    assert learned.dataset.name == people.dataset.name
    shared = ("min_visible", "matching", "min_iou", "penalties", "min_depth_m", "max_depth_m")
    assert {key: learned.protocol[key] for key in shared} == {key: rooms.protocol[key] for key in shared}
    assert learned.metrics == rooms.metrics


def test_include_adds_cards(tmp_path: Path) -> None:
    folder = cards(tmp_path / "more", {"mine": ENCODER}, {"depth": TASK})
    registry = load_registry((folder,))
    assert registry.encoder("mine").kind == "pixels"
    assert registry.task(TASK["id"]).probe == "depth"
    assert registry.origins["mine"] == str(folder / "encoders" / "mine.yaml")


def test_cards_of_the_working_folder_are_found(tmp_path: Path) -> None:
    cards(tmp_path / ".dune_bench", {"mine": ENCODER})
    assert "mine" in load_registry().encoders


def test_missing_include_folder_is_not_silently_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--include .*gone: no such folder"):
        load_registry((tmp_path / "gone",))


def test_a_name_that_stands_twice_is_not_silently_replaced(tmp_path: Path) -> None:
    one, two = cards(tmp_path / "1", {"mine": ENCODER}), cards(tmp_path / "2", {"mine": ENCODER})
    with pytest.raises(UsageError) as caught:
        load_registry((one, two))
    assert str(two) in str(caught.value)
    assert str(one) in str(caught.value)


def test_a_suite_nobody_declared_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'minni'"):
        load_registry((cards(tmp_path / "x", tasks={"t": TASK | {"suites": ["minni"]}}),))


@pytest.mark.parametrize("content", ["- mini\n", "mini: [a]\n", "mini: 3\n", "a: b: c\n"])
def test_damaged_suites_file_is_a_known_error(tmp_path: Path, content: str) -> None:
    folder = cards(tmp_path / "x")
    (folder / "tasks" / "suites.yaml").write_text(content)
    with pytest.raises(UsageError, match=r"suites\.yaml"):
        load_registry((folder,))


def test_unknown_encoder_names_the_nearest() -> None:
    registry = Registry()
    registry.add_encoder(EncoderCard(id="dune_vitb", kind="dune"), "x")
    with pytest.raises(UsageError, match=r"unknown encoder 'dune_vitB' \(did you mean dune_vitb\?\)"):
        registry.encoder("dune_vitB")


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean .*semseg/toy/convex@1"):
        small().task("semseg/toy/convx@1")


def test_timm_models_need_no_card() -> None:
    card = Registry().encoder("timm:vit_tiny_patch16_224")
    assert (card.kind, card.arch["name"]) == ("timm", "vit_tiny_patch16_224")


def test_a_python_file_is_an_encoder_and_a_missing_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("")
    card = Registry().encoder("own.py:make")
    assert (card.id, card.kind, card.arch["attribute"]) == ("own:make", "file", "make")
    assert Registry().encoder("own.py").id == "own"
    with pytest.raises(UsageError, match=r"gone\.py does not exist"):
        Registry().encoder("gone.py")


@pytest.mark.parametrize(
    ("selection", "suite", "expected"),
    [
        ("all", "mini", ["depth/toy/convex@1", "semseg/toy/convex@1"]),
        ("depth", "mini", ["depth/toy/convex@1"]),
        ("depth", "paper", ["depth/toy/convex@2"]),
        ("depth/*", "mini", ["depth/toy/convex@1", "depth/toy/convex@2"]),
        ("semseg, depth/toy/convex@2", "mini", ["depth/toy/convex@2", "semseg/toy/convex@1"]),
        ("all,all", "mini", ["depth/toy/convex@1", "semseg/toy/convex@1"]),
    ],
)
def test_selection_of_tasks(selection: str, suite: str, expected: list[str]) -> None:
    assert [task.id for task in small().select_tasks(selection, suite)] == expected


@pytest.mark.parametrize(
    ("selection", "suite", "reason"),
    [
        ("dept", "mini", r"no task matches 'dept'.*did you mean depth"),
        ("semseg", "paper", "no task matches 'semseg' in suite 'paper': its tasks are in mini"),
        ("depth,smseg", "mini", "no task matches 'smseg'"),
        ("", "mini", "--tasks is empty"),
        (" , ", "mini", "--tasks is empty"),
        ("all", "mimi", r"unknown suite 'mimi' \(did you mean mini\?\)"),
    ],
)
def test_a_word_that_selects_nothing_is_not_ignored(selection: str, suite: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        small().select_tasks(selection, suite)


def test_a_suite_without_tasks_says_so() -> None:
    registry = small()
    registry.suites["later"] = "not yet"
    with pytest.raises(UsageError, match=r"^suite 'later' has no tasks yet$"):
        registry.select_tasks("all", "later")


def test_resolve_of_missing_code_is_a_known_error() -> None:
    for target in ("dune_bench.nowhere:X", "dune_bench.errors:Nothing"):
        with pytest.raises(UsageError, match=target.partition(":")[0]):
            resolve(target)
    assert resolve("dune_bench.errors:UsageError") is UsageError


def test_register_encoder_is_seen_by_a_registry_loaded_before() -> None:
    load_registry()
    register_encoder(EncoderCard(id="late", kind="pixels"))
    assert "late" in load_registry().encoders


def test_a_refused_registration_does_not_poison_the_process() -> None:
    taken = next(iter(load_registry().encoders), None)
    if taken is None:
        register_encoder(EncoderCard(id="taken", kind="pixels"))
        taken = "taken"
    with pytest.raises(UsageError, match="already defined"):
        register_encoder(EncoderCard(id=taken, kind="pixels"))
    assert taken in load_registry().encoders


class Point:
    """An entry point without an installed distribution."""

    def __init__(self, name: str, target: Any) -> None:
        self.name, self._target = name, target

    def load(self) -> Any:
        if isinstance(self._target, Exception):
            raise self._target
        return self._target


def _good(registry: Registry) -> None:
    registry.add_encoder(EncoderCard(id="from_plugin", kind="pixels"), "plug-in good")


def _half(registry: Registry) -> None:
    registry.add_encoder(EncoderCard(id="half_done", kind="pixels"), "plug-in half")
    raise RuntimeError("went wrong")


def test_a_broken_plugin_warns_once_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Point("half", _half), Point("gone", ImportError("no module x")), Point("good", _good)]
    monkeypatch.setattr(lookup.metadata, "entry_points", lambda group: points)
    with pytest.warns(UserWarning, match="plug-in") as seen:
        registry = load_registry()
    assert load_registry() is registry
    assert len(seen) == 2
    assert "from_plugin" in registry.encoders
    assert "half_done" not in registry.encoders
    assert "half_done" not in registry.origins
    assert registry.broken == {"half": "RuntimeError: went wrong", "gone": "ImportError: no module x"}


def test_protocols_are_listed_once_each() -> None:
    assert list(small().protocols()) == [
        ("depth", "convex@1"),
        ("depth", "convex@2"),
        ("semseg", "convex@1"),
    ]


def test_listing_imports_no_heavy_module() -> None:
    code = (
        "import sys; from dune_bench.registry.lookup import load_registry; load_registry(); "
        "print(sorted({'torch', 'timm', 'numpy', 'pandas', 'rich'} & set(sys.modules)))"
    )
    root = str(Path(lookup.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
