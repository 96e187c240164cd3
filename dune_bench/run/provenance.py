"""Where and when a result was made.  Imports no torch."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

import dune_bench
from dune_bench.results.schema import Provenance


def collect(device: str, threads: int) -> Provenance:
    """The facts of this process, now."""
    commit, dirty = checkout()
    return Provenance(
        dune_bench=dune_bench.__version__,
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        torch=version("torch"),
        platform=platform.platform(),
        device=device,
        threads=threads,
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        argv=tuple(sys.argv),
    )


def version(distribution: str) -> str:
    """An installed version, or `not installed`."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def checkout() -> tuple[str | None, bool | None]:
    """(commit, dirty) of the checkout this package runs from, or (None, None) outside of one.

    Dirty: a tracked file differs from the commit.
    """
    package = Path(__file__).resolve().parents[1]
    top = _git(package, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != package.parent:
        return None, None
    commit = _git(package, "rev-parse", "--verify", "--quiet", "HEAD")
    status = _git(package, "status", "--porcelain", "--untracked-files=no")
    return commit, None if commit is None or status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    # Fixed arguments; a repository's own hooks and pagers are not run by these commands.
    done = subprocess.run(  # noqa: S603
        [git, "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
    )
    return done.stdout.strip() if done.returncode == 0 else None


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
