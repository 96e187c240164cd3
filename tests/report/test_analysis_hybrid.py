"""Which tasks the universal encoder serves: the search is exact, and its certainty is measured."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from dune_bench.errors import UnavailableError, UsageError
from dune_bench.registry.lookup import load_registry
from dune_bench.report.analysis_hybrid import (
    Floors,
    HybridAnalysis,
    Option,
    analyse_hybrid,
    best_plan,
    to_csv,
    to_json,
    to_markdown,
)
from tests.report.paired_runs import depth, segmentation, write
from tests.report.test_analysis_cost import profile

Options = dict[str, dict[str, Option]]


def instance(rng: np.random.Generator) -> tuple[Options, dict[str, float], float]:
    """Up to 4 tasks and 4 encoders, `u` everywhere; small integers, so that ties are common."""
    names = ["u", *"abc"[: rng.integers(1, 4)]]
    options: Options = {}
    for task in range(rng.integers(1, 5)):
        there = ["u", *(name for name in names[1:] if rng.random() < 0.7)]
        options[f"t{task}"] = {n: Option(n, 0.0, float(rng.integers(-3, 3))) for n in there}
    costs = {name: float(rng.integers(1, 5)) for name in names}
    return options, costs, float(rng.integers(1, 12))


def brute_force(options: Options, costs: dict[str, float], budget: float) -> tuple[int, float] | None:
    """The best (−met, cost) over all assignments of encoders to tasks."""
    found = []
    for servers in itertools.product(*(list(o) for o in options.values())):
        cost = sum(costs[name] for name in set(servers))
        if cost <= budget:
            met = sum(o[name].slack >= 0 for o, name in zip(options.values(), servers, strict=True))
            found.append((-met, cost))
    return min(found, default=None)


def test_search_misses_no_better_assignment() -> None:
    rng = np.random.default_rng(0)
    solved = 0
    for _ in range(400):
        options, costs, budget = instance(rng)
        best = brute_force(options, costs, budget)
        if best is None:
            with pytest.raises(UnavailableError):
                best_plan(options, costs, "u", budget)
            continue
        plan = best_plan(options, costs, "u", budget)
        assert (-plan.met, plan.cost) == best
        assert plan.cost == sum(costs[name] for name in set(plan.served.values()))
        solved += 1
    assert 100 < solved < 400


def test_tie_goes_to_the_universal_encoder_and_is_told() -> None:
    options = {"t": {"a": Option("a", 0.0, 2.0), "u": Option("u", 0.0, 0.0)}}
    plan = best_plan(options, {"a": 5.0, "u": 5.0}, "u", 9.0)
    assert (plan.encoders, plan.ties) == (("u",), (("a",),))


def runs_of(tmp_path: Path, groups: int = 12) -> Path:
    """The universal encoder is as good as `vit` in segmentation and 0.5 m worse in depth (of 1 m)."""
    write(
        tmp_path,
        depth("dune_vitb", 0.5, noise=1, groups=groups),
        segmentation("dune_vitb", 0.8, groups=groups),
        depth("pixels", noise=2, groups=groups),
        segmentation("pixels", 0.8, groups=groups),
    )
    profile(tmp_path, "dune_vitb", 10.0)
    profile(tmp_path, "pixels", 30.0)
    return tmp_path


def analyse(runs: Path, floors: Floors, limit: float = 100.0) -> HybridAnalysis:
    return analyse_hybrid(
        "dune_vitb", ["pixels"], runs, load_registry(), floors, ("latency_p50_ms", limit), resamples=500
    )


def test_universal_that_meets_all_floors_runs_alone(tmp_path: Path) -> None:
    analysis = analyse(runs_of(tmp_path), Floors({"depth": 2.0}, 0.9))
    assert (analysis.encoders, analysis.cost, analysis.all_specialists) == (("dune_vitb",), 10.0, 30.0)
    assert not analysis.unmet
    assert analysis.jointly is not None
    assert analysis.jointly > 0.95
    assert "saved 20.0 (67%)" in to_markdown(analysis)
    assert len(to_csv(analysis).splitlines()) == 3
    assert json.loads(to_json(analysis))["encoders"] == ["dune_vitb"]
    assert analysis == analyse(tmp_path, Floors({"depth": 2.0}, 0.9))


def test_retention_of_an_error_is_not_turned_round(tmp_path: Path) -> None:
    """The floor of an error is best / share: above the best, which meets it; 0.5 m more does not."""
    analysis = analyse(runs_of(tmp_path), Floors({}, 0.9))
    row = next(choice for choice in analysis.choices if choice.metric == "rmse_m")
    pixels = row.served.value
    assert row.served.encoder == "pixels"
    assert row.floor == pytest.approx(pixels / 0.9)
    assert row.universal.probability is not None
    assert row.universal.probability < 0.05
    assert row.served.probability is not None
    assert row.served.probability > 0.95
    # the specialist alone meets both: cheaper than both encoders together
    assert analysis.encoders == ("pixels",)


def test_probability_is_the_share_of_resamples_that_meet_the_floor(tmp_path: Path) -> None:
    """An independent bootstrap of room means."""
    result, arrays = depth("dune_vitb", 0.5, noise=1)
    floor = float(arrays["rmse_m"].mean()) + 0.03
    rooms = arrays["rmse_m"].reshape(12, -1).mean(1)
    draws = np.random.default_rng(5).integers(0, 12, (20_000, 12))
    share = float((rooms[draws].mean(1) <= floor).mean())
    row = analyse(runs_of(tmp_path), Floors({"depth": floor})).choices[0]
    assert result.task.probe in row.task
    assert 0.6 < share < 0.95
    assert row.universal.probability == pytest.approx(share, abs=0.06)


def test_floor_out_of_the_budget_is_not_called_met(tmp_path: Path) -> None:
    analysis = analyse(runs_of(tmp_path), Floors({}, 0.9), limit=20.0)
    assert analysis.encoders == ("dune_vitb",)
    assert len(analysis.unmet) == 1


def test_few_rooms_give_no_probability(tmp_path: Path) -> None:
    analysis = analyse(runs_of(tmp_path, groups=6), Floors({"depth": 2.0}))
    assert analysis.choices[0].universal.probability is None
    assert analysis.jointly is None


def test_unmeasured_cost_is_not_zero(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    for path in (runs / "profiles" / "pixels").iterdir():
        path.unlink()
    with pytest.raises(UnavailableError, match=r"pixels: run dune-bench profile"):
        analyse(runs, Floors({}, 0.9))


def test_floor_of_an_unknown_task_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="measured are depth, semseg"):
        analyse(runs_of(tmp_path), Floors({"dept": 1.0}))
