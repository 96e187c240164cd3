"""The page's example runs as it stands there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "train" / "engine.md"


def test_example_of_the_page_trains_and_is_finished_when_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    script = tmp_path / "protocol.py"
    script.write_text(next(block for block in blocks if block.startswith("from pathlib")), "utf-8")
    monkeypatch.chdir(tmp_path)
    record = runpy.run_path(str(script))["record"]
    assert record.resumed_from is None
    losses = [value for _, value in record.curve("error")]
    assert losses[-1] < 0.01 * losses[0]
    assert runpy.run_path(str(script))["record"].resumed_from == 200
    assert capsys.readouterr().out.startswith("(200, ")
