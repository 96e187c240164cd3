"""One universal encoder against its specialists: sums of what was measured under the same conditions."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dune_bench.errors import UnavailableError
from dune_bench.report.analysis_cost import analyse_cost, to_csv, to_json, to_markdown
from dune_bench.results.profile import BatchTiming, Profile, ProfileTimings, write_profile
from dune_bench.results.schema import Cost
from dune_bench.results.store import ResultStore
from tests.results.example import ENCODER, PROVENANCE, example


def profile(runs: Path, name: str, ms: float, where: dict[str, Any] | None = None, **changes: Any) -> None:
    """Writes the profile of an encoder of 10·ms parameters and 100·ms FLOPs."""
    batch = BatchTiming(batch_size=1, forwards=3, p50_ms=ms, p95_ms=2 * ms, images_per_s=1000 / ms)
    content: dict[str, Any] = {
        "encoder": name,
        "weights": "random",
        "digest": None,
        "adapter": "toy@1",
        "view": "norm",
        "resolution": 336,
        "dtype": "float32",
        "parameters": round(10 * ms),
        "flops": 100 * ms,
        "tokens": (24, 24),
        "dim": 8,
        "timings": ProfileTimings(batches=(batch,), peak_memory_bytes=round(1000 * ms)),
        "provenance": PROVENANCE.model_copy(update=where or {}),
    }
    write_profile(Profile(**content | changes), runs)


def test_sum_and_ratio_by_hand(tmp_path: Path) -> None:
    for name, ms in [("student", 10.0), ("a", 20.0), ("b", 15.0)]:
        profile(tmp_path, name, ms)
    analysis = analyse_cost("student", ["a", "b"], tmp_path)
    total, ratio = analysis.total, analysis.ratio
    assert (total.parameters, total.flops, total.latency_p50_ms) == (350, 3500, 35)
    assert total.peak_memory_bytes == 35_000
    assert total.latency_p95_ms is None  # percentiles do not add up
    assert ratio.latency_p50_ms == ratio.flops == 3.5
    assert not analysis.missing


def test_other_conditions_are_never_added_up(tmp_path: Path) -> None:
    profile(tmp_path, "student", 10.0)
    profile(tmp_path, "size", 20.0, resolution=448)
    profile(tmp_path, "dtype", 20.0, dtype="bfloat16")
    profile(tmp_path, "threads", 20.0, {"threads": 8})
    profile(tmp_path, "device", 20.0, {"device": "cuda"})
    names = ["size", "dtype", "threads", "device"]
    analysis = analyse_cost("student", names, tmp_path)
    assert analysis.missing == tuple(names)
    assert all(row.latency_p50_ms is row.flops is None for row in analysis.specialists)
    assert analysis.total.latency_p50_ms is None


def test_unmeasured_part_is_unknown_not_zero(tmp_path: Path) -> None:
    """Stored results give parameters and FLOPs; a time is not made up, nor the sum of the known parts."""
    profile(tmp_path, "student", 10.0)
    profile(tmp_path, "a", 20.0)
    info = ENCODER.model_copy(update={"id": "b"})
    result = example(encoder=info, status="failed", error="x", cost=Cost(parameters=70, flops=700.0))
    ResultStore(tmp_path).write(result)
    analysis = analyse_cost("student", ["a", "b", "gone"], tmp_path)
    assert (analysis.specialists[1].parameters, analysis.specialists[1].flops) == (70, 700)
    assert analysis.missing == ("b", "gone")
    assert analysis.total.flops is analysis.total.latency_p50_ms is None
    assert analyse_cost("student", ["a", "b"], tmp_path).total.flops == 2700
    assert "| gone | – | – | – | – | – |" in to_markdown(analysis)


def test_newest_profile_counts(tmp_path: Path) -> None:
    profile(tmp_path, "student", 10.0)
    profile(tmp_path, "a", 50.0, {"started": "2026-03-01T00:00:00+00:00"}, view="raw")
    profile(tmp_path, "a", 20.0)
    assert analyse_cost("student", ["a"], tmp_path).total.latency_p50_ms == 50


def test_resolution_chooses_the_profile(tmp_path: Path) -> None:
    for name in ("student", "a"):
        profile(tmp_path, name, 10.0)
        profile(tmp_path, name, 30.0, resolution=448)
    assert analyse_cost("student", ["a"], tmp_path, 448).total.latency_p50_ms == 30
    with pytest.raises(UnavailableError, match="no profile of student at 224 px"):
        analyse_cost("student", ["a"], tmp_path, 224)


def test_nothing_to_compare_with_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="--against"):
        analyse_cost("student", [], tmp_path)
    with pytest.raises(UnavailableError, match="run dune-bench profile student"):
        analyse_cost("student", ["a"], tmp_path)


def test_damaged_profile_is_listed(tmp_path: Path) -> None:
    profile(tmp_path, "student", 10.0)
    bad = tmp_path / "profiles" / "a" / "x.json"
    bad.parent.mkdir()
    bad.write_text("{")
    (refused,) = analyse_cost("student", ["a"], tmp_path).refused
    assert refused.path == bad


def test_tables_hold_the_same_numbers(tmp_path: Path) -> None:
    profile(tmp_path, "student", 10.0)
    profile(tmp_path, "a", 20.0)
    analysis = analyse_cost("student", ["a"], tmp_path)
    rows = list(csv.DictReader(io.StringIO(to_csv(analysis))))
    assert [row["encoder"] for row in rows] == ["student", "a", "sum of specialists", "sum / universal"]
    assert [float(row["latency_p50_ms"]) for row in rows] == [10, 20, 20, 2]
    assert json.loads(to_json(analysis))["total"]["flops"] == 2000
    assert "| a | 0.0 | 0.0 | 20.0 | 40.0 |" in to_markdown(analysis)


def test_analysis_needs_no_torch() -> None:
    code = "import sys, dune_bench.report.analysis_cost; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
