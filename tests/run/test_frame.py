from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pandas as pd

from dune_bench.run.execute import execute
from dune_bench.run.frame import COLUMNS, results_frame
from dune_bench.run.request import RunRequest
from tests.run.fakes import ToyEncoder, fake_registry
from tests.run.recorder import Recorder

RUNS = Path("runs")


def test_one_row_per_metric_and_one_per_failure() -> None:
    execute(RunRequest(encoders=(ToyEncoder(), ToyEncoder("bad", broken="nan"))), Recorder(), fake_registry())
    frame = results_frame(RUNS)
    assert tuple(frame.columns) == COLUMNS
    rows = frame.to_dict("records")
    assert [(r["encoder"], r["status"]) for r in rows] == [("bad", "failed"), ("toy", "ok"), ("toy", "ok")]
    assert [pd.isna(r["metric"]) or r["metric"] for r in rows] == [True, "rmse_m", "mse"]
    assert math.isnan(rows[0]["value"])
    assert rows[1]["ci_low"] < rows[1]["value"] < rows[1]["ci_high"]
    assert [r["primary"] for r in rows] == [False, True, False]


def test_empty_folder_gives_an_empty_table_with_columns() -> None:
    frame = results_frame(RUNS)
    assert (len(frame), tuple(frame.columns)) == (0, COLUMNS)


def test_reading_results_imports_no_torch() -> None:
    root = Path(__file__).resolve().parents[2]
    code = "import sys, dune_bench.run.frame; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
