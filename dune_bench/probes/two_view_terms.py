"""The loss of a two-view decoder as the engine takes it."""

from __future__ import annotations

from dune_bench.engine.terms import LossTerm
from dune_bench.models.two_view_losses import ConfidentMatching, ConfidentRegression, Outputs, PairTargets

MATCHING_WEIGHT = 0.075


def two_view_terms(
    outputs: Outputs,
    targets: PairTargets,
    regression: ConfidentRegression,
    matching: ConfidentMatching,
    matching_weight: float = MATCHING_WEIGHT,
) -> dict[str, LossTerm]:
    """The published loss as three terms: `points1` and `points2`, the regression of each view, and
    `matching`."""
    first, second = regression(outputs, targets)
    matches = matching(outputs, targets)
    return {
        "points1": LossTerm(first.total, first.count),
        "points2": LossTerm(second.total, second.count),
        "matching": LossTerm(matches.total, matches.count, matching_weight),
    }
