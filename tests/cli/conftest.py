"""What every test of the command line shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dune_bench.registry.lookup import load_registry


class Answer:
    """What a command gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def error(self) -> str:
        """The error, which must be a single line."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0]


Command = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test has its own working folder, cache and registry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DUNE_BENCH_SMPLX", raising=False)
    load_registry.cache_clear()
    yield
    load_registry.cache_clear()


@pytest.fixture
def command() -> Command:
    """Runs `dune-bench ARGUMENTS` in this process; a bug keeps its traceback."""
    from dune_bench.cli.main import app

    def call(*arguments: str) -> Answer:
        result = CliRunner().invoke(app, list(arguments), prog_name="dune-bench")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    return call
