"""`dune-bench compare --html --pictures`: draws what is missing, with the measured weights only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dune_bench
from dune_bench.registry.lookup import load_registry
from dune_bench.results.store import ResultStore
from tests.cli.conftest import Command
from tests.data.minirooms_fixture import write_tiny_minirooms
from tests.report.paired_runs import depth, write

CARD = load_registry().select_tasks("depth/*", "mini")[0]
"""Any task on rooms: what is tested depends on no version of the data."""
FILE = """
import torch
PATCH_SIZE = 14
encoder = torch.nn.Conv2d(3, 8, 14, 14)
with torch.no_grad():
    encoder.weight.copy_(torch.linspace(-1, 1, encoder.weight.numel()).cos().reshape(encoder.weight.shape))
    encoder.bias.zero_()
"""
PAGE = ("--html", "page.html", "--worst", "2")


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=3, rooms_test=3, views=2, name=CARD.dataset.name)
    return root


@pytest.fixture
def compare(command: Command, rooms: Path) -> Command:
    """Both baselines on the tiny rooms at another resolution, a column of its own, then their comparison."""
    arguments = ("--data", str(rooms), "--resolution", "56", "--offline", "--tasks", CARD.id)
    assert command("run", "-e", "pixels,position", *arguments).code == 0
    return lambda *more: command("compare", "pixels", "position", "--data", str(rooms), *PAGE, *more)


def lost() -> list[str]:
    (task,) = dune_bench.compare("pixels", "position", worst=2).tasks
    return [sample.id for sample in task.worst]


def test_missing_pictures_are_drawn_once_and_shown(compare: Command) -> None:
    count = 2 * len(lost())
    assert count > 0
    without = compare()
    assert without.code == 0
    assert not Path("runs/panels").exists()
    assert Path("page.html").read_text().count("No picture yet") == count
    answer = compare("--pictures")
    assert answer.code == 0, answer.err
    assert f"pictures: {count} drawn of {count} that were missing" in answer.err
    assert len(list(Path("runs/panels").glob("*/*/*.png"))) == count
    page = Path("page.html").read_text()
    assert (page.count("<img "), page.count("No picture yet"), "not made yet" in page) == (count, 0, False)
    again = compare("--pictures")
    assert "pictures: none is missing" in again.err
    assert Path("page.html").read_text() == page
    next(Path("runs/panels").glob("*/*/*.png")).unlink()
    assert "pictures: 1 drawn of 1 that were missing" in compare("--pictures").err


def test_an_encoder_that_is_not_the_measured_one_is_not_drawn(compare: Command) -> None:
    store = ResultStore(Path("runs"))
    for path, result in store.load()[0]:
        if result.encoder.id == "position":
            arrays = store.arrays(path, result)
            other = result.encoder.model_copy(update={"digest": "0" * 64})
            store.write(result.model_copy(update={"encoder": other}), arrays)
    answer = compare("--pictures")
    assert answer.code == 3
    assert "its weights are" in answer.err
    assert "the result is of 0000000" in answer.err
    assert f"pictures: {len(lost())} drawn of {2 * len(lost())}" in answer.err
    assert "Pictures not made yet" in Path("page.html").read_text()


def test_an_encoder_that_is_gone_is_a_warning_and_the_page_is_written(command: Command) -> None:
    write(Path("runs"), depth("a"), depth("b", 0.3, noise=1))
    answer = command("compare", "a", "b", *PAGE, "--pictures")
    assert answer.code == 2
    assert "pictures: 0 drawn of 4" in answer.err
    assert Path("page.html").is_file()


def test_a_python_file_is_drawn_from_the_path_that_was_typed(command: Command, rooms: Path) -> None:
    Path("mine.py").write_text(FILE)
    arguments = ("--data", str(rooms), "--resolution", "56", "--offline", "--tasks", CARD.id)
    assert command("run", "-e", "mine.py,position", *arguments).code == 0
    answer = command("compare", "./mine.py", "position", "--data", str(rooms), *PAGE, "--pictures")
    assert answer.code == 0, answer.err
    drawn = {path.parts[2] for path in Path("runs/panels").glob("*/*/*.png")}
    assert len(drawn) == 2
    assert "mine" in str(sorted(drawn))


def test_weights_of_a_file_are_left_to_the_user(command: Command) -> None:
    write(Path("runs"), depth("dinov2_vits14", weights="file"), depth("pixels", 0.3, noise=1))
    answer = command("compare", "dinov2_vits14", "pixels", "--html", "page.html", "--pictures")
    assert "a result does not say where the file of its weights is" in answer.err
    assert "--weights PATH" in Path("page.html").read_text()
    assert answer.code != 0


def test_two_checkpoints_of_one_name_do_not_share_their_pictures(command: Command, rooms: Path) -> None:
    arguments = ("--data", str(rooms), "--resolution", "56", "--offline", "--tasks", CARD.id)
    digests: list[str] = []
    for text in (FILE, FILE.replace("-1, 1", "-2, 3")):
        Path("mine.py").write_text(text)
        assert command("run", "-e", "mine.py", *arguments).code == 0
        (digest,) = {r.encoder.digest for _, r in ResultStore(Path("runs")).load()[0]} - {*digests}
        digests.append(str(digest))
    compare = ("compare", f"mine@{digests[0][:7]}", "mine.py", "--data", str(rooms), *PAGE, "--pictures")
    answer = command(*compare)
    assert answer.code == 3
    assert "put those back and draw again" in answer.err
    assert [path.name[-8:] for path in Path("runs/panels").iterdir()] == [f"@{digests[1][:7]}"]
    assert "weights are in place" in Path("page.html").read_text()
    Path("mine.py").write_text(FILE)
    answer = command(*compare)
    assert answer.code == 0, answer.err
    assert {path.name[-8:] for path in Path("runs/panels").iterdir()} == {f"@{d[:7]}" for d in digests}
    page = Path("page.html").read_text()
    assert (page.count("<img "), "not made yet" in page) == (len(list(Path("runs").rglob("*.png"))), False)


def test_pictures_without_a_page_are_refused(command: Command) -> None:
    write(Path("runs"), depth("a"), depth("b", 0.3, noise=1))
    answer = command("compare", "a", "b", "--pictures")
    assert answer.code == 2
    assert "--pictures goes with --html" in answer.error


def test_a_page_without_pictures_imports_no_torch() -> None:
    write(Path("runs"), depth("a"), depth("b", 0.3, noise=1))
    code = (
        "import sys\nfrom dune_bench.cli.main import app\n"
        "app(['compare', 'a', 'b', '--html', 'page.html'], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    assert Path("page.html").is_file()
