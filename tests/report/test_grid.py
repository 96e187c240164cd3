from __future__ import annotations

import pytest

from dune_bench.report.grid import aligned, csv_table, fine, interval, markdown_table, p_text
from dune_bench.results.stats import Estimate


@pytest.mark.parametrize(
    ("p", "is_bound", "text"),
    [
        (None, False, "–"),
        (0.0123, False, "0.012"),
        (0.0123, True, "< 0.012"),
        (0.0, True, "< 0.001"),
        (0.0004, False, "< 0.001"),
        (1.0, True, "1.000"),
    ],
)
def test_a_p_value_never_claims_more_than_is_known(p: float | None, is_bound: bool, text: str) -> None:
    assert p_text(p, is_bound) == text


def test_differences_have_a_digit_more_than_the_metric() -> None:
    assert fine(0.01234, "m", signed=True) == "+0.0123"
    assert fine(-1.0, "%") == "-1.00"
    assert fine(None, "%") == "–"
    assert fine(1234.5678, "furlong") == "1235"


def test_no_interval_says_how_few_groups_there_were() -> None:
    assert interval(Estimate(0.1, None, None, None, 7), "m") == "none (7 groups)"
    assert interval(Estimate(0.1, 0.1, (-0.1, 0.3), 0.3, 12), "m") == "[-0.1000, +0.3000]"


def test_a_cell_with_newlines_or_pipes_stays_one_cell() -> None:
    rows = [["a\n|b\x00", "c"]]
    assert len(aligned(("x", "y"), rows).splitlines()) == 3
    *_, last = markdown_table(("x", "y"), rows).splitlines()
    assert last == "| a \\|b | c |"
    assert csv_table(("x", "y"), [["a\n|b", None]]) == 'x,y\n"a\n|b",\n'
