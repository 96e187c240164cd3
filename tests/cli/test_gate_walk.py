"""The five commands of docs/gate.md, as they stand there, on tiny rooms."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_docs import blocks
from tests.data.minirooms_fixture import write_tiny_minirooms

ROOT = Path(__file__).parents[2]
ENCODER = """
import torch
from dune_bench.encoders.base import Encoder

class Means(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.avg_pool2d({image}, 14)

encoder = Encoder.from_module(Means(), patch_size=14)
"""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rooms")
    write_tiny_minirooms(root, rooms_train=3, rooms_test=12, views=2)
    return root


def test_the_five_commands_of_the_page_find_the_worse_checkpoint(command: Command, rooms: Path) -> None:
    lines = next(blocks(ROOT / "docs" / "gate.md", "console")).splitlines()
    commands = [shlex.split(line.removeprefix("$ "), comments=True)[1:] for line in lines]
    assert [words[0] for words in commands] == ["run", "gate", "run", "gate", "compare"]
    options = ["--data", str(rooms), "--resolution", "56", "--tasks", "depth,semseg"]
    first, update, second, gate, compare = (
        words + options if words[0] == "run" else words for words in commands
    )
    Path("my_encoder.py").write_text(ENCODER.format(image="x"), encoding="utf-8")
    assert command(*first).code == 0
    assert command(*update).code == 0
    assert command(*gate).code == 0
    blind = ENCODER.format(image="torch.zeros_like(x) + x.mean((1, 2, 3), keepdim=True)")
    Path("my_encoder.py").write_text(blind, encoding="utf-8")
    assert command(*second).code == 0
    answer = command(*gate)
    assert answer.code == 1, answer.out
    assert "regressed" in answer.out
    baseline = Path(gate[gate.index("--baseline") + 1])
    old = json.loads(baseline.read_text())["results"][0]["encoder"]["digest"][:7]
    assert f"weights {old}" in answer.out
    found = command(*(word.replace("1a2b3c4", old) for word in compare))
    assert found.code == 0, found.err
    assert "worse" in found.out
