"""The documentation's commands, cards and code are accepted by the program they document."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
import yaml

from dune_bench.cli.main import app
from dune_bench.cli.options import Kind
from dune_bench.encoders.load import load_encoder
from dune_bench.registry.cards import EncoderCard, TaskCard, parse_card
from dune_bench.registry.lookup import load_registry

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield content


def documented_commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in blocks(page, "console", "bash", "sh", "shell"):
            for line in block.splitlines():
                command = line.removeprefix("$ ").strip()
                if command.startswith("dune-bench "):
                    found.append(command)
    return list(dict.fromkeys(found))


def card_headers() -> list[str]:
    """The command in the first line of each shipped card."""
    cards = [path for root in ("encoders", "tasks") for path in sorted((ROOT / root).rglob("*.yaml"))]
    lines = [path.read_text(encoding="utf-8").partition("\n")[0] for path in cards]
    commands = [line.removeprefix("# ") for line in lines if line.startswith("# dune-bench ")]
    return [re.split(r"\s{2,}", command)[0].replace("ENCODER", "pixels") for command in commands]


@pytest.mark.parametrize("text", [*documented_commands(), *card_headers()])
def test_documented_command_parses(text: str) -> None:
    """Every verb and option that is written down exists; nothing is run."""
    words = shlex.split(text, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        command = command.commands[words.pop(0)]
    if {"--help", "-h", "--version"} & set(words):
        assert len(words) == 1
    else:
        command.make_context(command.name, words)


def test_every_verb_is_documented_with_an_example() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    verbs = [command.name for command in app.registered_commands] + [g.name for g in app.registered_groups]
    for verb in verbs:
        assert f"\n## {verb}\n" in page
        assert f"$ dune-bench {verb}" in page
    for kind in Kind:
        assert f"`{kind.value}`" in page


def test_every_option_of_run_is_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    group: Any = typer.main.get_command(app)
    command = group.commands["run"]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {name for name in options if name.startswith("--") and f"`{name}" not in page} <= {"--help"}


@pytest.mark.parametrize("text", [*blocks(ROOT / "docs" / "extend.md", "yaml")])
def test_documented_cards_are_valid(text: str) -> None:
    raw = yaml.safe_load(text)
    card = parse_card(raw, TaskCard if "probe" in raw else EncoderCard, "docs/extend.md")
    registry = load_registry()
    if isinstance(card, TaskCard):
        from dune_bench.run.probing import make_probe

        make_probe(card, registry)  # checks the constants
        assert card.dataset.name in registry.datasets
    else:
        assert card.kind in registry.adapters


def test_documented_encoder_file_is_an_encoder_of_ten_lines() -> None:
    text = next(text for text in blocks(ROOT / "docs" / "extend.md", "python") if "from_module" in text)
    assert len([line for line in text.splitlines() if line.strip() and not line.startswith("#")]) <= 10
    Path("my_encoder.py").write_text(text, encoding="utf-8")
    encoder = load_encoder(load_registry().encoder("my_encoder.py"))
    assert encoder.encode(torch.rand(1, 3, 28, 30))["norm"].patch.shape == (1, 3, 2, 3)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_python_compiles(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_leads_nowhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert re.match(r"https?://|mailto:", target) or (page.parent / target).exists(), target


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values() if isinstance(entry, dict) else entry:  # type: ignore[attr-defined]
                yield from pages(value)

    named = set(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert named == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.name != "README.md"}
