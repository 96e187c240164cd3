"""`dune-bench panel` as its user meets it, on tiny rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

from dune_bench.cli.main import app
from dune_bench.probes.depth import DepthProbe
from dune_bench.probes.semseg import SemsegProbe
from dune_bench.registry.lookup import load_registry
from dune_bench.run.panel_pick import Pick
from tests.cli.conftest import Command
from tests.cli.test_startup import start
from tests.data.minirooms_fixture import write_tiny_minirooms

SMALL = ("--resolution", "56", "--offline")
CARD = load_registry().select_tasks("depth/*", "mini")[0]
"""Any task on rooms: what is tested depends on no version of the data."""
ROOMS = CARD.id.split("/")[1]
DEPTH, SEMSEG, PAIRS = (f"{probe}/{ROOMS}/*" for probe in ("depth", "semseg", "correspondence"))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=3, rooms_test=3, views=2, name=CARD.dataset.name)
    return root


@pytest.fixture
def panel(command: Command, rooms: Path) -> Command:
    """`dune-bench panel pixels` on the tiny rooms."""
    return lambda *arguments: command("panel", "pixels", "--data", str(rooms), *SMALL, *arguments)


@pytest.fixture
def run(command: Command, rooms: Path) -> Command:
    return lambda *arguments: command("run", "-e", "pixels", "--data", str(rooms), *SMALL, *arguments)


def pictures(out: str) -> list[Path]:
    paths = [Path(line) for line in out.splitlines()]
    for path in paths:
        with Image.open(path) as image:
            assert np.asarray(image).std() > 10  # something is on it
    return paths


def test_panels_without_a_run_are_one_of_each_room(panel: Command) -> None:
    answer = panel("--task", DEPTH, "--samples", "3")
    assert answer.code == 0, answer.err
    paths = pictures(answer.out)
    assert len({path.name.split("--")[1] for path in paths}) == len(paths) == 3
    assert "no stored result of these options and seeds to rank samples by" in answer.err
    assert paths[0].is_relative_to("runs/panels/pixels")
    assert "resolution" in paths[0].parent.name  # an override is part of the name


def test_panels_after_a_run_go_from_worst_to_best_and_fit_nothing(
    panel: Command, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--tasks", DEPTH).code == 0

    def refuse(*arguments: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(DepthProbe, "fit", refuse)
    all_of_them = panel("--task", DEPTH, "--samples", "6")
    assert all_of_them.code == 0, all_of_them.err
    order = pictures(all_of_them.out)
    assert len(order) == 6
    worst = pictures(panel("--task", DEPTH, "--samples", "2", "--pick", "worst").out)
    best = pictures(panel("--task", DEPTH, "--samples", "2", "--pick", "best").out)
    assert (worst, best) == (order[:2], order[-2:])


def test_named_samples_alone_are_drawn(panel: Command) -> None:
    answer = panel("-t", f"{DEPTH},{SEMSEG}", "--samples", "test/test000/*")
    assert answer.code == 0, answer.err
    names = sorted(path.name for path in pictures(answer.out))
    assert names == ["test--test000--0.png"] * 2 + ["test--test000--1.png"] * 2


def test_photograph_is_shown_without_truth(panel: Command) -> None:
    Image.new("RGB", (90, 60), (200, 30, 30)).save("mine.png")
    answer = panel("--task", f"{DEPTH},{SEMSEG}", "--image", "mine.png", "--out", "here")
    assert answer.code == 0, answer.err
    assert {path.name for path in pictures(answer.out)} == {"mine.png.png"}
    assert all(path.is_relative_to("here") for path in pictures(answer.out))


def test_one_photograph_is_not_enough_for_a_pair(panel: Command) -> None:
    Image.new("RGB", (90, 60)).save("mine.png")
    answer = panel("--task", PAIRS, "--image", "mine.png")
    assert answer.code == 2
    assert "needs 2 images" in answer.error


def test_a_task_that_fails_does_not_take_the_others_along(
    panel: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dune_bench.errors import TaskError

    def fail(*arguments: object) -> None:
        raise TaskError("no solution (test)")

    monkeypatch.setattr(SemsegProbe, "fit", fail)
    answer = panel("--task", f"{DEPTH},{SEMSEG}", "--samples", "1")
    assert answer.code == 1
    assert "no solution (test)" in answer.error
    assert len(pictures(answer.out)) == 1


def test_random_weights_are_branded(command: Command, rooms: Path) -> None:
    arguments = ("--data", str(rooms), *SMALL, "--task", DEPTH, "--samples", "1", "--weights", "random")
    answer = command("panel", "dinov2_vits14", *arguments)
    assert answer.code == 0, answer.err
    assert "random-weights" in str(pictures(answer.out)[0])


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ("--task dept", 2, "no task matches 'dept'"),
        (f"--task {DEPTH} --samples 0", 2, "--samples 0: at least 1"),
        (f"--task {DEPTH} --samples test/nowhere/0", 2, "no sample 'test/nowhere/0'"),
        (f"--task {DEPTH} --pick worst", 3, "--pick worst takes a stored result"),
        (f"--task {DEPTH} --image gone.jpg", 2, "gone.jpg"),
        (f"--task {DEPTH} --fov 200 --image gone.jpg", 2, "--fov 200"),
        (f"--task {DEPTH} --weights gone.pth", 2, "no such file"),
    ],
)
def test_wrong_request_is_one_line_and_its_exit_code(
    panel: Command, arguments: str, code: int, reason: str
) -> None:
    answer = panel(*arguments.split())
    assert answer.code == code
    assert reason in answer.error
    assert not answer.out


def test_every_pick_can_be_asked_for(command: Command) -> None:
    """The command line's words are those of the run, which it does not import."""
    from dune_bench.cli.panel import PickName

    assert [pick.value for pick in PickName] == [pick.value for pick in Pick]


def test_help_of_panel_imports_nothing_heavy() -> None:
    output, code, heavy = start("panel", "--help")
    assert "--pick" in output
    assert (code, heavy) == (0, [])


def test_every_option_of_panel_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition("\n## panel\n")[2].partition("\n## ")[0]
    group: Any = typer.main.get_command(app)
    options = {name for parameter in group.commands["panel"].params for name in parameter.opts}
    assert {name for name in options if name.startswith("--") and f"`{name}" not in section} <= {"--help"}
