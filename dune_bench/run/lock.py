"""One run at a time in a runs folder."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from dune_bench.errors import UsageError
from dune_bench.results.store import write_atomic


@contextmanager
def run_lock(runs: Path) -> Iterator[None]:
    """Holds `runs` for this process; the operating system releases it however the process ends.

    Raises UsageError naming the holder if another process has it.
    """
    holder = runs / ".lock.json"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        lock = FileLock(runs / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"{runs}: another run is writing here ({_describe(holder)}): wait for it to end, "
            "or give this one its own --runs DIR"
        ) from None
    except OSError as error:
        raise UsageError(f"--runs {runs}: cannot write there: {error.strerror or error}") from error
    try:
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_atomic(holder, json.dumps(facts).encode())
        yield
    finally:
        lock.release()


def _describe(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "its process is not known"
