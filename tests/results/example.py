"""A result to test with."""

from __future__ import annotations

from typing import Any

from dune_bench.results.schema import EncoderInfo, Metric, Provenance, Result, TaskInfo

ENCODER = EncoderInfo(
    id="toy", weights="released", digest="d" * 64, adapter="toy@1", view="norm", card_fingerprint="c" * 64
)
TASK = TaskInfo(
    id="depth/blocks/convex@1",
    probe="depth",
    dataset="blocks@1",
    protocol="convex@1",
    protocol_fingerprint="f" * 64,
    input={"resolution": 336},
    score_version=1,
)
PROVENANCE = Provenance(
    dune_bench="0.1.0",
    commit=None,
    dirty=None,
    python="3.11.7",
    torch="2.6.0",
    platform="Linux",
    device="cpu",
    threads=2,
    started="2026-01-01T00:00:00+00:00",
)
METRIC = Metric(id="rmse_m", value=0.5, unit="m", higher_is_better=False, primary=True, ci95=(0.4, 0.6), n=2)


def example(**changes: Any) -> Result:
    """A good result, with changed fields."""
    content: dict[str, Any] = {
        "key": "a" * 64,
        "status": "ok",
        "encoder": ENCODER,
        "task": TASK,
        "metrics": (METRIC,),
        "provenance": PROVENANCE,
    }
    return Result(**{**content, **changes})
