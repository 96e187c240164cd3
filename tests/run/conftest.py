from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run import fakes


@pytest.fixture(autouse=True)
def _own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache and a working folder of its own for every test, and fakes in their first state."""
    monkeypatch.setenv("DUNE_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DUNE_BENCH_CACHE_BYTES", raising=False)
    monkeypatch.chdir(tmp_path)
    fakes.reset()
    yield
    fakes.reset()
