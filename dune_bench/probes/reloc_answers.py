"""The answer to one query of map-free relocalization, whichever protocol gives it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from dune_bench.probes.pair_matches import PairMatches

Floats = NDArray[np.float64]
MIN_MATCHES = 4
"""Below this no solver is asked: P3P takes three points and a fourth to choose."""


class Outcome(IntEnum):
    """How a query ended; stored with each query's statistics."""

    answered = 0
    bad_features = 1
    bad_camera = 2
    too_few_matches = 3
    no_pose = 4


@dataclass(frozen=True)
class QueryPose:
    """Answer to one query.  T_query_ref: float64 (4, 4), points of the reference camera to the query's,
    metres; None unless the outcome is `answered`.  confidence: number of inliers.  matches: reciprocal
    ones.  inliers: the matches of the reference (1) and the query (2) that agree with the pose, if they
    are known."""

    T_query_ref: Floats | None
    confidence: float
    matches: int
    outcome: Outcome
    inliers: PairMatches | None = None


def unanswered(outcome: Outcome, matches: int = 0) -> QueryPose:
    """No pose, and why."""
    return QueryPose(None, float("nan"), matches, outcome)
