from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dune_bench.run import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose package `dune_bench` the module believes to be in."""
    package = tmp_path / "repo" / "dune_bench" / "run"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    provenance.checkout.cache_clear()
    yield tmp_path / "repo"  # type: ignore[misc]
    provenance.checkout.cache_clear()


def git(repo: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", "-C", repo, *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_commit_and_dirty_are_those_of_the_checkout(checkout: Path) -> None:
    git(checkout, "init", "-q")
    assert provenance.checkout() == (None, None)
    provenance.checkout.cache_clear()
    (checkout / "a").write_text("1")
    git(checkout, "add", "a")
    git(checkout, "commit", "-qm", "one")
    commit = git(checkout, "rev-parse", "HEAD")
    assert provenance.checkout() == (commit, False)
    provenance.checkout.cache_clear()
    (checkout / "a").write_text("2")
    assert provenance.checkout() == (commit, True)


def test_commit_of_a_repository_around_an_installed_package_is_not_ours(checkout: Path) -> None:
    """site-packages inside somebody's project must not claim that project's commit."""
    outer = checkout.parent
    git(outer, "init", "-q")
    (outer / "a").write_text("1")
    git(outer, "add", "a")
    git(outer, "commit", "-qm", "one")
    assert provenance.checkout() == (None, None)


def test_no_git_is_no_failure(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.checkout() == (None, None)


def test_package_without_metadata_has_no_version_rather_than_a_crash() -> None:
    assert provenance.version("no-such-distribution-here") == "not installed"
    assert provenance.version("numpy")[0].isdigit()


def test_peak_memory_is_in_bytes() -> None:
    before = provenance.peak_memory_bytes()
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert provenance.peak_memory_bytes() >= max(before, 200_000_000)
