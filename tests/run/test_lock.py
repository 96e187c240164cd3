from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dune_bench.errors import UsageError
from dune_bench.run.execute import execute
from dune_bench.run.lock import run_lock
from dune_bench.run.request import RunRequest
from tests.run.fakes import Blocks, ToyEncoder, fake_registry
from tests.run.recorder import Recorder

RUNS = Path("runs")
HOLD = """
import sys, pathlib
from dune_bench.run.lock import run_lock
with run_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_run_is_told_who_holds_the_folder_and_harms_nothing() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", HOLD, str(RUNS)]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = sorted(RUNS.rglob("*"))
        with pytest.raises(UsageError) as caught:
            execute(RunRequest(encoders=(ToyEncoder(),)), Recorder(), fake_registry())
        assert sorted(RUNS.rglob("*")) == before
        assert Blocks.decoded == []
        text = str(caught.value)
        assert f"process {holder.pid} on {socket.gethostname()} since 20" in text
        assert (caught.value.exit_code, "\n" in text, "--runs" in text) == (2, False, True)
        holder.kill()
    # The system released the lock with the process.
    assert execute(RunRequest(encoders=(ToyEncoder(),)), Recorder(), fake_registry()).exit_code == 0


def test_lock_is_free_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), run_lock(RUNS):
        raise ZeroDivisionError
    with run_lock(RUNS):
        pass


def test_unreadable_holder_file_is_no_traceback() -> None:
    with run_lock(RUNS):
        (RUNS / ".lock.json").write_text("[]")
        with pytest.raises(UsageError, match="its process is not known"), run_lock(RUNS):
            pass


def test_runs_folder_that_is_a_file_is_a_usage_error() -> None:
    RUNS.touch()
    with pytest.raises(UsageError, match="--runs runs: cannot write there"), run_lock(RUNS):
        pass
