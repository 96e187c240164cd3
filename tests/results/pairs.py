"""Results with statistics, made by hand, for tests of what pairs them.

The metric is the mean of `value`: by default an error in metres, so lower is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dune_bench.results.measured import Measured, OfWeights, Reduce, measure
from dune_bench.results.schema import Metric, Result
from tests.results.example import ENCODER, TASK, example

Array = NDArray[np.float64]


def mean_reducer(result: Result) -> Reduce:
    del result

    def reduce(stats: Mapping[str, NDArray[Any]], metric: str) -> OfWeights:
        del metric
        values = stats["value"]
        return lambda weights: weights @ values / weights.sum(1)

    return reduce


def rooms(groups: int, each: int = 3) -> list[str]:
    return [f"room{g:02d}" for g in range(groups) for _ in range(each)]


def result_of(values: Array, groups: list[str], **changes: Any) -> tuple[Result, dict[str, NDArray[Any]]]:
    """A result whose metric is the mean of `values`: (n,), or (S, n) with a row a fit seed."""
    encoder = ENCODER.model_copy(update=changes.pop("encoder", {}))
    task = TASK.model_copy(update={"groups": {"test": len(set(groups))}, **changes.pop("task", {})})
    content: dict[str, Any] = {
        "id": "rmse_m", "value": float(values.mean()), "unit": "m", "higher_is_better": False,
        "primary": True, "margin": 0.02, "n": len(groups),
    }  # fmt: skip
    content |= changes.pop("metric", {})
    seeds = tuple(range(len(values))) if values.ndim == 2 else ()
    arrays: dict[str, NDArray[Any]] = {
        "id": np.array([f"{room}/{i}" for i, room in enumerate(groups)]),
        "group": np.array(groups),
    }
    if seeds:
        arrays |= {f"seed{seed}.value": values[seed] for seed in seeds}
    else:
        arrays["value"] = values
    result = example(metrics=(Metric(**content),), encoder=encoder, task=task, seeds=seeds, **changes)
    return result, arrays


def measured(values: Array, groups: list[str], **changes: Any) -> Measured:
    return measure(*result_of(values, groups, **changes), mean_reducer)
