from __future__ import annotations

import pytest

from dune_bench.models.two_view_losses import ConfidentMatching, ConfidentRegression
from dune_bench.probes.two_view_terms import two_view_terms
from tests.models.test_two_view_losses import case


def test_the_terms_are_not_another_sum_than_the_published_loss() -> None:
    outputs, targets = case(1)
    terms = two_view_terms(outputs, targets, ConfidentRegression(), ConfidentMatching())
    assert list(terms) == ["points1", "points2", "matching"]
    loss = sum(term.weight * term.total.item() / float(term.count) for term in terms.values())
    views = ConfidentRegression()(outputs, targets)
    matches = ConfidentMatching()(outputs, targets)
    expected = sum(p.total.item() / int(p.count) for p in views)
    expected += 0.075 * matches.total.item() / int(matches.count)
    assert loss == pytest.approx(expected, rel=1e-6)
