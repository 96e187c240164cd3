"""kill -9 at any moment, then the same command: the undisturbed results."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from dune_bench.results.store import ResultStore
from dune_bench.run.execute import execute
from dune_bench.run.request import RunRequest
from tests.run.fakes import ToyEncoder, fake_registry, line_card
from tests.run.recorder import Recorder

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """Stands for the end of the process."""


def run() -> None:
    cards = (line_card(1, requires={"base": "line/blocks/convex@2"}), line_card(2, protocol={"ridge": 0.5}))
    execute(RunRequest(encoders=(ToyEncoder(),)), Recorder(), fake_registry(*cards))


def everything(runs: Path) -> dict[str, object]:
    """Every result and statistic without what may differ between equal runs."""
    found: dict[str, object] = {}
    store = ResultStore(runs)
    good, refused = store.load()
    assert refused == []
    for path, result in good:
        raw = result.model_dump(exclude={"timings", "provenance"})
        raw["cost"].pop("latency_ms")
        raw["cost"].pop("batch_size")
        found[str(path.relative_to(runs))] = raw
        found[str(path.with_suffix(".npz").relative_to(runs))] = path.with_suffix(".npz").read_bytes()
    for head in sorted(runs.rglob("*.safetensors")):
        found[str(head.relative_to(runs))] = head.read_bytes()
    return found


@contextmanager
def dying_at(step: int) -> Iterator[list[str]]:
    """The process ends just before its n-th rename: nothing after that is written."""
    renamed: list[str] = []
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if len(renamed) == step:
            raise Killed
        renamed.append(Path(target).name)
        return original(self, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        yield renamed


def fresh_world() -> None:
    for folder in ("runs", "cache"):
        shutil.rmtree(folder, ignore_errors=True)


def test_death_before_any_rename_changes_no_result() -> None:
    with dying_at(10**6) as renamed:
        run()
    undisturbed, steps = everything(Path("runs")), len(renamed)
    assert steps >= 12
    for step in range(steps):
        fresh_world()
        with dying_at(step), pytest.raises(Killed):
            run()
        run()
        assert everything(Path("runs")) == undisturbed, f"died before writing {renamed[step]}"


def start(folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env["DUNE_BENCH_CACHE"] = str(folder / "cache")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.run.kill_target"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_kill_9_at_random_moments_changes_no_result(tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    calm.mkdir()
    with start(calm) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        assert process.wait() == 0
        lasts = time.monotonic() - began
    rng = np.random.default_rng(0)
    shaken = tmp_path / "shaken"
    shaken.mkdir()
    for _ in range(4):
        with start(shaken) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.6 * lasts)))
            process.send_signal(signal.SIGKILL)
            process.wait()
    with start(shaken) as process:
        assert process.wait() == 0
    assert everything(shaken / "runs") == everything(calm / "runs")
