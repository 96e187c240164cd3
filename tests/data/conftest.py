"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.minirooms_fixture import write_tiny_minirooms


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny MiniRooms shards and their card.  Read only: copy it before damaging it."""
    root = tmp_path_factory.mktemp("minirooms")
    write_tiny_minirooms(root)
    return root
