"""`dune-bench analyze pca` as its user meets it, on tiny rooms."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dune_bench.registry.lookup import load_registry
from tests.cli.conftest import Command
from tests.data.minirooms_fixture import write_tiny_minirooms


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=2, rooms_test=4, views=2)
    return root


@pytest.fixture
def pca(command: Command, rooms: Path) -> Command:
    small = ("--data", str(rooms), "--resolution", "56", "--offline")
    return lambda *arguments: command("analyze", "pca", *arguments, *small)


def photographs(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (30, 50, 3), np.uint8)).save(path)
    return paths


def test_tables_curves_and_colours(pca: Command) -> None:
    answer = pca("pixels", "--against", "position", "--limit", "4")
    assert answer.code == 0, answer.err
    assert "| minirooms@1/test | pixels | raw | 4 | 64 | 5 |" in answer.out
    assert "| minirooms@1/test | pixels raw | position raw | 64 | " in answer.out
    folder = Path("runs/panels/pixels/pca")
    names = {path.name for path in folder.iterdir()}
    assert names == {"curves.png", "variance.csv", "similarity.csv", "colours-minirooms@1--test.png"}
    assert Path("runs/panels/position/pca/colours-minirooms@1--test.png").is_file()
    with (folder / "variance.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["encoder"] == "pixels"]
    assert len(rows) == 5
    assert float(rows[-1]["explained"]) == 1
    for name in names - {"variance.csv", "similarity.csv"}:
        with Image.open(folder / name) as image:
            assert np.asarray(image).std() > 10


def test_report_page_takes_the_colours(pca: Command, command: Command, rooms: Path) -> None:
    run = ("-t", "semseg", "--resolution", "56", "--limit", "4", "--data", str(rooms))
    assert command("run", "-e", "pixels", *run).code == 0
    assert pca("pixels", "--limit", "4").code == 0
    answer = command("report", "--format", "html")
    assert answer.code == 0
    assert "pca" not in answer.err  # no picture is left out
    assert "colours-minirooms@1--test" in Path("runs/leaderboard.html").read_text(encoding="utf-8")


def test_own_folder_is_a_domain_of_its_own(pca: Command) -> None:
    photographs(Path("mine"), 3)
    answer = pca(
        "pixels", "--images", "kitchen=mine", "--dataset", "minirooms@1", "--limit", "2", "--out", "o"
    )
    assert answer.code == 0, answer.err
    assert "| kitchen | pixels | raw | 2 | 32 | 5 |" in answer.out
    assert "| minirooms@1/test | pixels | raw | 4 |" in answer.out  # never fewer than two rooms
    assert Path("o/pixels/pca/colours-kitchen.png").is_file()
    alone = pca("pixels", "--images", "kitchen=mine")
    assert "minirooms" not in alone.out


def test_given_photographs_are_shown_instead_and_all_of_them(pca: Command) -> None:
    paths = photographs(Path("mine"), 5)
    answer = pca("pixels", *(word for path in paths for word in ("--image", str(path))))
    assert answer.code == 0, answer.err
    names = {path.name for path in Path("runs/panels/pixels/pca").glob("colours*")}
    assert names == {"colours-photographs-1.png", "colours-photographs-2.png"}


def test_projectors_are_views_and_teachers_that_are_not_here_are_named(pca: Command) -> None:
    answer = pca("dune_vits", "--weights", "random", "--limit", "2")
    assert answer.code == 0, answer.err
    teachers = load_registry().encoder("dune_vits").teachers
    for teacher in teachers:
        assert f"| dune_vits [random weights] | proj:{teacher} |" in answer.out
        assert f"warning: left out: {teacher}: " in answer.err


def test_view_that_is_asked_for_is_the_only_one(pca: Command) -> None:
    answer = pca("random_vits14", "--view", "layer:1", "--view", "raw", "--limit", "2")
    assert [line.split(" | ")[2] for line in answer.out.splitlines() if "@1/test" in line] == [
        "layer:1",
        "raw",
    ]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("pixels --against pixels", "pixels is named twice"),
        ("pixels --against position,position,pixls", "position is named twice"),
        ("pixels --against pixls", "did you mean pixels"),
        ("pixels --view layer:99", "has no view 'layer:99'"),
        ("pixels --dataset minroms@1", "did you mean minirooms@1"),
        ("pixels --split tset", "tset"),
        ("pixels --images mine", "expected NAME=DIR"),
        ("pixels --images own=gone", "--images own=gone: cannot be read"),
        ("pixels --images own=empty", "no image in it"),
        ("pixels --images own=bad", "bad/broken.png: not an image"),
        ("pixels --images a=good --images a=good", "two sets of images are called 'a'"),
        ("pixels --image gone.jpg", "--image gone.jpg: cannot be read"),
    ],
)
def test_wrong_request_is_one_line_and_nothing_is_written(pca: Command, arguments: str, reason: str) -> None:
    photographs(Path("good"), 1)
    Path("empty").mkdir()
    Path("bad").mkdir()
    Path("bad/broken.png").write_bytes(b"no image")
    answer = pca(*arguments.split())
    assert answer.code == 2
    assert reason in answer.error
    assert not Path("runs").exists()


def test_features_without_variance_fail_with_their_name(pca: Command) -> None:
    code = """
    import torch
    from dune_bench.encoders.base import Encoder
    encoder = Encoder.from_module(lambda x: torch.ones(len(x), 2, 4, 4), 14, fingerprint="ones")
    """
    Path("ones.py").write_text("\n".join(line[4:] for line in code.splitlines()))
    answer = pca("ones.py", "--limit", "2")
    assert answer.code == 1
    assert (
        "ones [file weights] norm, minirooms@1/test: the features are the same in every token" in answer.error
    )
